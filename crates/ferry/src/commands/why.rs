//! `ferry why`: a shortest way from one thing to another that it needs.

use ferry_graph::{Graph, Kind, NodeSet, Step};
use ferry_store::reference_sites::{Site, SiteKind, reference_sites};
use serde_json::{Value, json};

use crate::cli::Why;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::queries::Queries;
use crate::sources::{OpenSource, OpenSources};

pub(crate) fn run(context: &Context, options: &Why) -> Result<(), Failure> {
    let kinds = if options.kind.is_empty() { Kind::ALL.to_vec() } else { options.kind.clone() };
    let sources = OpenSources::open(context, &options.sources)?;
    let mut queries = Queries::new(context, sources.explorer(context)?, &sources.address);
    let from = queries.installable(&options.from)?;
    let to = queries.installable(&options.to)?;
    let way = queries.explorer.shortest_way(&kinds, &from, &to)?;
    // A way that was found is one, whatever else is not known.
    let Some(steps) = way else {
        queries.settle(options.sources.partial)?;
        if context.json {
            output::json(json!({ "steps": null }))?;
        }
        return Err(Failure::new(format!("{} does not need {}", options.from, options.to)));
    };
    if options.dot {
        let nodes: NodeSet = steps.iter().flat_map(|step| [step.from, step.to]).collect();
        return queries.print_dot(&nodes, &kinds);
    }
    let graph = queries.explorer.graph();
    let explained: Vec<(Step, Vec<Site>)> = steps
        .into_iter()
        .map(|step| sites(graph, &sources.stores, &step).map(|sites| (step, sites)))
        .collect::<Result<_, _>>()?;
    if context.json {
        let steps: Vec<Value> =
            explained.iter().map(|(step, sites)| step_json(graph, step, sites)).collect();
        return output::json(json!({ "steps": steps }));
    }
    print(graph, &explained, &from)
}

/// The files of a step's object that hold the reference, where a store has them.
fn sites(graph: &Graph, stores: &[OpenSource], step: &Step) -> Result<Vec<Site>, Failure> {
    let (Kind::Run, Some(from), Some(to)) = (step.kind, graph.path(step.from), graph.path(step.to))
    else {
        return Ok(Vec::new());
    };
    // What a derivation refers to stands in it by name.
    if from.is_derivation() {
        return Ok(Vec::new());
    }
    for store in stores.iter().filter_map(OpenSource::store) {
        if store.path_info(&from)?.is_some() {
            return Ok(reference_sites(store, &from, &[to])?);
        }
    }
    Ok(Vec::new())
}

fn step_json(graph: &Graph, step: &Step, sites: &[Site]) -> Value {
    json!({
        "from": graph.render(step.from),
        "to": graph.render(step.to),
        "kind": step.kind.name(),
        "builder": step.builder.map(|builder| graph.render(builder)),
        "sites": sites.iter().map(|site| json!({
            "file": String::from_utf8_lossy(&site.file),
            "in": match site.kind {
                SiteKind::Contents => "contents",
                SiteKind::SymlinkTarget => "symlink",
            },
            "offset": site.offset,
            "context": site.context,
        })).collect::<Vec<_>>(),
    })
}

fn print(graph: &Graph, explained: &[(Step, Vec<Site>)], from: &NodeSet) -> Result<(), Failure> {
    let first = explained.first().map(|(step, _)| step.from).or_else(|| from.iter().next());
    if let Some(first) = first {
        output::line(graph.render(first).as_bytes())?;
    }
    for (step, sites) in explained {
        let by = step.builder.map(|builder| format!(", by {}", graph.render(builder)));
        let how = format!("  {}{}", step.kind.name(), by.unwrap_or_default());
        output::line(how.as_bytes())?;
        for site in sites {
            let mut line = b"    in ".to_vec();
            line.extend_from_slice(if site.file.is_empty() { b"." } else { &site.file });
            let arrow = match site.kind {
                SiteKind::Contents => ": ",
                SiteKind::SymlinkTarget => " -> ",
            };
            line.extend_from_slice(arrow.as_bytes());
            line.extend_from_slice(site.context.as_bytes());
            output::line(&line)?;
        }
        output::line(graph.render(step.to).as_bytes())?;
    }
    Ok(())
}
