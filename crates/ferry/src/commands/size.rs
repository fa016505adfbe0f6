//! `ferry size`: how large the members of a set are, what they share counted once.

use std::cmp::Reverse;

use ferry_graph::{SizeReport, Sizes};
use serde_json::json;

use crate::cli::{Size, SizeKind};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::queries::Queries;
use crate::sources::OpenSources;

pub(crate) fn run(context: &Context, options: &Size) -> Result<(), Failure> {
    let sources = OpenSources::open(context, &options.sources)?;
    let mut queries = Queries::new(context, sources.explorer(context)?, &sources.address);
    let set = queries.evaluate(&options.query_file, Some(&options.expression))?;
    let mut report = queries.explorer.sizes(&set)?;
    queries.settle(options.sources.partial)?;
    let rendered = |sizes: &Sizes| queries.explorer.graph().render(sizes.node);
    report.members.sort_by_cached_key(|sizes| {
        let size = match options.sort {
            SizeKind::Nar => sizes.nar.unwrap_or(0),
            SizeKind::Closure => sizes.closure,
            SizeKind::Added => sizes.added,
        };
        (Reverse(size), rendered(sizes))
    });
    if context.json {
        return output::json(json!({
            "members": report.members.iter().map(|sizes| json!({
                "path": rendered(sizes),
                "narSize": sizes.nar,
                "closureSize": sizes.closure,
                "addedSize": sizes.added,
            })).collect::<Vec<_>>(),
            "narSize": report.nar,
            "closureSize": report.closure,
            "closurePaths": report.closure_objects,
            "unknownSizes": report.unknown,
        }));
    }
    print(context, &report, rendered)
}

fn print(
    context: &Context,
    report: &SizeReport,
    rendered: impl Fn(&Sizes) -> String,
) -> Result<(), Failure> {
    let row = |nar: &str, closure: &str, added: &str, what: &str| {
        output::line(format!("{nar:>12} {closure:>12} {added:>12}  {what}").as_bytes())
    };
    row("NAR", "closure", "added", "path")?;
    for sizes in &report.members {
        let nar = sizes.nar.map_or_else(|| "?".to_owned(), output::size);
        row(&nar, &output::size(sizes.closure), &output::size(sizes.added), &rendered(sizes))?;
    }
    let total = format!(
        "all {}, with everything they refer to {}",
        output::paths(report.members.len() as u64),
        output::paths(report.closure_objects as u64),
    );
    row(&output::size(report.nar), &output::size(report.closure), "", &total)?;
    if report.unknown > 0 {
        context.talk.say(format!(
            "the size of {} is not known, and counts as nothing",
            output::paths(report.unknown as u64)
        ));
    }
    Ok(())
}
