//! Asking the installed Nix to evaluate what only Nix can.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use ferry_formats::StoreDir;
use ferry_store::installable::{self, Installable, Outputs, Parsed};

use crate::failure::Failure;

/// What was named with `--file` or `--expr`, or a flake reference.
pub(crate) enum Expression<'a> {
    /// Attributes of a file; none means what the file itself evaluates to.
    File(&'a Path, &'a [String]),
    /// Attributes of an expression.
    Text(&'a str, &'a [String]),
    /// `FLAKE#ATTR`, perhaps with outputs.
    Flake(&'a str),
}

/// A command that evaluates an expression.
pub(crate) struct Evaluator<'a> {
    pub(crate) command: Command,
    /// The outputs that were named with the expression.
    outputs: Option<&'a str>,
}

impl<'a> Evaluator<'a> {
    /// What evaluates `expression`, and puts what it makes into the store at an address.
    pub(crate) fn new(expression: &Expression<'a>, store: Option<&str>) -> Self {
        let store = store.iter().flat_map(|store| [OsStr::new("--store"), OsStr::new(store)]);
        let (mut command, outputs) = match expression {
            Expression::File(..) | Expression::Text(..) => {
                let mut command = Command::new("nix-instantiate");
                let attributes = match expression {
                    Expression::File(file, attributes) => {
                        command.arg(file);
                        attributes
                    }
                    Expression::Text(text, attributes) => {
                        command.arg("--expr").arg(text);
                        attributes
                    }
                    Expression::Flake(_) => &[][..],
                };
                command.args(attributes.iter().flat_map(|attribute| ["-A", attribute]));
                (command, None)
            }
            Expression::Flake(reference) => {
                let (reference, outputs) = match reference.rsplit_once('^') {
                    Some((reference, outputs)) => (reference, Some(outputs)),
                    None => (*reference, None),
                };
                let mut command = Command::new("nix");
                command.args(["--extra-experimental-features", "nix-command flakes"]);
                command.args(["path-info", "--derivation", reference]);
                (command, outputs)
            }
        };
        command.args(store);
        Self { command, outputs }
    }

    /// The derivations that it printed, with the outputs meant.
    pub(crate) fn understand(
        &self,
        printed: &str,
        store_dir: &StoreDir,
        working_directory: &Path,
    ) -> Result<Vec<Installable>, Failure> {
        let parse = |line: &str| {
            let line = match self.outputs {
                Some(outputs) => format!("{line}^{outputs}"),
                None => line.to_owned(),
            };
            match installable::parse(&line, store_dir, working_directory)? {
                // Nix prints no output where it means the default one.
                Parsed::Installable(Installable::Path(path)) if path.is_derivation() => {
                    Ok(Installable::outputs(path, Outputs::Default))
                }
                Parsed::Installable(installable) => Ok(installable),
                Parsed::NeedsEvaluation => {
                    Err(Failure::new(format!("Nix printed `{line}` where a store path belongs")))
                }
            }
        };
        printed.lines().map(parse).collect()
    }
}

/// Evaluates, and returns the derivations with the outputs meant. They are in the store then.
pub(crate) fn evaluate(
    expression: &Expression<'_>,
    store: Option<&str>,
    store_dir: &StoreDir,
    working_directory: &Path,
) -> Result<Vec<Installable>, Failure> {
    let mut evaluator = Evaluator::new(expression, store);
    let command = evaluator.command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| not_started(command, &error))?;
    let printed = printed(command, output.status, output.stdout)?;
    evaluator.understand(&printed, store_dir, working_directory)
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

/// A command of Nix's that is not there.
pub(crate) fn not_started(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot run `{}`: {error}", shown(command))).hint(
        "only Nix can evaluate expressions; name a store path or a `.drv` where there is none",
    )
}

/// What a command of Nix's printed, if it succeeded.
pub(crate) fn printed(
    command: &Command,
    status: ExitStatus,
    stdout: Vec<u8>,
) -> Result<String, Failure> {
    let shown = shown(command);
    if !status.success() {
        return Err(Failure::new(format!("`{shown}` failed ({status})")));
    }
    String::from_utf8(stdout)
        .map_err(|_| Failure::new(format!("`{shown}` printed something that is not text")))
}
