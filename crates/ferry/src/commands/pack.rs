//! `ferry pack`: what an installable needs, in one file.

use std::path::{Path, PathBuf};

use ferry_bundle::{BundleWriter, PackOptions, Prerequisites};
use ferry_store::closure::closure;
use ferry_store::leave_out::{Thinned, leave_out};
use ferry_store::selection::Selection;
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::Purpose;
use ferry_store::{CopyReport, Error, Protection, Store, copy};
use serde_json::json;

use crate::base::Base;
use crate::cli::Pack;
use crate::context::{Context, secret_keys, temporary_directory};
use crate::evaluations::{Asked, Evaluations};
use crate::failure::Failure;
use crate::have;
use crate::output;
use crate::selected::{Named, selected_of};
use crate::sink::{Sink, Written};
use crate::sources::OpenSource;
use crate::volumes;

pub(crate) fn run(context: &Context, mut options: Pack) -> Result<(), Failure> {
    let sink = Sink::new(&options.output, "a bundle")?.apart_from(inputs(&options))?;
    let sink = match options.volume_size {
        Some(size) => sink.in_volumes(size, options.parity)?,
        None => sink,
    };
    if context.json && matches!(sink, Sink::StandardOutput) {
        return Err(Failure::usage("--json needs standard output, which the bundle goes to"));
    }
    let keys = secret_keys(&options.sign.sign_key)?;
    let opened = open(context, &options)?;
    let Asked { traces, named } = Asked::by(
        context,
        options.with_eval.as_ref(),
        &options.what,
        opened.any_store(),
        &options.store,
    )?;
    let given = &mut options.what.trace;
    given.extend(traces.iter().filter(|trace| !given.contains(trace)).cloned().collect::<Vec<_>>());
    let options = &options;
    let evaluations =
        Evaluations::collect(context, &traces, opened.any_store(), options.eval_limit)?;
    let joined = evaluations.joined(opened.any_store());
    let store: &dyn Store = &joined;

    let named = Named::known(named, context, &options.what, store, &options.store)?;
    let Selection { roots, paths } =
        selected_of(context, &options.what, named, store, opened.facts(), &options.store)?;
    let mut infos = closure(store, &paths)?;
    evaluations.add_to(store, &mut infos)?;
    let paths: Vec<_> = infos.keys().cloned().collect();
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

    let mut there = have::there(context, &options.have, store, &infos)?;
    let mut base = match &options.base {
        None => None,
        Some(place) => {
            let base = Base::find(context, place, store, &infos)?;
            there.extend(base.there.iter().cloned());
            Some(base)
        }
    };
    let derivations = base.as_mut().and_then(|base| base.derivations.take());
    let in_base = |path: &_| derivations.as_ref().is_some_and(|base| base.contains(path));
    let thinned = leave_out(infos, &|path| there.contains(path) || in_base(path));
    let asked = &thinned.prerequisites;
    let prerequisites = Prerequisites::with_base(store, &thinned.carried, asked, derivations)?;
    let needed: Vec<String> =
        prerequisites.list().iter().map(|one| store.store_dir().render_path(&one.path)).collect();
    let Thinned { carried, left_out, .. } = thinned;
    let against = match (&base, &opened) {
        (Some(base), OpenSource::Store(opened)) => base.content(opened, &carried)?,
        _ => None,
    };
    let pack_options = PackOptions {
        set: options.what.set.clone(),
        roots: roots.clone(),
        evaluations: evaluations.paths(),
        level: options.level.zstd(),
        sign_with: keys.clone(),
        prerequisites,
    };
    let (report, written) = sink.write(|sink| {
        let name = options.output.display().to_string();
        let mut bundle = BundleWriter::new(sink, name, store.store_dir().clone(), pack_options)
            .temporary_files_in(temporary_directory());
        if let Some(files) = opened.files() {
            bundle = bundle.reading_again_from(evaluations.files(files));
        }
        if let Some(against) = against {
            bundle = bundle.against(against);
        }
        copy(store, &bundle, carried, &keys, &*context.bars)
    })?;
    let size = written.size();
    summarise(context, options, &report, &written);
    let places: Vec<&str> = options.have.iter().chain(&options.base).map(String::as_str).collect();
    if !places.is_empty() {
        context.talk.say(format!(
            "left out {}, {} of NARs, that the other side has by {} ({} needed there)",
            output::paths(left_out.len() as u64),
            output::size(left_out.values().map(|info| info.nar_size).sum()),
            places.join(", "),
            match needed.len() as u64 {
                0 => "none".to_owned(),
                some => output::paths(some),
            },
        ));
    }
    if context.json {
        output::json(json!({
            "leftOut": left_out.len(),
            "prerequisites": needed,
            "bundle": options.output,
            "bundleSize": size,
            "volumes": written.volumes(),
            "set": options.what.set,
            "roots": roots.iter().map(|root| store.store_dir().render_path(root)).collect::<Vec<_>>(),
            "evaluations": evaluations
                .paths()
                .iter()
                .map(|path| store.store_dir().render_path(path))
                .collect::<Vec<_>>(),
            "paths": report.added,
            "narSize": report.nar_size,
        }))?;
    }
    Ok(())
}

/// The files that are read.
fn inputs(options: &Pack) -> impl Iterator<Item = &Path> {
    let what = &options.what;
    let files = [&what.query_file, &what.trace, &options.references_graph, &options.sign.sign_key];
    let places = options.have.iter().chain(&options.base).chain(&what.installables);
    let recorded = options.with_eval.iter().flatten().chain(&what.evaluated.file);
    files
        .into_iter()
        .flatten()
        .chain(recorded)
        .map(PathBuf::as_path)
        .chain(places.map(|place| Path::new(place.as_str())))
}

/// What is packed from.
fn open(context: &Context, options: &Pack) -> Result<OpenSource, Failure> {
    if !options.references_graph.is_empty() {
        return OpenSource::listed_or_at(context, &options.references_graph, &options.store);
    }
    // Packing trusts the store that it reads: no key decides anything.
    let trust = TrustPolicy::accept_all();
    let opened = context.open_store(&options.store, Purpose::Read, trust, false, &[])?;
    Ok(OpenSource::Store(opened))
}

fn summarise(context: &Context, options: &Pack, report: &CopyReport, written: &Written) {
    let target = match (written, options.output.to_str()) {
        (Written::Volumes(report), _) => volumes::told(report),
        (_, Some("-")) => "standard output".to_owned(),
        _ => options.output.display().to_string(),
    };
    let size = written.size().map(|size| format!(" ({})", output::size(size))).unwrap_or_default();
    context.talk.say(format!(
        "packed {}, {} of NARs, into {target}{size}",
        output::paths(report.added as u64),
        output::size(report.nar_size),
    ));
}
