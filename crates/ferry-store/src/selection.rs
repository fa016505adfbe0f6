//! From the nodes that a query answers to the paths that are carried.

use std::collections::BTreeSet;

use ferry_formats::StorePath;
use ferry_graph::{Explorer, Missing, NodeSet, Realiser};

use crate::installable::Installable;
use crate::{Error, Result, Store};

/// What is to be carried: the roots, and everything they need. A path is valid only with its
/// references: what these refer to has to come along ([`closure`](crate::Wanted::closure)).
#[derive(Clone, Debug)]
pub struct Selection {
    /// What the user named, in the order given, each once: as derivations or as outputs,
    /// whichever is carried.
    pub roots: Vec<StorePath>,
    /// The paths.
    pub paths: Vec<StorePath>,
}

/// Names the paths of `set`, which are in `store`. `named` is what the set was made from; `also`
/// names what comes along with everything it refers to.
///
/// # Errors
/// [`Error::MissingFacts`] when the answer is not complete, or something in it has no path yet.
pub fn select(
    store: &dyn Store,
    explorer: &mut Explorer<'_>,
    set: &NodeSet,
    named: &[Installable],
    also: &[Installable],
) -> Result<Selection> {
    let mut roots = Vec::new();
    let mut carried = set.clone();
    for installable in named {
        let mut nodes = installable.nodes(explorer)?;
        let derivations = explorer.builders_of(&nodes.iter().copied().collect())?;
        let outputs: Vec<_> = match (installable, nodes.as_slice()) {
            (Installable::Path(_), &[node]) if explorer.graph().is_derivation(node) => {
                explorer.named_outputs(node)?.unwrap_or_default()
            }
            _ => Vec::new(),
        };
        nodes.extend(explorer.sorted(&derivations));
        nodes.extend(outputs.into_iter().map(|(_, output)| output));
        roots.extend(nodes.into_iter().filter(|node| set.contains(*node)));
    }
    for installable in also {
        let nodes = installable.nodes(explorer)?;
        carried.extend(nodes.iter().copied());
        roots.extend(nodes);
    }
    require_facts(explorer)?;
    if let (true, Some(Installable::Path(path))) = (carried.is_empty(), named.first()) {
        // A source, of which a recipe was wanted.
        let path = store.store_dir().render_path(path);
        let missing = vec![Missing::Deriver { path, recorded: None }];
        return Err(Error::MissingFacts { missing, sources: store.describe() });
    }
    let mut paths = Vec::with_capacity(carried.len());
    for node in explorer.sorted(&carried) {
        let path = explorer.graph().path(node);
        paths.push(path.ok_or_else(|| Error::MissingFacts {
            missing: vec![Missing::Output(explorer.graph().render(node))],
            sources: store.describe(),
        })?);
    }
    let mut seen = BTreeSet::new();
    let roots = roots.into_iter().filter_map(|node| explorer.graph().path(node));
    let roots = roots.filter(|path| seen.insert(path.clone())).collect();
    Ok(Selection { roots, paths })
}

/// Wants what is in `set`. The outputs of a derivation in `named` are wanted together, as Nix
/// wants them where they are built; everything else for itself.
///
/// # Errors
/// When a source of facts could not look.
pub fn want(
    realiser: &mut Realiser,
    explorer: &mut Explorer<'_>,
    set: &NodeSet,
    named: &[Installable],
) -> Result<()> {
    let mut rest = set.clone();
    for installable in named {
        let derivation = match installable {
            Installable::Path(path) if path.is_derivation() => path,
            Installable::Outputs { derivation, through, .. } if through.is_empty() => derivation,
            _ => continue,
        };
        let derivation = explorer.node(derivation);
        let outputs = explorer.named_outputs(derivation)?.unwrap_or_default();
        let outputs: Vec<_> = outputs
            .into_iter()
            .map(|(_, output)| output)
            .filter(|output| set.contains(*output))
            .collect();
        rest.difference_with(&outputs.iter().copied().collect());
        if !outputs.is_empty() {
            realiser.want_outputs(explorer, derivation, outputs);
        }
    }
    for node in rest.iter() {
        realiser.want(explorer, node);
    }
    Ok(())
}

/// Refuses an answer for which facts are missing.
///
/// # Errors
/// [`Error::MissingFacts`] with all of them.
pub fn require_facts(explorer: &Explorer<'_>) -> Result<()> {
    refuse(explorer.missing().cloned().collect(), explorer)
}

/// The facts that are missing where what objects refer to is found out by whoever realises them
/// ([`want`]): what is missing of derivations.
pub fn missing_of_derivations<'e>(
    explorer: &'e Explorer<'_>,
) -> impl Iterator<Item = &'e Missing> + use<'e> {
    explorer.missing().filter(|missing| match missing {
        Missing::Object { path, .. } => path.ends_with(".drv"),
        Missing::Output(_) => false,
        _ => true,
    })
}

/// Refuses an answer for which facts about derivations are missing.
///
/// # Errors
/// [`Error::MissingFacts`] with all of them.
pub fn require_facts_of_derivations(explorer: &Explorer<'_>) -> Result<()> {
    refuse(missing_of_derivations(explorer).cloned().collect(), explorer)
}

fn refuse(missing: Vec<Missing>, explorer: &Explorer<'_>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::MissingFacts { missing, sources: explorer.describe_sources() })
}
