//! `ferry trace`: evaluates, and records what that takes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use ferry_store::facts::Recorded;
use ferry_store::installable::{self, Parsed};
use serde_json::{Value, json};

use crate::cli::Trace;
use crate::context::Context;
use crate::evaluate::Expression;
use crate::failure::Failure;
use crate::output;
use crate::recording::{Made, Recorder};

pub(crate) fn run(context: &Context, options: &Trace) -> Result<ExitCode, Failure> {
    let recorder = Recorder::new(context, &options.store, options.output.as_deref())?;
    if !options.command.is_empty() {
        if context.json {
            return Err(Failure::usage("--json needs standard output, which is the command's"));
        }
        let (status, made) = recorder.record_command(&options.command)?;
        // The command has said what it has to say: what came of the recording changes nothing.
        match made {
            Ok(made) => {
                tell(context, &made);
                context.talk.say(format!("recorded in {}", made.file.display()));
            }
            Err(failure) => {
                failure.report();
            }
        }
        return Ok(exit_code(status));
    }
    if options.evaluated.is_empty() {
        refuse_evaluated(context, &options.installables, &recorder)?;
    }
    let expressions: Vec<Expression<'_>> = match options.evaluated.expression(&options.installables)
    {
        Some(expression) => vec![expression],
        None => options.installables.iter().map(|text| Expression::Flake(text)).collect(),
    };
    if expressions.is_empty() {
        return Err(Failure::usage(
            "nothing is named: give an INSTALLABLE, --file, --expr, or a COMMAND behind `--`",
        ));
    }
    if expressions.len() > 1 && options.output.is_some() {
        return Err(Failure::usage(
            "each INSTALLABLE is a recording of its own: one --output is for one",
        ));
    }
    let mut told = Vec::new();
    for expression in &expressions {
        let made = recorder.record(expression)?;
        tell(context, &made);
        if context.json {
            told.push(summary(&made, &recorder));
        } else {
            output::line(made.file.as_os_str().as_encoded_bytes())?;
        }
    }
    if context.json {
        output::json(json!({ "recordings": told }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes a command that is watched; the exit code tells why it does not.
pub(super) fn become_watched(command: &[OsString]) -> ExitCode {
    let error = ferry_trace::watch::become_watched(command);
    let code = error.raw_os_error().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(u8::MAX))
}

/// What is in a store has been evaluated.
fn refuse_evaluated(
    context: &Context,
    installables: &[String],
    recorder: &Recorder<'_>,
) -> Result<(), Failure> {
    for text in installables {
        let directory = &context.surroundings.working_directory;
        // Nix, too, follows links into a store, and takes a word with no `/` in it for a flake.
        let is_flake = text.contains(['#', ':']) || [".", ".."].contains(&text.as_str());
        let parsed = installable::parse(text, &recorder.store_dir, directory);
        if !is_flake && matches!(parsed, Ok(Parsed::Installable(_))) {
            return Err(Failure::usage(format!(
                "{text} is in a store: nothing is evaluated for it"
            ))
            .hint("name what it comes from: FLAKE#ATTR, --file or --expr"));
        }
    }
    Ok(())
}

/// How many needs, and things outside of the store, there are of each kind.
fn counts(recorded: &Recorded) -> [BTreeMap<&str, usize>; 2] {
    let mut needs = BTreeMap::new();
    for need in &recorded.needs {
        *needs.entry(need.why.as_str()).or_default() += 1;
    }
    let mut outside = BTreeMap::new();
    for one in &recorded.outside {
        *outside.entry(one.why.as_str()).or_default() += 1;
    }
    [needs, outside]
}

fn tell(context: &Context, made: &Made) {
    let [needs, outside] = counts(&made.recorded);
    let list = |counts: &BTreeMap<&str, usize>| {
        if counts.is_empty() {
            return "nothing".to_owned();
        }
        let counts = counts.iter().map(|(why, count)| format!("{count} {why}"));
        counts.collect::<Vec<_>>().join(", ")
    };
    let talk = context.talk;
    talk.say(format!("to evaluate it again takes, of the store: {}", list(&needs)));
    talk.say(format!("and outside of it: {}", list(&outside)));
    for warning in &made.recorded.warnings {
        talk.say(format!("not repeatable everywhere: {}", warning.text));
    }
    for reason in &made.recorded.incomplete {
        talk.say(format!("something may be missing: {reason}"));
    }
}

fn summary(made: &Made, recorder: &Recorder<'_>) -> Value {
    let [needs, outside] = counts(&made.recorded);
    let roots: Vec<String> =
        made.recorded.roots.iter().map(|root| recorder.store_dir.render_path(root)).collect();
    let warnings: Vec<Value> = made
        .recorded
        .warnings
        .iter()
        .map(|warning| json!({ "text": warning.text, "why": warning.why }))
        .collect();
    json!({
        "trace": made.file,
        "roots": roots,
        "needs": needs,
        "outside": outside,
        "added": made.recorded.added.len(),
        "warnings": warnings,
        "incomplete": made.recorded.incomplete,
    })
}

/// The exit code that a shell would see.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1))
}
