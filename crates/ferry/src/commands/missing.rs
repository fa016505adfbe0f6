//! `ferry missing`: what binary caches lack of what something needs.

mod report;

use std::process::ExitCode;
use std::time::Instant;

use ferry_cache::missing::{AskOptions, Place, Survey, survey};
use ferry_cache::{Offered, PathList};
use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Explorer, NodeId, NodeSet, Realiser, Supply};
use ferry_store::selection;
use ferry_store::shard::Shard;
use ferry_store::trust::TrustPolicy;

use self::report::Report;
use super::copied;
use super::copy::{Extras, Sent, Target, send};
use crate::cli::{Missing, Sources};
use crate::context::Context;
use crate::failure::Failure;
use crate::have::require_directory;
use crate::installables::Installables;
use crate::output;
use crate::queries::Queries;
use crate::selected::{Carried, Named, require_some};
use crate::sink::Sink;
use crate::sources::{OpenSource, OpenSources};

pub(crate) fn run(context: &Context, options: &Missing) -> Result<ExitCode, Failure> {
    let facts = Sources {
        store: options.store.clone(),
        references_graph: Vec::new(),
        trace: options.what.trace.clone(),
        partial: false,
    };
    let sources = OpenSources::open(context, &facts)?;
    let store_dir = &sources.store_dir;
    let caches = options
        .caches
        .iter()
        .map(|address| OpenSource::open(context, address))
        .collect::<Result<Vec<_>, _>>()?;
    let places = places(&options.caches, &caches, store_dir)?;
    // Before hours of asking: whether it can be read.
    let list = options.add_to.as_deref().map(|file| PathList::read(file, store_dir)).transpose()?;

    let installables = Installables { context, store_dir, store: &sources.address };
    let Named { installables: named, also } = Named::of(&options.what, &installables)?;
    let realised_in: Vec<_> = caches.iter().filter_map(OpenSource::cache).collect();
    let explorer = sources.explorer_realised_in(context, &realised_in)?;
    let mut queries = Queries::new(context, explorer, &sources.address);
    let mut set = queries.evaluate_set(&options.what.query_file, &options.what.set, &named)?;
    queries.tell_doubts();
    selection::require_facts_of_derivations(&queries.explorer)?;
    require_some(&options.what.set, &set, &also)?;
    let explorer = &mut queries.explorer;
    let mut realiser = Realiser::new(context.always_allows_substitutes()?);
    let mut besides = NodeSet::default();
    for installable in &also {
        besides.extend(installable.nodes(explorer)?);
    }
    let elsewhere = match options.shard {
        None => NodeSet::default(),
        Some(shard) => {
            let mut elsewhere = keep_part(&mut set, shard, explorer);
            elsewhere.union_with(&keep_part(&mut besides, shard, explorer));
            elsewhere
        }
    };
    selection::want(&mut realiser, explorer, &set, &named)?;
    for node in besides.iter() {
        realiser.want(explorer, node);
    }

    let trust = match options.no_check_sigs {
        true => TrustPolicy::accept_all(),
        false => context.trust(&options.trust)?,
    };
    let begun = Instant::now();
    let keep_infos = options.fetch_into.is_some();
    let ask = AskOptions { trust: &trust, keep_infos, elsewhere: &elsewhere };
    let survey = survey(explorer, realiser, &places, ask, &*context.bars)?;
    let took = begun.elapsed();
    if sources.stores.iter().any(|source| source.store().is_some()) {
        // How large what is missing would be, if somebody has built it.
        explorer.known(&missing_nodes(&survey))?;
    }

    let added = match (list, &options.add_to) {
        (Some(mut list), Some(file)) => {
            let lacking = lacking(&survey, explorer);
            let added = lacking.iter().filter(|path| list.add(path)).count();
            Sink::new(file, "a list of store paths")?.write(|sink| list.write(sink))?;
            Some(added)
        }
        _ => None,
    };
    let fetched = match &options.fetch_into {
        Some(address) => Some(fetch(context, options, address, &survey, &places, store_dir)?),
        None => None,
    };
    queries.tell_missing(&queries.missing_of_derivations());
    let report = Report { context, options, queries: &queries, survey: &survey, took };
    if context.json {
        report.json(added, fetched.as_ref().map(|sent| &sent.report))?;
    } else {
        report.print()?;
    }
    report.summarise();
    if let (Some(added), Some(file)) = (added, &options.add_to) {
        context.talk.say(format!("added {} to {}", output::paths(added as u64), file.display()));
    }
    if let Some(Sent { destination, report, .. }) = &fetched {
        copied::tell(context, "copied", destination, report, store_dir);
    }
    let is_missing = !missing_nodes(&survey).is_empty();
    Ok(if is_missing { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Keeps one part of a set, and returns the others. What has no path yet is in the first.
fn keep_part(set: &mut NodeSet, shard: Shard, explorer: &Explorer<'_>) -> NodeSet {
    let is_elsewhere = |node: &NodeId| match explorer.graph().path(*node) {
        Some(path) => !shard.holds(&path),
        None => !shard.is_first(),
    };
    let elsewhere: NodeSet = set.iter().filter(is_elsewhere).collect();
    set.difference_with(&elsewhere);
    elsewhere
}

/// What is asked, in order.
fn places<'a>(
    addresses: &[String],
    caches: &'a [OpenSource],
    store_dir: &StoreDir,
) -> Result<Vec<Place<'a>>, Failure> {
    let place = |(address, cache): (&String, &'a OpenSource)| match cache {
        OpenSource::Cache(cache) => Ok(Place::Cache(cache)),
        other => {
            let store = other.any_store();
            require_directory(address, store.store_dir(), store_dir)?;
            Ok(Place::Store(store))
        }
    };
    addresses.iter().zip(caches).map(place).collect()
}

fn missing_nodes(survey: &Survey) -> Vec<NodeId> {
    let needed = survey.realisation.needed.iter();
    needed.filter(|needed| needed.supply.is_missing()).map(|needed| needed.node).collect()
}

/// The paths that the first cache lacks.
fn lacking(survey: &Survey, explorer: &Explorer<'_>) -> Vec<StorePath> {
    let is_elsewhere = |node| survey.offers.get(&node).is_some_and(|offer| offer.place > 0);
    let needed = survey.realisation.needed.iter();
    let lacking = needed.filter(|needed| needed.supply.is_missing() || is_elsewhere(needed.node));
    lacking.filter_map(|needed| explorer.graph().path(needed.node)).collect()
}

/// Copies what is there, but for what refers to something that is nowhere: a path is valid only
/// with all that it refers to.
fn fetch(
    context: &Context,
    options: &Missing,
    address: &str,
    survey: &Survey,
    places: &[Place<'_>],
    store_dir: &StoreDir,
) -> Result<Sent, Failure> {
    let not_whole = &survey.realisation.not_whole;
    let mut offered = Offered::new(store_dir, places);
    let mut left_out = 0;
    for needed in &survey.realisation.needed {
        let Some(offer) = survey.offers.get(&needed.node) else { continue };
        match (&offer.info, needed.supply) {
            (Some(_), Supply::Substituted) if not_whole.contains(needed.node) => left_out += 1,
            (Some(info), Supply::Substituted) => offered.add(offer.place, (**info).clone()),
            _ => {}
        }
    }
    if left_out > 0 {
        context.talk.say(format!(
            "{} not copied: something that they refer to is nowhere",
            output::paths(left_out)
        ));
    }
    let infos = offered.paths().clone();
    let target = Target {
        address,
        no_check_sigs: options.no_check_sigs,
        trust: &options.trust,
        set: &options.what.set,
        extras: Extras::default(),
    };
    send(context, &offered, &target, Carried { roots: None, wanted: infos.into() }, Vec::new())
}
