//! `ferry deps`: what something needs to run, to be built, to be evaluated.

use ferry_graph::{Kind, NodeSet};
use serde_json::{Map, json};

use crate::cli::Deps;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::queries::Queries;
use crate::sources::OpenSources;

pub(crate) fn run(context: &Context, options: &Deps) -> Result<(), Failure> {
    let (kinds, names) = kinds_and_names(&options.arguments, !options.evaluated.is_empty())?;
    let sources = OpenSources::open(context, &options.sources)?;
    let mut queries = Queries::new(context, sources.explorer(context)?, &sources.address);
    let mut of = NodeSet::default();
    match options.evaluated.expression(names) {
        Some(expression) => of.union_with(&queries.evaluated(&expression)?),
        None => {
            for name in names {
                of.union_with(&queries.installable(name)?);
            }
        }
    }
    let mut found = Vec::new();
    for &kind in &kinds {
        found.push((kind, dependencies(&mut queries, options, &kinds, kind, &of)?));
    }
    queries.settle(options.sources.partial)?;
    if options.dot {
        let mut all = of;
        found.iter().for_each(|(_, set)| all.union_with(set));
        return queries.print_dot(&all, &kinds);
    }
    let rendered = |set: &NodeSet| {
        let nodes = queries.explorer.sorted(set);
        nodes.into_iter().map(|node| queries.explorer.graph().render(node)).collect::<Vec<_>>()
    };
    if context.json {
        let lists = found.iter().map(|(kind, set)| (kind.name().to_owned(), json!(rendered(set))));
        let missing = ("missing".to_owned(), json!(queries.missing()));
        return output::json(lists.chain([missing]).collect::<Map<_, _>>().into());
    }
    // Of one kind: paths alone, for the next program.
    let one = kinds.len() == 1;
    let lines = found.iter().flat_map(|(kind, set)| {
        let label = |path| if one { path } else { format!("{:<5} {path}", kind.name()) };
        rendered(set).into_iter().map(label)
    });
    output::records(lines, options.null)
}

/// A first argument that names a kind is one (`./run` is a file of that name).
fn kinds_and_names(
    arguments: &[String],
    is_evaluated: bool,
) -> Result<(Vec<Kind>, &[String]), Failure> {
    let Some((first, rest)) = arguments.split_first() else {
        return Ok((Kind::ALL.to_vec(), arguments));
    };
    match Kind::ALL.into_iter().find(|kind| kind.name() == first) {
        None => Ok((Kind::ALL.to_vec(), arguments)),
        Some(_) if rest.is_empty() && !is_evaluated => {
            Err(Failure::usage(format!("the {first} dependencies of what?"))
                .hint(format!("`ferry deps {first} INSTALLABLE`")))
        }
        Some(kind) => Ok((vec![kind], rest)),
    }
}

fn dependencies(
    queries: &mut Queries<'_>,
    options: &Deps,
    kinds: &[Kind],
    kind: Kind,
    of: &NodeSet,
) -> Result<NodeSet, Failure> {
    if !options.closure && kinds.len() == 1 {
        return Ok(queries.explorer.immediate(kind, of)?);
    }
    let depth = (!options.closure).then_some(1);
    let mut found = queries.explorer.closure(&[kind], of, None, depth)?;
    if !options.closure {
        found.difference_with(of);
    }
    Ok(found)
}
