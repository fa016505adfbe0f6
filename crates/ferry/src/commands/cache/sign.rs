//! `ferry cache sign`: signatures of what is in a binary cache.

use std::process::ExitCode;

use ferry_cache::{SignOptions, ToSign};
use serde_json::json;

use super::{open, store_paths};
use crate::cli::CacheSign;
use crate::context::{Context, secret_keys};
use crate::failure::Failure;
use crate::output;

pub(super) fn run(context: &Context, options: &CacheSign) -> Result<ExitCode, Failure> {
    let cache = open(context, &options.cache)?;
    let sign =
        SignOptions { keys: secret_keys(&options.sign_key)?, remove: options.remove_key.clone() };
    let what = if options.all {
        ToSign::Everything
    } else {
        let paths = store_paths(context, &context.store_dir()?, &options.paths)?;
        if options.recursive { ToSign::Closure(paths) } else { ToSign::Paths(paths) }
    };
    let report = cache.sign(&what, &sign, &*context.bars)?;
    if context.json {
        let failed = report.failed.iter();
        let failed = failed.map(|(file, reason)| json!({ "file": file, "reason": reason }));
        output::json(json!({
            "cache": options.cache,
            "paths": report.paths,
            "changed": report.changed,
            "added": report.added,
            "removed": report.removed,
            "failed": failed.collect::<Vec<_>>(),
        }))?;
    }
    context.talk.say(format!(
        "{}: {} signatures added, {} removed; {} of {} changed",
        options.cache,
        report.added,
        report.removed,
        report.changed,
        output::paths(report.paths),
    ));
    if report.failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let reasons = report.failed.into_iter().map(|(_, reason)| reason).collect::<Vec<_>>();
    let files = match reasons.len() {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    Err(Failure::new(format!("{files} cannot be signed:"))
        .list(reasons)
        .hint("`ferry cache verify` tells what is wrong with a cache, and what to do about it"))
}
