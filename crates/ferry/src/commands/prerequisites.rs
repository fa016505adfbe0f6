//! What a thin bundle leaves to the store that receives it.

use ferry_bundle::Bundle;
use ferry_store::{Destination, Store as _};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Makes sure that a store has everything that a bundle leaves to it, and names what it lacks.
pub(super) fn require(
    context: &Context,
    bundle: &Bundle,
    destination: &dyn Destination,
) -> Result<(), Failure> {
    let missing = bundle.missing_prerequisites(destination)?;
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> =
        missing.iter().map(|path| bundle.store_dir().render_path(path)).collect();
    if context.json {
        output::json(json!({ "bundle": bundle.name(), "missingPrerequisites": missing }))?;
    }
    let failure = Failure::new(format!(
        "{} was packed for a store that has {} more than {} has:",
        bundle.describe(),
        output::paths(missing.len() as u64),
        destination.describe(),
    ));
    Err(failure.list(missing).hint(
        "load the bundle that holds them first, or pack without --have (or with a list of what \
         this store really has)",
    ))
}
