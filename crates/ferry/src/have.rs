//! What the other side has, by the word of a list, a bundle or a store.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};

use ferry_bundle::{Bundle, MAGIC};
use ferry_formats::{StoreDir, StorePath};
use ferry_store::{Error, Store, inventory};

use crate::context::Context;
use crate::failure::Failure;
use crate::sources::OpenSource;

/// Those of `wanted` that are in one of `places`: files as [`listed`] reads them, or stores.
pub(crate) fn there(
    context: &Context,
    places: &[String],
    store_dir: &StoreDir,
    wanted: &[StorePath],
) -> Result<HashSet<StorePath>, Failure> {
    let mut found = HashSet::new();
    for place in places {
        if is_file(context, place) {
            found.extend(listed(context, place, store_dir, None)?);
            continue;
        }
        let opened = OpenSource::open(context, place)?;
        let store = opened.store().ok_or_else(|| {
            Failure::usage(format!("--have {place}: what a binary cache has, no store has yet"))
                .hint("give a list of what the other side has, or its store")
        })?;
        require_directory(place, store.store_dir(), store_dir)?;
        let infos = store.path_infos(wanted)?;
        let present = wanted.iter().zip(infos).filter(|(_, info)| info.is_some());
        found.extend(present.map(|(path, _)| path.clone()));
    }
    Ok(found)
}

/// Whether a place is a file, and no store.
pub(crate) fn is_file(context: &Context, place: &str) -> bool {
    let file = context.surroundings.working_directory.join(place);
    // A directory is a chroot store. Anything else that is there can be read: a pipe, too.
    place == "-" || file.exists() && !file.is_dir()
}

/// The paths that an inventory lists, or that whoever has loaded a bundle has; `-` is standard
/// input.
pub(crate) fn listed(
    context: &Context,
    name: &str,
    store_dir: &StoreDir,
    store: Option<&dyn Store>,
) -> Result<Vec<StorePath>, Failure> {
    let mut input: Box<dyn Read + Send> = match name {
        "-" => Box::new(std::io::stdin()),
        _ => {
            let file = context.surroundings.working_directory.join(name);
            Box::new(File::open(file).map_err(Error::io(format!("read {name}")))?)
        }
    };
    // Read once: it may be a pipe.
    let mut start = Vec::new();
    let length = MAGIC.len() as u64;
    input
        .by_ref()
        .take(length)
        .read_to_end(&mut start)
        .map_err(Error::io(format!("read {name}")))?;
    let is_bundle = start == MAGIC;
    let input = std::io::Cursor::new(start).chain(input);
    if !is_bundle {
        return Ok(inventory::read(name, BufReader::new(input), store_dir)?);
    }
    let bundle = Bundle::from_stream_against(input, name, store)?;
    require_directory(name, bundle.store_dir(), store_dir)?;
    let carried = bundle.path_infos().iter().map(|info| &info.path);
    let before = bundle.prerequisites().iter().map(|one| &one.path);
    Ok(carried.chain(before).cloned().collect())
}

pub(crate) fn require_directory(
    name: &str,
    found: &StoreDir,
    wanted: &StoreDir,
) -> Result<(), Failure> {
    if found == wanted {
        return Ok(());
    }
    Err(Failure::usage(format!("{name} has paths in {found}, and what is wanted is in {wanted}")))
}
