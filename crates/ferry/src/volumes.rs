//! What is said about the volumes of a bundle.

use std::path::{Path, PathBuf};

use ferry_bundle::{Bundle, Condition, Volume, Volumes, VolumesReport};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Checks each of the volumes that belong with `files` alone, if they are volumes, and says how
/// they are. Too many missing is a failure.
pub(crate) fn checked(
    context: &Context,
    files: &[PathBuf],
) -> Result<Option<Vec<Volume>>, Failure> {
    if files == [Path::new("-")] {
        return Ok(None);
    }
    let Some(volumes) = Volumes::find(files)? else { return Ok(None) };
    let found = volumes.check();
    for volume in &found {
        context.talk.say(line(volume));
    }
    if let Err(error) = volumes.require_enough() {
        if context.json {
            output::json(
                json!({ "bundle": volumes.name(), "valid": false, "volumes": json(&found) }),
            )?;
        }
        return Err(error.into());
    }
    Ok(Some(found))
}

/// A volume in a line.
pub(crate) fn line(volume: &Volume) -> String {
    let kind = if volume.parity { " (parity)" } else { "" };
    let condition = match &volume.condition {
        Condition::Whole => "whole".to_owned(),
        Condition::Missing => "missing".to_owned(),
        Condition::Unusable(reason) => format!("cannot be used: {reason}"),
        Condition::Damaged { reason, pieces } => format!("damaged ({pieces} pieces): {reason}"),
        _ => "not known".to_owned(),
    };
    format!("{}{kind} {}: {condition}", volume.number, volume.file.display())
}

/// Volumes as JSON.
pub(crate) fn json(volumes: &[Volume]) -> Value {
    let one = |volume: &Volume| {
        let (condition, reason, pieces) = match &volume.condition {
            Condition::Whole => ("whole", None, 0),
            Condition::Missing => ("missing", None, 0),
            Condition::Unusable(reason) => ("unusable", Some(reason), 0),
            Condition::Damaged { reason, pieces } => ("damaged", Some(reason), *pieces),
            _ => ("unknown", None, 0),
        };
        json!({
            "number": volume.number,
            "parity": volume.parity,
            "file": volume.file,
            "size": volume.size,
            "condition": condition,
            "reason": reason,
            "damagedPieces": pieces,
        })
    };
    volumes.iter().map(one).collect()
}

/// What a bundle is called: its file, or the name of its volumes.
pub(crate) fn named(bundle: &Bundle, files: &[PathBuf]) -> PathBuf {
    match (bundle.volumes(), files) {
        (Some(volumes), _) => PathBuf::from(volumes.name()),
        (None, [file, ..]) => file.clone(),
        (None, []) => PathBuf::new(),
    }
}

/// Where a bundle went.
pub(crate) fn told(report: &VolumesReport) -> String {
    match report.files.as_slice() {
        [first, .., last] => {
            let (first, last, count) = (first.display(), last.display(), report.files.len());
            format!("{count} volumes, {} of parity: {first} to {last}", report.parity)
        }
        [only] => format!("1 volume: {}", only.display()),
        [] => "no volumes".to_owned(),
    }
}
