//! Commands on a machine, and the way into it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};

use crate::machine::PATH;
use crate::{Machine, Outcome, Running, Usage};

/// Runs its arguments as a child, so that they are not process 1 of their namespace (which
/// ignores signals), on a /proc of their own.
///
/// The first argument becomes the root of the mount namespace itself: Nix 2.8 runs `git` where that
/// is, and would leave a mere chroot. (The system's very first root cannot be left; there, a chroot
/// has to do.)
const FIRST_PROCESS: &str = r#"
mount -t proc proc "$1/proc" && cd "$1" || exit
if pivot_root . run 2>/dev/null
then shift; cd / && umount --lazy /run && "$@"
else chroot "$@"
fi
exit $?"#;

/// A command to be run on a machine, offline and as root unless told otherwise.
#[derive(Debug)]
#[must_use = "a command does nothing until it is run"]
pub struct MachineCommand {
    machine: Machine,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    directory: String,
    user: Option<u32>,
    online: bool,
    stdin: Input,
    stdout: Option<File>,
}

#[derive(Debug)]
enum Input {
    Nothing,
    Bytes(Vec<u8>),
    File(File),
}

impl MachineCommand {
    pub(crate) fn new(machine: &Machine, program: &OsStr) -> Self {
        Self {
            machine: machine.clone(),
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            directory: "/data".to_owned(),
            user: None,
            online: false,
            stdin: Input::Nothing,
            stdout: None,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable. The environment is otherwise `PATH`, `HOME`, `USER` and `LC_ALL=C`.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory, a path inside the machine. By default `/data`.
    pub fn current_dir(mut self, directory: &str) -> Self {
        self.directory = directory.to_owned();
        self
    }

    /// Lets it see the host's network, and with it an [`Origin`](crate::Origin). Otherwise all
    /// it sees is a loopback that it shares with the machine's other offline commands.
    pub fn online(mut self) -> Self {
        self.online = true;
        self
    }

    /// Runs it as this user and group instead of root, with a home in the machine's `/tmp`.
    pub fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Gives it these bytes on stdin. By default stdin is `/dev/null`.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    /// Gives it an open file as stdin.
    pub fn stdin_file(mut self, file: File) -> Self {
        self.stdin = Input::File(file);
        self
    }

    /// Sends its stdout to a file; the outcome's stdout is then empty.
    pub fn stdout_to(mut self, file: File) -> Self {
        self.stdout = Some(file);
        self
    }

    /// Runs it to its end, whatever that is.
    pub fn run(self) -> Outcome {
        self.spawn().wait()
    }

    /// Runs it, and returns its stdout without white space at the ends.
    ///
    /// # Panics
    ///
    /// When it fails, with the command, its status and its stderr.
    pub fn ok(self) -> String {
        self.succeed().text()
    }

    /// Runs it, and returns what it cost.
    ///
    /// # Panics
    ///
    /// When it fails, as [`ok`](Self::ok).
    pub fn measure(self) -> Usage {
        self.succeed().usage
    }

    /// Runs it, and returns all that came of it.
    ///
    /// # Panics
    ///
    /// When it fails, as [`ok`](Self::ok).
    pub fn succeed(self) -> Outcome {
        let what = self.describe();
        let outcome = self.run();
        if !outcome.status.success() {
            panic!("{what}\nfailed with {}\n{}", outcome.status, told(&outcome));
        }
        outcome
    }

    /// Runs it, and expects it to fail.
    ///
    /// # Panics
    ///
    /// When it succeeds.
    pub fn fails(self) -> Outcome {
        let what = self.describe();
        let outcome = self.run();
        if outcome.status.success() {
            panic!("{what}\nsucceeded, and should not have\n{}", told(&outcome));
        }
        outcome
    }

    /// Starts it, and returns while it runs.
    pub fn spawn(mut self) -> Running {
        let what = self.describe();
        let mut command = self.way_in();
        let mut bytes = None;
        command.stdin(match std::mem::replace(&mut self.stdin, Input::Nothing) {
            Input::Nothing => Stdio::null(),
            Input::File(file) => Stdio::from(file),
            Input::Bytes(given) => {
                bytes = Some(given);
                Stdio::piped()
            }
        });
        command.stdout(self.stdout.take().map_or_else(Stdio::piped, Stdio::from));
        command.stderr(Stdio::piped());
        Running::start(what, self.machine, command, bytes)
    }

    /// The host's command that enters the machine and there becomes this one.
    fn way_in(&self) -> Command {
        let namespaces = self.machine.namespaces();
        let mut command = Command::new("nsenter");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg(format!("--mount={}", namespaces.mounts()));
        if !self.online {
            command.arg(format!("--net={}", namespaces.offline()));
        }
        command.args(["--", "unshare", "--mount", "--propagation", "private"]);
        command.args(["--pid", "--fork", "--kill-child", "--"]);
        command.args(["/bin/sh", "-c", FIRST_PROCESS, "sh"]);
        command.arg(self.machine.root());
        if let Some(id) = self.user {
            command.args(["setpriv", "--clear-groups"]);
            command.arg(format!("--reuid={id}")).arg(format!("--regid={id}"));
        }
        command.args(["/usr/bin/env", "-i", "-C", &self.directory, "LC_ALL=C"]);
        command.arg(format!("PATH={PATH}"));
        match self.user {
            None => command.args(["HOME=/root", "USER=root"]),
            Some(id) => command.arg(format!("HOME={}", self.home_of(id))).arg("USER=nobody"),
        };
        for (name, value) in &self.env {
            let mut assignment = OsString::from(name);
            assignment.push("=");
            assignment.push(value);
            command.arg(assignment);
        }
        command.arg(&self.program).args(&self.args);
        command
    }

    /// A user's home, made if need be.
    fn home_of(&self, id: u32) -> String {
        let inside = format!("/tmp/home-{id}");
        let home = self.machine.path(&inside);
        fs::create_dir_all(&home)
            .and_then(|()| chown(&home, Some(id), Some(id)))
            .and_then(|()| fs::set_permissions(&home, fs::Permissions::from_mode(0o700)))
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", home.display()));
        inside
    }

    fn describe(&self) -> String {
        let mut text = format!("[Nix {}] ", self.machine.version());
        for (name, value) in &self.env {
            text += &format!("{name}={} ", value.to_string_lossy());
        }
        text += &self.program.to_string_lossy();
        for arg in &self.args {
            text += " ";
            text += &arg.to_string_lossy();
        }
        text
    }
}

fn told(outcome: &Outcome) -> String {
    format!("--- stdout\n{}\n--- stderr\n{}", outcome.text(), outcome.stderr.trim_end())
}
