//! `ferry shell`: a command with what an evaluation needs, and no network.

use std::path::Path;
use std::process::{Command, ExitCode};

use ferry_formats::StorePath;
use ferry_store::Store;
use ferry_store::evaluation::Restored;
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::Purpose;
use serde_json::json;

use crate::cli::Shell;
use crate::commands::trace::exit_code;
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
    Ok(exit_code(status))
}

/// The evaluation that is meant, laid out.
fn find(context: &Context, options: &Shell) -> Result<Restored, Failure> {
    let place = context.surroundings.working_directory.join(&options.evaluation);
    if let Some(path) = store_path(context, &place)? {
        let address = options.store.as_deref().unwrap_or("auto");
        let trust = TrustPolicy::accept_all();
        let store = context.open_store(address, Purpose::Read, trust, false, &[])?;
        return laid_out(context, store.store(), &path);
    }
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
    laid_out(context, &bundle, path)
}

/// The store path that something lies in, if it does.
fn store_path(context: &Context, place: &Path) -> Result<Option<StorePath>, Failure> {
    let store_dir = context.store_dir()?;
    Ok(store_dir.parse_path(place.as_os_str().as_encoded_bytes()).ok())
}

/// An evaluation where it usually is, and laid out if it is not yet.
fn laid_out(context: &Context, store: &dyn Store, path: &StorePath) -> Result<Restored, Failure> {
    // What somebody has edited is there, and not in the store.
    if let Ok(evaluation) = Restored::open(&evaluations::usual_place(path)?) {
        return Ok(evaluation);
    }
    let places = evaluations::places(context, vec![path.clone()], None)?;
    let mut found = evaluations::lay_out(context, store, &places)?;
    found.pop().ok_or_else(|| Failure::new("no evaluation was laid out"))
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
