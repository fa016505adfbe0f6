//! `ferry pack`: what an installable needs, in one file.

use ferry_bundle::{BundleWriter, PackOptions};
use ferry_store::installable::{self, Installable, Parsed};
use ferry_store::selection::{self, Selection};
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::Purpose;
use ferry_store::{CopyReport, Error, Protection, Store, copy};
use serde_json::json;

use crate::cli::Pack;
use crate::context::{Context, secret_keys};
use crate::evaluate::{self, Expression};
use crate::failure::Failure;
use crate::output;
use crate::sink::Sink;

pub(crate) fn run(context: &Context, options: &Pack) -> Result<(), Failure> {
    let sink = Sink::new(&options.output)?;
    if context.json && matches!(sink, Sink::StandardOutput) {
        return Err(Failure::usage("--json needs standard output, which the bundle goes to"));
    }
    let keys = secret_keys(&options.sign_key)?;
    // Packing trusts the store that it reads: no key decides anything.
    let trust = TrustPolicy::accept_all();
    let opened = context.open_store(&options.store, Purpose::Read, trust, false, &[])?;
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
    let _protection = match store.protect(&paths) {
        // Without it a collection meanwhile makes packing fail, and harms nothing.
        Err(Error::Io { action, source }) => {
            context
                .talk
                .say(format!("the garbage collector is not kept away: cannot {action}: {source}"));
            Protection::default()
        }
        outcome => outcome?,
    };

    let Selection { roots, infos } = selection;
    let pack_options = PackOptions {
        set: options.set.to_string(),
        roots: roots.clone(),
        level: options.level.zstd(),
        sign_with: keys.clone(),
    };
    let (report, size) = sink.write(|sink| {
        let name = options.output.display().to_string();
        let bundle = BundleWriter::new(sink, name, store.store_dir().clone(), pack_options);
        copy(store, &bundle, infos, &keys, &*context.bars)
    })?;
    summarise(context, options, &report, size);
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

fn summarise(context: &Context, options: &Pack, report: &CopyReport, size: Option<u64>) {
    let target = match options.output.to_str() {
        Some("-") => "standard output".to_owned(),
        _ => options.output.display().to_string(),
    };
    let size = size.map(|size| format!(" ({})", output::size(size))).unwrap_or_default();
    context.talk.say(format!(
        "packed {}, {} of NARs, into {target}{size}",
        output::paths(report.added as u64),
        output::size(report.nar_size),
    ));
}
