//! Killing commands at moments that are spread over the time that they take.

use std::thread;
use std::time::{Duration, Instant};

use ferry_test_world::MachineCommand;

/// Moments between nothing and what something takes, the same ones every time as long as that does
/// not change. It does on a machine that others use, too: where a command has ended before its
/// moment, those to come are a little earlier, and otherwise a little later.
pub(crate) struct Moments {
    most: Duration,
    state: u64,
}

impl Moments {
    pub(crate) fn within(most: Duration) -> Self {
        Self { most, state: 0x9e37_79b9_7f4a_7c15 }
    }

    pub(crate) fn next(&mut self) -> Duration {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.most.mul_f64((self.state >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// Kills a command at the next moment, which is told, unless the command has ended before.
    pub(crate) fn kill(&mut self, command: MachineCommand) -> Option<Duration> {
        let moment = self.next();
        let was_running = kill_after(command, moment);
        self.most = self.most.mul_f64(if was_running { 1.03 } else { 0.93 });
        was_running.then_some(moment)
    }
}

/// Lets a command run for this long, and kills it if it still does; whether that was so.
pub(crate) fn kill_after(command: MachineCommand, moment: Duration) -> bool {
    let mut running = command.spawn();
    let end = Instant::now() + moment;
    while running.is_running() && Instant::now() < end {
        thread::sleep(Duration::from_millis(1).min(end.saturating_duration_since(Instant::now())));
    }
    let was_running = running.is_running();
    running.kill();
    was_running
}
