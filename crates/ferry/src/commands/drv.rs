//! `ferry drv show`, `ferry drv add`: derivations as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use ferry_bundle::{Bundle, BundleWriter, PackOptions};
use ferry_formats::{StorePath, derivation_json};
use ferry_store::closure::{closure, unreferenced};
use ferry_store::installable::Installable;
use ferry_store::new_derivations::NewDerivations;
use ferry_store::shown_derivations::show;
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::{OpenStore, Purpose};
use ferry_store::{Store, Wanted, copy};
use serde_json::{Value, json};

use crate::cli::{Drv, DrvAdd, DrvShow};
use crate::context::{Context, open_bundle};
use crate::failure::Failure;
use crate::installables::{self, Installables};
use crate::output;
use crate::sink::Sink;
use crate::sources::OpenSource;

pub(crate) fn run(context: &Context, command: &Drv) -> Result<(), Failure> {
    match command {
        Drv::Show(options) => run_show(context, options),
        Drv::Add(options) => run_add(context, options),
    }
}

fn run_show(context: &Context, options: &DrvShow) -> Result<(), Failure> {
    let mut shown = BTreeMap::new();
    let expression = options.evaluated.expression(&options.installables);
    let (bundles, others): (Vec<&String>, Vec<&String>) = options
        .installables
        .iter()
        .partition(|name| expression.is_none() && is_bundle(context, name));
    for name in bundles {
        let bundle = open_bundle(&[PathBuf::from(name)], None)?;
        shown.extend(show(&bundle, &packed(&bundle)?, options.recursive)?);
    }
    if !others.is_empty() || expression.is_some() {
        let source = OpenSource::open(context, &options.store)?;
        let store = source.store().ok_or_else(|| {
            Failure::usage(format!("{} is asked for its facts only", options.store))
        })?;
        let of = Installables { context, store_dir: store.store_dir(), store: &options.store };
        let mut roots = BTreeSet::new();
        let named = match &expression {
            Some(expression) => of.evaluated(expression)?,
            None => of.all(others)?,
        };
        for installable in &named {
            roots.insert(derivation_of(store, installable)?);
        }
        let roots: Vec<StorePath> = roots.into_iter().collect();
        shown.extend(show(store, &roots, options.recursive)?);
    }
    print(&shown)
}

/// Whether this is the name of a bundle, and not of something in a store.
fn is_bundle(context: &Context, name: &str) -> bool {
    if name == "-" {
        return true;
    }
    installables::is_bundle(&context.surroundings.working_directory.join(name))
}

/// What was packed: derivations, or those of the outputs.
fn packed(bundle: &Bundle) -> Result<Vec<StorePath>, Failure> {
    let mut found = BTreeSet::new();
    for root in bundle.manifest().root_paths() {
        match root.is_derivation() {
            true => found.extend([root]),
            false => found.extend(bundle.derivers(&root)?),
        }
    }
    if found.is_empty() {
        let reason = "holds no derivation of what was packed";
        return Err(Failure::new(format!("{} {reason}", bundle.describe())));
    }
    Ok(found.into_iter().collect())
}

fn derivation_of(store: &dyn Store, installable: &Installable) -> Result<StorePath, Failure> {
    let path = match installable {
        Installable::Outputs { derivation, .. } => return Ok(derivation.clone()),
        Installable::Path(path) if path.is_derivation() => return Ok(path.clone()),
        Installable::Path(path) => path,
    };
    let recorded = store.path_info(path)?.and_then(|info| info.deriver);
    if let Some(deriver) = recorded
        && store.path_info(&deriver)?.is_some()
    {
        return Ok(deriver);
    }
    store.derivers(path)?.into_iter().next().ok_or_else(|| {
        let path = store.store_dir().render_path(path);
        Failure::new(format!("{} has no derivation of {path}", store.describe()))
    })
}

/// As Nix prints it: packed for programs, indented for people.
fn print(shown: &BTreeMap<StorePath, Vec<u8>>) -> Result<(), Failure> {
    let version = derivation_json::VERSION;
    if io::stdout().is_terminal() {
        let mut derivations = serde_json::Map::new();
        for (path, text) in shown {
            let parsed: Value = serde_json::from_slice(text).map_err(Failure::new)?;
            derivations.insert(path.to_basename(), parsed);
        }
        let all = json!({ "derivations": derivations, "version": version });
        return output::line(format!("{all:#}").as_bytes());
    }
    // A line a derivation: there may be many.
    let lines = shown.iter().enumerate().map(|(number, (path, text))| {
        let comma: &[u8] = if number + 1 == shown.len() { b"" } else { b"," };
        let key = format!("\"{}\":", path.to_basename());
        [key.as_bytes(), text.as_slice(), comma].concat()
    });
    let begin = b"{\"derivations\":{".to_vec();
    let end = format!("}},\"version\":{version}}}").into_bytes();
    output::records(std::iter::once(begin).chain(lines).chain([end]), false)
}

fn run_add(context: &Context, options: &DrvAdd) -> Result<(), Failure> {
    let store = open(context, options)?;
    let text = read(&options.file)?;
    let given = derivation_json::read(&text, store.store().store_dir())
        .map_err(ferry_store::Error::from)?;
    if given.is_empty() {
        return Err(Failure::new("there is no derivation in what was given"));
    }
    let new = NewDerivations::settle(given, store.store(), store.destination()).map_err(advise)?;
    let added = match (&options.output, options.dry_run) {
        (_, true) => 0,
        (Some(output), _) => into_bundle(context, options, output, &new)?,
        (None, _) => {
            let infos = new.path_infos().iter().map(|info| (info.path.clone(), info.clone()));
            copy(&new, store.destination(), Wanted::Infos(infos.collect()), &[], &*context.bars)?
                .added
        }
    };
    let store_dir = new.store_dir();
    let paths: Vec<String> =
        new.path_infos().iter().map(|info| store_dir.render_path(&info.path)).collect();
    if context.json {
        return output::json(json!({ "paths": paths, "added": added }));
    }
    if options.output.as_deref() == Some(Path::new("-")) {
        return Ok(());
    }
    output::records(paths, false)
}

fn advise(error: ferry_store::Error) -> Failure {
    use ferry_store::Error::{MissingPaths, MissingReference};
    let absent = matches!(error, MissingPaths { .. } | MissingReference { .. });
    match Failure::from(error) {
        failure if absent => failure.hint(
            "give it along (`ferry drv show --recursive`), or name a store that has it with --store",
        ),
        failure => failure,
    }
}

fn open(context: &Context, options: &DrvAdd) -> Result<OpenStore, Failure> {
    let purpose = match options.output.is_some() || options.dry_run {
        true => Purpose::Read,
        false => Purpose::Write,
    };
    // Derivations prove themselves.
    context.open_store(&options.store, purpose, TrustPolicy::accept_all(), false, &[])
}

/// Longest input, in bytes. The derivations of a large system are a tenth of it.
const LONGEST: u64 = 4 << 30;

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().take(LONGEST).read_to_end(&mut text)
    } else {
        fs::File::open(file).and_then(|file| file.take(LONGEST).read_to_end(&mut text))
    };
    read.map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
    Ok(text)
}

fn into_bundle(
    context: &Context,
    options: &DrvAdd,
    output: &Path,
    new: &NewDerivations<'_>,
) -> Result<usize, Failure> {
    let roots = unreferenced(new.path_infos());
    let infos = closure(new, &roots)?;
    let pack_options = PackOptions {
        set: "recipe".to_owned(),
        roots,
        level: options.level.zstd(),
        ..PackOptions::default()
    };
    let inputs = [options.file.as_path(), Path::new(&options.store)];
    let (report, _) = Sink::new(output, "a bundle")?.apart_from(inputs)?.write(|sink| {
        let name = output.display().to_string();
        let bundle = BundleWriter::new(sink, name, new.store_dir().clone(), pack_options);
        copy(new, &bundle, infos, &[], &*context.bars)
    })?;
    Ok(report.added)
}
