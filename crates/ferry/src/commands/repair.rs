//! `ferry repair`: volumes that are missing or damaged, written again.

use std::path::Path;

use ferry_bundle::Volumes;
use ferry_store::Error;
use serde_json::json;

use crate::cli::Repair;
use crate::context::Context;
use crate::failure::Failure;
use crate::{output, unfinished, volumes};

pub(crate) fn run(context: &Context, options: &Repair) -> Result<(), Failure> {
    let Some(found) = Volumes::find(&options.files)? else {
        for file in &options.files {
            std::fs::metadata(file).map_err(Error::io(format!("read {}", file.display())))?;
        }
        return Err(Failure::usage("there are no volumes to repair")
            .hint("a bundle has volumes if it was packed with --volume-size"));
    };
    let repaired = found.repair(Box::new(|file: &Path| unfinished::begin(file)))?;
    unfinished::finished();
    if context.json {
        return output::json(json!({
            "bundle": found.name(),
            "repaired": volumes::json(&repaired),
        }));
    }
    for volume in &repaired {
        context.talk.say(format!("wrote volume {}", volumes::line(volume)));
    }
    if repaired.is_empty() {
        context.talk.say(format!("{}: every volume is whole", found.name()));
    }
    Ok(())
}
