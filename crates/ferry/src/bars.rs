//! Progress on a terminal: one line, after a quarter of a second, at most thirty times a second.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ferry_formats::StorePath;
use ferry_store::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const APPEARS_AFTER: Duration = Duration::from_millis(250);
const REDRAWS_A_SECOND: u8 = 30;
const LINE: &str =
    "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ETA {eta}";
/// Where no bytes are to be counted.
const LINE_OF_PATHS: &str = "{msg} {wide_bar} {per_sec} ETA {eta}";

/// Draws a bar on standard error, if that is a terminal and nobody asked for quiet.
pub(crate) struct Bars {
    shown: bool,
    messages: bool,
    state: Mutex<Option<State>>,
}

struct State {
    bar: ProgressBar,
    what: String,
    begun: Instant,
    paths: u64,
    done: u64,
    bytes: u64,
    counts_bytes: bool,
    visible: bool,
}

impl Bars {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            shown: !quiet && std::io::stderr().is_terminal(),
            messages: !quiet,
            state: Mutex::new(None),
        }
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let Ok(mut state) = self.state.lock() else { return };
        let Some(state) = state.as_mut() else { return };
        change(state);
        if !state.visible && state.begun.elapsed() >= APPEARS_AFTER {
            state.visible = true;
            let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_A_SECOND);
            state.bar.set_draw_target(target);
        }
        if state.visible {
            state.bar.set_position(if state.counts_bytes { state.bytes } else { state.done });
        }
    }
}

impl State {
    fn count(&mut self, done: u64) {
        self.done = done;
        self.bar.set_message(match self.paths {
            0 => self.what.clone(),
            paths => format!("{} {done}/{paths} paths", self.what),
        });
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, paths: u64, bytes: u64) {
        if !self.shown {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        let counts_bytes = bytes > 0;
        let line = if counts_bytes { LINE } else { LINE_OF_PATHS };
        if let Ok(style) = ProgressStyle::with_template(line) {
            bar.set_style(style);
        }
        let mut state = State {
            bar,
            what: what.to_owned(),
            begun: Instant::now(),
            paths,
            done: 0,
            bytes: 0,
            counts_bytes,
            visible: false,
        };
        state.count(0);
        if !counts_bytes {
            state.bar.set_length(paths);
        }
        if let Ok(mut current) = self.state.lock() {
            *current = Some(state);
        }
    }

    fn more(&self, paths: u64) {
        self.update(|state| {
            state.paths += paths;
            state.count(state.done);
            if !state.counts_bytes {
                state.bar.set_length(state.paths);
            }
        });
    }

    fn bytes(&self, count: u64) {
        self.update(|state| state.bytes += count);
    }

    fn path(&self, _path: &StorePath) {
        self.update(|state| state.count(state.done + 1));
    }

    #[allow(clippy::print_stderr)]
    fn message(&self, line: &str) {
        if self.messages {
            let print = || eprintln!("{line}");
            match self.state.lock().ok().as_deref() {
                Some(Some(state)) => state.bar.suspend(print),
                _ => print(),
            }
        }
    }

    fn end(&self) {
        if let Ok(mut state) = self.state.lock()
            && let Some(state) = state.take()
        {
            state.bar.finish_and_clear();
        }
    }
}
