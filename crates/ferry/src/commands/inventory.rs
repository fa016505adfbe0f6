//! `ferry inventory`: what a store has, for the other side to know.

use std::path::Path;

use ferry_store::{Error, inventory};
use serde_json::json;

use crate::cli::Inventory;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::sink::Sink;
use crate::sources::OpenSource;

pub(crate) fn run(context: &Context, options: &Inventory) -> Result<(), Failure> {
    let sink =
        Sink::new(&options.output, "an inventory")?.apart_from([Path::new(&options.store)])?;
    if context.json && matches!(sink, Sink::StandardOutput) {
        return Err(Failure::usage("--json needs standard output, which the inventory goes to"));
    }
    let opened = OpenSource::open(context, &options.store)?;
    let store = opened.any_store();
    let paths = store
        .all_paths()?
        .ok_or_else(|| Failure::new(format!("{} cannot list its paths", store.describe())))?;
    let (count, written) = sink.write(|mut sink| {
        inventory::write(&mut sink, &paths, store.store_dir())?;
        Ok::<_, Error>(paths.len() as u64)
    })?;
    let size = written.size();
    let target = match options.output.to_str() {
        Some("-") => "standard output".to_owned(),
        _ => options.output.display().to_string(),
    };
    let of_size = size.map(|size| format!(" ({})", output::size(size))).unwrap_or_default();
    context.talk.say(format!(
        "wrote that {} has {} into {target}{of_size}",
        store.describe(),
        output::paths(count),
    ));
    if context.json {
        output::json(json!({
            "inventory": options.output,
            "inventorySize": size,
            "storeDir": store.store_dir().to_string(),
            "paths": count,
            "certaintyBits": inventory::BITS,
        }))?;
    }
    Ok(())
}
