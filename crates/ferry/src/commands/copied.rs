//! What a copy did, in words and as JSON.

use ferry_formats::StoreDir;
use ferry_formats::build_trace::DrvOutput;
use ferry_store::CopyReport;
use serde_json::{Value, json};

use crate::context::Context;
use crate::output;

/// How many of several things are named.
const NAMED: usize = 10;

/// The fields of a report that every command has that copies.
pub(super) fn fields(report: &CopyReport, store_dir: &StoreDir) -> Value {
    json!({
        "added": report.added,
        "present": report.present,
        "narSize": report.nar_size,
        "kept": report.kept.iter().map(|path| store_dir.render_path(path)).collect::<Vec<_>>(),
    })
}

/// More fields, of copies between stores that keep realisations.
pub(super) fn realisations(report: &CopyReport) -> Value {
    json!({
        "added": report.realisations,
        "untrusted": texts(&report.untrusted_realisations),
        "other": texts(&report.realisations_not_taken.other),
        "untold": texts(&report.realisations_not_taken.untold),
    })
}

fn texts(outputs: &[DrvOutput]) -> Vec<String> {
    outputs.iter().map(ToString::to_string).collect()
}

/// Tells what was copied, and what was not, although it was asked for. `verb` is `copied` or
/// `added`.
pub(super) fn tell(
    context: &Context,
    verb: &str,
    destination: &str,
    report: &CopyReport,
    store_dir: &StoreDir,
) {
    let talk = context.talk;
    talk.say(format!(
        "{verb} {}, {} of NARs, to {destination} ({} there already)",
        output::paths(report.added as u64),
        output::size(report.nar_size),
        report.present,
    ));
    let list = |text: &str, names: Vec<String>| {
        if names.is_empty() {
            return;
        }
        talk.say(format!("warning: {text}"));
        for name in names.iter().take(NAMED) {
            talk.say(format!("  {name}"));
        }
        if names.len() > NAMED {
            talk.say(format!("  and {} more", names.len() - NAMED));
        }
    };
    list(
        &format!(
            "already in {destination} with another content, which stays (remove it there to take \
             the other one):"
        ),
        report.kept.iter().map(|path| store_dir.render_path(path)).collect(),
    );
    if report.realisations > 0 {
        talk.say(format!("realisations known there now: {}", report.realisations));
    }
    list(
        "no trusted key has signed these realisations (of which outputs became which paths), and \
         they were not taken:",
        texts(&report.untrusted_realisations),
    );
    list(
        &format!("in {destination} these outputs have other paths, which stay:"),
        texts(&report.realisations_not_taken.other),
    );
    let reason = report.realisations_not_taken.reason.as_deref().unwrap_or_default();
    list(
        &format!(
            "these realisations (of which outputs became which paths) could not be told, and what \
             is there of them is built again ({reason}):"
        ),
        texts(&report.realisations_not_taken.untold),
    );
}
