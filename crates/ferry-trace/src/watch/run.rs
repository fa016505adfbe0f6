//! Running a command, watched if the system allows it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use super::Seen;

/// What is to be seen.
#[derive(Clone, Debug)]
pub struct Interest {
    /// Below this only what ends with `.nix` is of interest.
    pub store_dir: PathBuf,
    /// What lies below these is left out, and that somebody looked at what is above them.
    pub ignored: Vec<PathBuf>,
    /// Whether a program is one whose files are of interest: the name of its file, and the name that
    /// it is called by.
    pub is_evaluator: fn(&str, &str) -> bool,
}

/// Commands of Nix's that evaluate nothing.
const NO_EVALUATORS: [&str; 5] =
    ["nix-collect-garbage", "nix-copy-closure", "nix-daemon", "nix-hash", "nix-store"];

/// Whether a program evaluates Nix expressions. All of Nix's commands are one file.
#[must_use]
pub fn is_nix(file: &str, called: &str) -> bool {
    // As nixpkgs calls what it puts a script in front of.
    let plain = |name: &str| name.trim_start_matches('.').trim_end_matches("-wrapped").to_owned();
    let (file, called) = (plain(file), plain(called));
    let is_known = |name: &str| ["nix", "lix"].contains(&name);
    let is_one = is_known(&file)
        || file.split_once('-').is_some_and(|(first, _)| is_known(first))
        || file.ends_with("-eval-jobs");
    is_one && !NO_EVALUATORS.contains(&called.as_str())
}

/// How commands are watched.
#[derive(Clone, Debug)]
pub struct Watch {
    /// A program that calls [`become_watched`](super::become_watched) with the words that it is
    /// given behind these.
    pub launcher: Vec<OsString>,
    /// What is to be seen.
    pub interest: Interest,
}

/// A command that is running.
#[derive(Debug)]
pub struct Running {
    /// What it prints, where that was to be piped.
    pub stdout: Option<ChildStdout>,
    /// What it says, likewise.
    pub stderr: Option<ChildStderr>,
    end: JoinHandle<io::Result<Ended>>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What was seen; or else why nothing was.
    pub seen: Result<Seen, String>,
}

type Begun = io::Result<(Option<ChildStdout>, Option<ChildStderr>)>;

impl Watch {
    /// Runs a command, a list of words; `prepare` gives it its surroundings, and `begins` hears
    /// the number of its process before it does anything.
    ///
    /// # Errors
    /// When there is no such command.
    pub fn start(
        &self,
        words: &[OsString],
        begins: fn(u32),
        prepare: impl Fn(&mut Command),
    ) -> io::Result<Running> {
        let prepared = |words: &[OsString]| {
            let (program, arguments) = words.split_first()?;
            let mut command = Command::new(program);
            prepare(command.args(arguments));
            Some(command)
        };
        let nothing = || io::Error::new(io::ErrorKind::InvalidInput, "there is no command");
        let plain = prepared(words).ok_or_else(nothing)?;
        let watched = prepared(&[&self.launcher[..], words].concat()).ok_or_else(nothing)?;
        let interest = self.interest.clone();
        let (sender, begun) = mpsc::channel();
        // Who starts a process is who may follow it.
        let end = thread::spawn(move || run(watched, plain, interest, begins, &sender));
        match begun.recv() {
            Ok(begun) => begun.map(|(stdout, stderr)| Running { stdout, stderr, end }),
            Err(_) => Err(end.join().map_or_else(
                |_| io::Error::other("it could not be started"),
                |ended| ended.err().unwrap_or_else(nothing),
            )),
        }
    }
}

impl Running {
    /// Waits for its end. What it has left running is waited for some seconds, and ends then.
    ///
    /// # Errors
    /// When nobody knows how it ended.
    pub fn wait(self) -> io::Result<Ended> {
        self.end.join().map_err(|_| io::Error::other("nobody has followed it"))?
    }
}

fn tell(sender: &Sender<Begun>, child: &mut Child) {
    // Whoever started it waits for this.
    let _ = sender.send(Ok((child.stdout.take(), child.stderr.take())));
}

/// Runs a command that nobody watches.
fn run_plain(
    mut command: Command,
    begins: fn(u32),
    sender: &Sender<Begun>,
    why: String,
) -> io::Result<Ended> {
    let mut child = command.spawn()?;
    begins(child.id());
    tell(sender, &mut child);
    Ok(Ended { status: child.wait()?, seen: Err(why) })
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn run(
    mut watched: Command,
    plain: Command,
    interest: Interest,
    begins: fn(u32),
    sender: &Sender<Begun>,
) -> io::Result<Ended> {
    use super::traced::{Begun, Tracer};

    let mut child = match watched.spawn() {
        Ok(child) => child,
        Err(error) => return run_plain(plain, begins, sender, error.to_string()),
    };
    let mut tracer = match Tracer::seize(&child, interest) {
        Ok(tracer) => tracer,
        Err(error) => {
            // It has not begun. One that has ended cannot be killed.
            let _ = child.kill();
            let _ = child.wait();
            return run_plain(
                plain,
                begins,
                sender,
                format!("this process may not follow others: {error}"),
            );
        }
    };
    begins(child.id());
    let begun = tracer.begin();
    if let Begun::Failed(error) = begun {
        return Err(error);
    }
    tell(sender, &mut child);
    let status = tracer.follow()?;
    let seen = match begun {
        Begun::Watched => Ok(tracer.seen),
        _ => Err("the system does not tell of system calls".to_owned()),
    };
    Ok(Ended { status, seen })
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn run(
    _: Command,
    plain: Command,
    _: Interest,
    begins: fn(u32),
    sender: &Sender<Begun>,
) -> io::Result<Ended> {
    run_plain(
        plain,
        begins,
        sender,
        "this is known for Linux on x86_64 and aarch64 only".to_owned(),
    )
}

/// Fails: nothing is watched here.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub fn become_watched(_: &[OsString]) -> io::Error {
    io::Error::from(io::ErrorKind::Unsupported)
}
