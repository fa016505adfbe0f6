//! `ferry shell`: a command with what an evaluation needs, and no network.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};

use ferry_store::evaluation::Restored;
use serde_json::json;

use crate::cli::Shell;
use crate::context::{Context, open_bundle};
use crate::failure::Failure;
use crate::{evaluations, output};

pub(crate) fn run(context: &Context, options: &Shell) -> Result<ExitCode, Failure> {
    let evaluation = find(context, options)?;
    let config = std::env::var("NIX_CONFIG").ok();
    let mut environment = evaluation.environment(config.as_deref());
    if let Some(store) = &options.store {
        environment.push(("NIX_REMOTE".to_owned(), store.clone()));
    }
    let directory = evaluation.working_directory();
    let Some((program, arguments)) = options.command.split_first() else {
        tell(context, options, &evaluation, &environment)?;
        return Ok(ExitCode::SUCCESS);
    };
    let status = Command::new(program)
        .args(arguments)
        .envs(environment)
        // Shells believe it where it leads to the same place.
        .env("PWD", &directory)
        .current_dir(&directory)
        .status()
        .map_err(|error| {
            Failure::new(format!("cannot run `{}`: {error}", program.to_string_lossy()))
        })?;
    // As shells have it: 128 and the signal.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The evaluation that is meant, laid out.
fn find(context: &Context, options: &Shell) -> Result<Restored, Failure> {
    let place = context.surroundings.working_directory.join(&options.evaluation);
    if place.is_dir() {
        return Ok(Restored::open(&place)?);
    }
    let bundle = open_bundle(std::slice::from_ref(&place), None)?;
    let paths = bundle.manifest().evaluation_paths();
    let [path] = paths.as_slice() else {
        let what = match paths.len() {
            0 => "no evaluation is in it".to_owned(),
            some => format!("{some} evaluations are in it"),
        };
        return Err(Failure::new(format!("{}: {what}", options.evaluation.display()))
            .hint("pack with --with-eval, or name the directory that `ferry load` has told"));
    };
    // What somebody has edited is there, and not in the bundle.
    let usual = evaluations::usual_place(path)?;
    if let Ok(evaluation) = Restored::open(&usual) {
        return Ok(evaluation);
    }
    evaluations::lay_out(context, &bundle, &paths, None)?
        .pop()
        .ok_or_else(|| Failure::new("no evaluation was laid out"))
}

fn tell(
    context: &Context,
    options: &Shell,
    evaluation: &Restored,
    environment: &[(String, String)],
) -> Result<(), Failure> {
    let command = evaluations::command(evaluation, options.store.as_deref());
    if context.json {
        let variables = environment.iter().map(|(name, value)| (name.clone(), json!(value)));
        return output::json(json!({
            "directory": evaluation.directory(),
            "workingDirectory": evaluation.working_directory(),
            "environment": variables.collect::<serde_json::Map<_, _>>(),
            "command": command,
        }));
    }
    output::line(command.as_bytes())
}
