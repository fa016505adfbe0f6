//! `ferry query`: what a query of the dependency graph answers.

use ferry_graph::{Kind, NodeId, query};
use serde_json::{Value, json};

use crate::cli::Query;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::queries::Queries;
use crate::sources::OpenSources;

pub(crate) fn run(context: &Context, options: &Query) -> Result<(), Failure> {
    if options.sets {
        return print_sets(context);
    }
    if options.functions {
        return print_functions(context);
    }
    let sources = OpenSources::open(context, &options.sources)?;
    let mut queries = Queries::new(context, sources.explorer(context)?, &sources.address);
    let set = queries.evaluate(&options.query_file, options.expression.as_deref())?;
    let nodes = if options.topological {
        queries.explorer.topological_order(&[Kind::Run], &set)?
    } else {
        queries.explorer.sorted(&set)
    };
    if options.long || context.json {
        // Their sizes may not have been asked for yet.
        queries.explorer.known(&nodes)?;
    }
    queries.settle(options.sources.partial)?;
    if options.dot {
        return queries.print_dot(&set, &Kind::ALL);
    }
    let graph = queries.explorer.graph();
    if context.json {
        let described = |node: &NodeId| {
            json!({
                "path": graph.render(*node),
                "narSize": graph.nar_size(*node),
            })
        };
        let paths: Vec<Value> = nodes.iter().map(described).collect();
        return output::json(json!({ "paths": paths, "missing": queries.missing() }));
    }
    let lines = nodes.into_iter().map(|node| {
        let path = graph.render(node);
        if !options.long {
            return path;
        }
        let size = graph.nar_size(node).map_or_else(|| "?".to_owned(), |size| size.to_string());
        format!("{size:>12} {path}")
    });
    output::records(lines, options.null)
}

fn print_sets(context: &Context) -> Result<(), Failure> {
    let sets = query::named_sets();
    if context.json {
        let described = |set: &query::NamedSet| {
            json!({
                "name": set.name,
                "holds": set.doc,
                "for": set.sentence,
                "definition": set.definition,
            })
        };
        return output::json(json!({ "sets": sets.iter().map(described).collect::<Vec<_>>() }));
    }
    output::line(query::named_set_definitions().trim_end().as_bytes())
}

fn print_functions(context: &Context) -> Result<(), Failure> {
    let functions = query::functions();
    if context.json {
        let described = |function: &query::Function| json!({ "signature": function.signature(), "doc": function.doc });
        let functions: Vec<Value> = functions.iter().map(described).collect();
        return output::json(json!({ "functions": functions }));
    }
    for function in functions {
        output::line(format!("{}\n    {}", function.signature(), function.doc).as_bytes())?;
    }
    Ok(())
}
