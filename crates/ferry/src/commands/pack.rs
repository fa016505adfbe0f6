//! `ferry pack`: what an installable needs, in one file.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ferry_bundle::{BundleWriter, PackOptions};
use ferry_store::installable::{self, Installable, Parsed};
use ferry_store::selection::{self, Selection};
use ferry_store::{CopyReport, Store, copy};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::cli::Pack;
use crate::context::{Context, secret_keys};
use crate::evaluate::{self, Expression};
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(context: &Context, options: &Pack) -> Result<(), Failure> {
    let to_stdout = options.output == Path::new("-");
    if to_stdout && context.json {
        return Err(Failure::usage("--json needs standard output, which the bundle goes to"));
    }
    let keys = secret_keys(&options.sign_key)?;
    let bundle_keys = secret_keys(&options.sign_key)?;
    let opened = context.open_store(&options.store, context.trust(&no_keys())?, false)?;
    let store = opened.store();

    let named = named_installables(context, options, store)?;
    let also = options
        .also
        .iter()
        .map(|text| one_installable(context, options, store, text))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let selection = selection::select(store, options.set, &named, &also)?;
    let paths: Vec<_> = selection.infos.keys().cloned().collect();
    let _protection = store.protect(&paths).inspect_err(|error| {
        context.talk.say(format!("cannot keep the garbage collector away: {error}"));
    });

    let Selection { roots, infos } = selection;
    let pack_options = PackOptions {
        set: options.set.to_string(),
        roots: roots.clone(),
        level: options.level.zstd(),
        sign_with: bundle_keys,
    };
    let write = |sink: Box<dyn std::io::Write + Send>| {
        let name = options.output.display().to_string();
        let bundle = BundleWriter::new(sink, name, store.store_dir().clone(), pack_options);
        copy(store, &bundle, infos, &keys, &context.bars)
    };
    if to_stdout {
        let report = write(Box::new(std::io::stdout()))?;
        summarise(context, &report, "standard output", None);
        return Ok(());
    }
    let (report, size) = into_file(&options.output, write)?;
    summarise(context, &report, &options.output.display().to_string(), Some(size));
    if context.json {
        output::json(json!({
            "bundle": options.output,
            "bundleSize": size,
            "set": options.set.to_string(),
            "roots": roots.iter().map(|root| store.store_dir().render_path(root)).collect::<Vec<_>>(),
            "paths": report.added,
            "narSize": report.nar_size,
        }))?;
    }
    Ok(())
}

/// Packing trusts the store it reads: nothing is decided by keys.
fn no_keys() -> crate::cli::Trust {
    crate::cli::Trust { trusted_public_key: Vec::new() }
}

fn named_installables(
    context: &Context,
    options: &Pack,
    store: &dyn Store,
) -> Result<Vec<Installable>, Failure> {
    let expression = match (&options.file, &options.expr) {
        (Some(file), _) => Expression::File(file, &options.installables),
        (_, Some(text)) => Expression::Text(text, &options.installables),
        _ => {
            let named = options
                .installables
                .iter()
                .map(|text| one_installable(context, options, store, text))
                .collect::<Result<Vec<_>, _>>()?;
            return Ok(named.concat());
        }
    };
    evaluated(context, options, store, &expression)
}

fn one_installable(
    context: &Context,
    options: &Pack,
    store: &dyn Store,
    text: &str,
) -> Result<Vec<Installable>, Failure> {
    let working_directory = &context.surroundings.working_directory;
    match installable::parse(text, store.store_dir(), working_directory)? {
        Parsed::Installable(installable) => Ok(vec![installable]),
        Parsed::NeedsEvaluation => evaluated(context, options, store, &Expression::Flake(text)),
    }
}

fn evaluated(
    context: &Context,
    options: &Pack,
    store: &dyn Store,
    expression: &Expression<'_>,
) -> Result<Vec<Installable>, Failure> {
    // A command is an address of ours that Nix does not know; its own default is the same store.
    let known_to_nix = options.store != "auto" && !options.store.starts_with("exec:");
    let address = known_to_nix.then_some(options.store.as_str());
    let working_directory = &context.surroundings.working_directory;
    evaluate::evaluate(expression, address, store.store_dir(), working_directory)
}

/// Writes beside `path` and moves it there once it is whole and on the disk.
fn into_file(
    path: &Path,
    write: impl FnOnce(Box<dyn std::io::Write + Send>) -> ferry_store::Result<CopyReport>,
) -> Result<(CopyReport, u64), Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary: NamedTempFile = tempfile::Builder::new()
        .prefix(".ferry-")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(failed)?;
    let sink: File = temporary.as_file().try_clone().map_err(failed)?;
    let report = write(Box::new(std::io::BufWriter::with_capacity(1 << 20, sink)))?;
    temporary.as_file().flush().and_then(|()| temporary.as_file().sync_all()).map_err(failed)?;
    let size = temporary.as_file().metadata().map_err(failed)?.len();
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok((report, size))
}

fn summarise(context: &Context, report: &CopyReport, target: &str, size: Option<u64>) {
    let size = size.map(|size| format!(" ({})", output::size(size))).unwrap_or_default();
    context.talk.say(format!(
        "packed {}, {} of NARs, into {target}{size}",
        output::paths(report.added as u64),
        output::size(report.nar_size),
    ));
}
