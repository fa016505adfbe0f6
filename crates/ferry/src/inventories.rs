//! Inventories of other stores, from files of several kinds.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use ferry_bundle::{Bundle, Volumes};
use ferry_formats::StoreDir;
use ferry_store::Error;
use ferry_store::inventory::Inventory;

use crate::failure::Failure;

/// Reads what a file says is there: an inventory of either kind, or a bundle, for what it holds;
/// `-` is an inventory on standard input.
pub(crate) fn open(file: &Path, store_dir: &StoreDir) -> Result<Inventory, Failure> {
    if file == Path::new("-") {
        return Ok(Inventory::read("<standard input>", io::stdin().lock(), store_dir)?);
    }
    if is_bundle(file)? {
        let bundle = Bundle::open(file)?;
        return Ok(Inventory::of(bundle.path_infos().iter().map(|info| info.path.clone())));
    }
    let name = file.display().to_string();
    let input = File::open(file).map_err(Error::io(format!("read {name}")))?;
    Ok(Inventory::read(&name, BufReader::new(input), store_dir)?)
}

/// Whether a file begins as a bundle or a volume does.
fn is_bundle(file: &Path) -> Result<bool, Failure> {
    if Volumes::find(&[file.to_owned()])?.is_some() {
        return Ok(true);
    }
    let name = file.display();
    let mut start = Vec::new();
    File::open(file)
        .and_then(|file| file.take(ferry_bundle::MAGIC.len() as u64).read_to_end(&mut start))
        .map_err(Error::io(format!("read {name}")))?;
    Ok(start == ferry_bundle::MAGIC)
}
