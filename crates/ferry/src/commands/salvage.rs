//! `ferry salvage`: what is left of a damaged bundle, as a bundle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ferry_bundle::{
    BundleError, BundleWriter, DamagedBundle, DerivationBase, Loss, PackOptions, Salvage, Volumes,
};
use ferry_formats::StorePath;
use ferry_store::closure::unreferenced;
use ferry_store::copy::require_same_directory;
use ferry_store::uri::OpenStore;
use ferry_store::{Store as _, copy};
use serde_json::{Value, json};

use crate::base::content_of;
use crate::cli;
use crate::context::{Context, temporary_directory};
use crate::failure::Failure;
use crate::output;
use crate::sink::Sink;

pub(crate) fn run(context: &Context, options: &cli::Salvage) -> Result<ExitCode, Failure> {
    let keys = context.trust(&options.trust)?.trusted_public_keys;
    let against = context.open_against(options.against.as_ref())?;
    let (file, name) = open(&options.files)?;
    let sink = apart(Sink::new(&options.output, "a bundle")?, &options.files)?;
    let opened = DamagedBundle::open(file, name.clone(), against.as_ref().map(OpenStore::store));
    let mut damaged = opened.map_err(|error| match error {
        // The first of them tells what all are, and parity alone nothing.
        BundleError::NotABundle { .. } if is_volume(&options.files) => {
            Failure::new(format!("{name}: so much of it is lost that nothing can be read"))
                .hint("find more of its volumes")
        }
        error => error.into(),
    })?;
    damaged.temporary_files_in(temporary_directory());
    let nars = match &against {
        Some(store) => content_of(damaged.prerequisites(), store)?,
        None => None,
    };
    match nars {
        Some(nars) => damaged.read_bases_from(nars),
        None if damaged.prerequisites().iter().any(|one| one.content.is_some()) => {
            return Err(Failure::new(format!(
                "{name} is packed against content that is in the store that it was made for, and \
                 cannot be read without"
            ))
            .hint("name that store with --against"));
        }
        None => {}
    }
    let salvage = damaged.salvage(&keys, &*context.bars)?;
    let infos = salvage.path_infos();
    if infos.is_empty() {
        tell(context, &salvage)?;
        return Err(Failure::new(format!("there is nothing in {}", salvage.describe())));
    }
    let (set, roots) = what_it_is(&salvage);
    let level = options.level.zstd();
    let base = match (&against, salvage.base_roots()) {
        (None, _) | (_, []) => None,
        (Some(store), roots) => {
            require_same_directory(&salvage, store.destination())?;
            Some(DerivationBase::read(store.store(), roots)?)
        }
    };
    let prerequisites = salvage.prerequisites().with_roots_of(base);
    let offered: BTreeMap<_, _> =
        infos.iter().map(|info| (info.path.clone(), info.clone())).collect();
    let evaluations = salvage.evaluations().into_iter();
    let evaluations = evaluations.filter(|path| offered.contains_key(path)).collect();
    let pack_options =
        PackOptions { set, roots, evaluations, level, prerequisites, ..PackOptions::default() };
    sink.write(|sink| {
        let name = options.output.display().to_string();
        let bundle = BundleWriter::new(sink, name, salvage.store_dir().clone(), pack_options);
        copy(&salvage, &bundle, offered, &[], &*context.bars)
    })?;
    tell(context, &salvage)?;
    Ok(if salvage.lost().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Makes sure that nothing that may yet be wanted is replaced: the files, and what belongs with them.
fn apart(sink: Sink, files: &[PathBuf]) -> Result<Sink, Failure> {
    let sink = sink.apart_from(files.iter().map(PathBuf::as_path))?;
    if files == [Path::new("-")] {
        return Ok(sink);
    }
    let volumes = Volumes::find(files)?.map(|volumes| volumes.list()).unwrap_or_default();
    sink.apart_from(volumes.iter().map(|volume| volume.file.as_path()))
}

/// Whether what is damaged are volumes.
fn is_volume(files: &[PathBuf]) -> bool {
    files != [Path::new("-")] && matches!(Volumes::find(files), Ok(Some(_)))
}

/// The file, to be read at any place. Standard input and volumes are copied into one.
fn open(files: &[PathBuf]) -> Result<(File, String), Failure> {
    let keep = |name: &str, reader: &mut dyn io::Read| -> Result<File, Failure> {
        let failed = |error: io::Error| Failure::new(format!("cannot keep {name}: {error}"));
        let mut file = tempfile::tempfile_in(temporary_directory()).map_err(failed)?;
        io::copy(reader, &mut file).map_err(failed)?;
        Ok(file)
    };
    if files == [Path::new("-")] {
        let name = "<standard input>".to_owned();
        return Ok((keep(&name, &mut io::stdin())?, name));
    }
    for path in files {
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let message = format!("{} is not a file; give its contents as `-`", path.display());
            return Err(Failure::usage(message));
        }
    }
    if let Some(volumes) = Volumes::find(files)? {
        let name = volumes.name();
        return Ok((keep(&name, &mut volumes.open_even_damaged())?, name));
    }
    let [path] = files else {
        return Err(Failure::usage("several files are one bundle only if they are its volumes")
            .hint("join the parts of a bundle that was split in another way, and give that file"));
    };
    let file = File::open(path)
        .map_err(|error| Failure::new(format!("cannot open {}: {error}", path.display())))?;
    Ok((file, path.display().to_string()))
}

/// As long as nothing is lost it is what it was; else what it has at its top, and all below.
fn what_it_is(salvage: &Salvage) -> (String, Vec<StorePath>) {
    match salvage.manifest() {
        Some(manifest) if salvage.lost().is_empty() => {
            (manifest.set.clone(), manifest.root_paths())
        }
        _ => ("closure(run, x)".to_owned(), unreferenced(salvage.path_infos())),
    }
}

fn tell(context: &Context, salvage: &Salvage) -> Result<(), Failure> {
    let store_dir = salvage.store_dir();
    let (kept, lost) = (salvage.path_infos(), salvage.lost());
    if context.json {
        let describe = |(path, loss): &(StorePath, Loss)| {
            let (reason, reference) = match loss {
                Loss::Damaged => ("damaged", None),
                Loss::RefersTo(path) => ("refersToLost", Some(store_dir.render_path(path))),
                _ => ("unproved", None),
            };
            json!({ "path": store_dir.render_path(path), "reason": reason, "refersTo": reference })
        };
        output::json(json!({
            "headIsWhole": salvage.manifest().is_some(),
            "saved": kept.iter().map(|info| store_dir.render_path(&info.path)).collect::<Vec<_>>(),
            "lost": lost.iter().map(describe).collect::<Vec<Value>>(),
        }))?;
    } else {
        output::records(lost.iter().map(|(path, _)| store_dir.render_path(path)), false)?;
    }
    if salvage.manifest().is_none() {
        context.talk.say(
            "the head of the bundle is damaged: only what its roots and trusted keys prove is taken",
        );
    }
    let count = |loss: &dyn Fn(&Loss) -> bool| lost.iter().filter(|(_, it)| loss(it)).count();
    let damaged = count(&|loss| *loss == Loss::Damaged);
    let because = count(&|loss| matches!(loss, Loss::RefersTo(_)));
    context.talk.say(format!(
        "saved {}; lost {}: {damaged} damaged or missing, {because} that refer to what is lost, {} \
         that nothing proves",
        output::paths(kept.len() as u64),
        lost.len(),
        lost.len() - damaged - because,
    ));
    Ok(())
}
