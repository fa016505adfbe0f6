//! Follows a command and all that it starts, and looks at what evaluators among them do.
//!
//! This is the parent's side of ptrace(2). Only the thread that started a command may follow it, and
//! it waits for nobody else's children. Whatever is followed ends with that thread.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::process::{WaitOptions, WaitStatus};

use super::tracee;
use crate::watch::seen::Act;
use crate::watch::{Interest, Seen};

/// How long what the command leaves behind is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked whether something that was stopped goes on, or has ended.
const PAUSE: Duration = Duration::from_millis(10);
/// A stop that is none of those that were asked for (`linux/ptrace.h`).
const EVENT_STOP: i32 = 128;

/// Follows one command.
pub(in crate::watch) struct Tracer {
    main: Pid,
    interest: Interest,
    /// Processes and threads that were seen at work, and whether they are evaluators.
    known: HashMap<Pid, bool>,
    /// Those that were stopped, and that nobody has told to continue.
    held: BTreeSet<Pid>,
    has_begun: bool,
    is_watched: bool,
    status: Option<ExitStatus>,
    pub(in crate::watch) seen: Seen,
}

/// How a command began.
pub(in crate::watch) enum Begun {
    /// It runs, and its files are seen.
    Watched,
    /// It runs, and the system does not tell what it does.
    Unwatched,
    /// It could not be run.
    Failed(io::Error),
}

impl Tracer {
    /// Takes hold of a child that has stopped itself, or is about to.
    pub(in crate::watch) fn seize(child: &Child, interest: Interest) -> io::Result<Self> {
        let id = i32::try_from(child.id()).map_err(io::Error::other)?;
        let main = rustix::process::Pid::from_raw(id);
        let options = WaitOptions::UNTRACED | own();
        let has_stopped = loop {
            match rustix::process::waitpid(main, options) {
                Ok(status) => break status.is_some_and(|(_, status)| status.stopped()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        if !has_stopped {
            return Err(io::Error::other("it ended before it began"));
        }
        let main = Pid::from_raw(id);
        let options = Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(main, options)?;
        Ok(Self {
            main,
            interest,
            known: HashMap::new(),
            held: BTreeSet::new(),
            has_begun: false,
            is_watched: false,
            status: None,
            seen: Seen::default(),
        })
    }

    /// Lets it go on, and follows it until it has become the command.
    pub(in crate::watch) fn begin(&mut self) -> Begun {
        if let Err(error) = nix::sys::signal::kill(self.main, Signal::SIGCONT) {
            return Begun::Failed(error.into());
        }
        while !self.has_begun && self.status.is_none() {
            if !self.step(true) {
                break;
            }
        }
        match self.status.and_then(|status| status.code()) {
            _ if self.has_begun && self.is_watched => Begun::Watched,
            _ if self.has_begun => Begun::Unwatched,
            Some(code) => Begun::Failed(io::Error::from_raw_os_error(code)),
            None => Begun::Failed(io::Error::other("it ended before it began")),
        }
    }

    /// Follows it to its end, and what it leaves behind for a while.
    pub(in crate::watch) fn follow(&mut self) -> io::Result<ExitStatus> {
        while self.status.is_none() && self.step(self.held.is_empty()) {}
        let deadline = Instant::now() + PATIENCE;
        while self.step(false) {
            if Instant::now() > deadline {
                self.seen
                    .missed
                    .insert("the command ended, and something that it started went on".to_owned());
                break;
            }
        }
        self.status.ok_or_else(|| io::Error::other("the command is gone"))
    }

    /// Lets one of them go on, after waiting for one to stop if that is wanted. False where there is
    /// none left.
    fn step(&mut self, waiting: bool) -> bool {
        let options = if waiting { own() } else { own() | WaitOptions::NOHANG };
        match rustix::process::wait(options) {
            Ok(Some((process, status))) => {
                self.happened(Pid::from_raw(process.as_raw_nonzero().get()), status);
                true
            }
            Ok(None) => {
                let held = std::mem::take(&mut self.held);
                let (woken, held): (BTreeSet<Pid>, BTreeSet<Pid>) =
                    held.into_iter().partition(|one| tracee::is_to_continue(*one));
                self.held = held;
                woken.into_iter().for_each(|process| go_on(process, None));
                thread::sleep(PAUSE);
                true
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(_) => false,
        }
    }

    fn happened(&mut self, process: Pid, status: WaitStatus) {
        let Some(signal) = status.stopping_signal() else {
            self.known.remove(&process);
            self.held.remove(&process);
            if process == self.main {
                self.status = Some(ExitStatus::from_raw(status.as_raw()));
            }
            return;
        };
        match status.as_raw() >> 16 {
            libc::PTRACE_EVENT_SECCOMP => {
                self.is_watched = true;
                if self.has_begun {
                    self.look(process);
                }
                go_on(process, None);
            }
            libc::PTRACE_EVENT_EXEC => {
                self.has_begun = true;
                self.known.remove(&process);
                // It may have been another thread before.
                let before = ptrace::getevent(process).ok().and_then(|id| i32::try_from(id).ok());
                before.map(|id| self.known.remove(&Pid::from_raw(id)));
                go_on(process, None);
            }
            // Told to stop, with all of its threads. To be stopped is to be left alone.
            EVENT_STOP if self.has_begun && is_stop(signal) => drop(self.held.insert(process)),
            0 => match Signal::try_from(signal) {
                Ok(signal) => go_on(process, signal),
                Err(_) => {
                    // The crate knows no signals but those with names.
                    self.seen.missed.insert(format!(
                        "the real-time signal {signal} to process {process} was lost on the way"
                    ));
                    go_on(process, None);
                }
            },
            _ => go_on(process, None),
        }
    }

    fn look(&mut self, process: Pid) {
        let is_evaluator = self.interest.is_evaluator;
        let is_known = self.known.entry(process).or_insert_with(|| {
            tracee::names(process).is_some_and(|(file, called)| is_evaluator(&file, &called))
        });
        if !*is_known {
            return;
        }
        let Some(named) = tracee::named(process) else { return };
        let path = &named.path;
        let is_in_store = path.starts_with(&self.interest.store_dir);
        let is_expression =
            || named.act == Act::Open && path.extension().is_some_and(|end| end == "nix");
        // Whoever makes a directory looks at those above it.
        let leads_to = |one: &&PathBuf| named.act != Act::List && one.starts_with(path);
        let mut ignored = self.interest.ignored.iter();
        if (is_in_store && !is_expression())
            || ignored.any(|one| path.starts_with(one) || leads_to(&one))
        {
            return;
        }
        self.seen.note(named.path, named.act);
    }
}

/// Whoever has been started or followed by this thread, threads included: `__WNOTHREAD`, `__WALL`.
fn own() -> WaitOptions {
    let bits = libc::__WNOTHREAD | libc::__WALL;
    WaitOptions::from_bits_retain(bits.cast_unsigned())
}

fn is_stop(signal: i32) -> bool {
    [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal)
}

/// Lets a process go on. One that was killed meanwhile is waited for all the same.
fn go_on(process: Pid, signal: impl Into<Option<Signal>>) {
    if let Err(error) = ptrace::cont(process, signal)
        && error != Errno::ESRCH
    {
        tracing::debug!(%process, %error, "a process does not go on");
    }
}
