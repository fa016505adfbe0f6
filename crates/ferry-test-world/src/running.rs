//! Commands that are running.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Machine, Outcome, Usage};

/// In the environment of every process on the way into a machine, and not in the command's.
const ENTERING: &[u8] = b"FERRY_TEST_ENTERING=1";

/// A command that is running on a machine. Dropping it kills it, with all that it started.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    ended: bool,
    started: Instant,
    floor: u64,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    stderr_reader: Option<JoinHandle<()>>,
    stdin_writer: Option<JoinHandle<()>>,
    // Keeps the machine's directories and namespaces.
    _machine: Machine,
}

impl Running {
    pub(crate) fn start(
        what: String,
        machine: Machine,
        mut command: std::process::Command,
        stdin: Option<Vec<u8>>,
    ) -> Self {
        command.env("FERRY_TEST_ENTERING", "1");
        let floor = own_peak_rss();
        let started = Instant::now();
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        let stdin_writer = stdin.zip(child.stdin.take()).map(|(bytes, mut pipe)| {
            thread::spawn(move || {
                // A command may well end without reading all of its input.
                let _ = pipe.write_all(&bytes);
            })
        });
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let stderr_reader = child.stderr.take().map(|pipe| {
            let sink = Arc::clone(&stderr);
            thread::spawn(move || drain(pipe, &sink))
        });
        Self {
            what,
            stdout: child.stdout.take().map(BufReader::new),
            child,
            ended: false,
            started,
            floor,
            stderr,
            stderr_reader,
            stdin_writer,
            _machine: machine,
        }
    }

    /// The next line of stdout without its end, waiting for it; `None` at the end.
    pub fn next_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let pipe = self.stdout.as_mut()?;
        match pipe.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end_matches('\n').to_owned()),
            Err(error) => panic!("cannot read the stdout of {}: {error}", self.what),
        }
    }

    /// What it has written to stderr by now.
    pub fn stderr_so_far(&self) -> String {
        let bytes = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        // Not std's try_wait: that would reap the child, and its usage would be lost.
        let options = rustix::process::WaitIdOptions::EXITED
            | rustix::process::WaitIdOptions::NOHANG
            | rustix::process::WaitIdOptions::NOWAIT;
        let pid = pid(self.child.id());
        !self.ended
            && matches!(
                rustix::process::waitid(rustix::process::WaitId::Pid(pid), options),
                Ok(None)
            )
    }

    /// Sends a signal to the command itself (not to what it started).
    ///
    /// Waits until the command has come to be: entering the machine takes some milliseconds.
    pub fn signal(&mut self, signal: Signal) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.is_running() && Instant::now() < deadline {
            // unshare, then the namespace's first process, then the command.
            if let Some(inner) = only_child(self.child.id()).and_then(only_child)
                && !is_entering(inner)
            {
                kill_process(pid(inner), signal)
                    .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.what));
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("cannot signal {}: it is not running\n{}", self.what, self.stderr_so_far());
    }

    /// Kills it at once, with all that it started (`SIGKILL`); they are gone when this returns.
    pub fn kill(mut self) -> Outcome {
        self.strike();
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Outcome {
        let mut stdout = Vec::new();
        if let Some(mut pipe) = self.stdout.take() {
            pipe.read_to_end(&mut stdout)
                .unwrap_or_else(|error| panic!("cannot read the stdout of {}: {error}", self.what));
        }
        let (status, mut usage) = reap(self.child.id())
            .unwrap_or_else(|error| panic!("cannot wait for {}: {error}", self.what));
        self.ended = true;
        usage.wall = self.started.elapsed();
        usage.peak_rss_floor = self.floor;
        for thread in [self.stdin_writer.take(), self.stderr_reader.take()].into_iter().flatten() {
            let _ = thread.join();
        }
        Outcome { status, stdout, stderr: self.stderr_so_far(), usage }
    }

    /// Kills the first process of the namespace, and with it all others there: it only counts
    /// as dead once they are, and only then does unshare end, which `reap` waits for.
    fn strike(&mut self) {
        if !self.ended {
            // With no namespace yet it has to be the way there, and nothing runs inside.
            let victim = only_child(self.child.id()).unwrap_or(self.child.id());
            let _ = kill_process(pid(victim), Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.strike();
            let _ = reap(self.child.id());
        }
    }
}

fn pid(raw: u32) -> Pid {
    i32::try_from(raw)
        .ok()
        .and_then(Pid::from_raw)
        .unwrap_or_else(|| panic!("{raw} is no process id"))
}

fn drain(mut pipe: impl Read, sink: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 8192];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => sink
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Waits for a child, and reads what it and its own children used.
fn reap(child: u32) -> io::Result<(ExitStatus, Usage)> {
    let mut status = 0;
    // SAFETY: rusage is plain data, for which all zeroes is a valid value.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to values that outlive the call; the process id is that
        // of a child which nothing else waits for.
        let result = unsafe { libc::wait4(child as libc::pid_t, &mut status, 0, &mut used) };
        if result >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let usage = Usage {
        wall: Duration::ZERO,
        cpu: duration(used.ru_utime) + duration(used.ru_stime),
        peak_rss: used.ru_maxrss as u64 * 1024,
        peak_rss_floor: 0,
    };
    Ok((ExitStatus::from_raw(status), usage))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000)
}

/// The most memory that this process has held.
fn own_peak_rss() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        })
        .map_or(0, |kilobytes| kilobytes * 1024)
}

fn only_child(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Whether `process` has not become the command yet: the last thing that the way into the
/// machine does is to drop the environment that has the mark.
fn is_entering(process: u32) -> bool {
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    environment.is_empty() || environment.split(|&byte| byte == 0).any(|entry| entry == ENTERING)
}
