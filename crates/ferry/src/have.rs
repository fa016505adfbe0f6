//! What the other side has, by the word of an inventory, a bundle or a store.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use ferry_bundle::{Bundle, MAGIC, Volumes};
use ferry_cache::{Compression, PathList};
use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::inventory::{Claims, Inventory};
use ferry_store::{Error, Store};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::sources::OpenSource;

/// Those of `wanted` that are in one of `places`: files as [`inventory`] reads them, or stores.
/// What is wanted is in `from`.
pub(crate) fn there(
    context: &Context,
    places: &[String],
    from: &dyn Store,
    wanted: &BTreeMap<StorePath, PathInfo>,
) -> Result<HashSet<StorePath>, Failure> {
    let store_dir = from.store_dir();
    let mut found = HashSet::new();
    for place in places {
        if is_file(context, place) {
            let inventory = inventory(context, place, store_dir, Some(from))?;
            found.extend(claimed(context, place, &inventory, wanted.values()));
            continue;
        }
        let opened = OpenSource::open(context, place)?;
        let store = opened.store().ok_or_else(|| {
            Failure::usage(format!("--have {place}: what a binary cache has, no store has yet"))
                .hint("give an inventory of what the other side has, or its store")
        })?;
        require_directory(place, store.store_dir(), store_dir)?;
        let paths: Vec<StorePath> = wanted.keys().cloned().collect();
        let infos = store.path_infos(&paths)?;
        let present = paths.into_iter().zip(infos).filter(|(_, info)| info.is_some());
        found.extend(present.map(|(path, _)| path));
    }
    Ok(found)
}

/// Those of `candidates` that an inventory says are there; tells how certain that is.
pub(crate) fn claimed<'a>(
    context: &Context,
    name: &str,
    inventory: &Inventory,
    candidates: impl IntoIterator<Item = &'a PathInfo>,
) -> impl Iterator<Item = StorePath> {
    let claims = inventory.claimed(candidates);
    tell_doubt(context, name, &claims, " (loading would name it)");
    claims.paths.into_iter()
}

/// Tells how certain an answer is for which an inventory was asked about each path by itself, and
/// had not so many of them.
pub(crate) fn tell_certainty(context: &Context, name: &str, inventory: &Inventory, absent: u64) {
    let claims = Claims { frontier: absent, bits: inventory.bits(), ..Claims::default() };
    tell_doubt(context, name, &claims, "");
}

fn tell_doubt(context: &Context, name: &str, claims: &Claims, remedy: &str) {
    let Claims { frontier, bits, .. } = claims;
    if bits.is_some() && *frontier > 0 {
        context.talk.say(format!(
            "{name}: {} could be taken for being there by mistake, with a chance of {:.1e} that \
             one is{remedy}",
            output::paths(*frontier),
            claims.chance_of_error(),
        ));
    }
}

/// Whether a place is a file, and no store.
pub(crate) fn is_file(context: &Context, place: &str) -> bool {
    let file = context.surroundings.working_directory.join(place);
    // A directory is a chroot store. Anything else that is there can be read: a pipe, too.
    place == "-" || file.exists() && !file.is_dir()
}

/// Reads what a file says is there: an inventory of either kind, or a bundle or its volumes, for
/// what whoever has loaded it has; `-` is standard input. If the derivations of the bundle are
/// coded against others, these are read from `store`. A list may be compressed, if it is called so.
pub(crate) fn inventory(
    context: &Context,
    name: &str,
    store_dir: &StoreDir,
    store: Option<&dyn Store>,
) -> Result<Inventory, Failure> {
    let file = context.surroundings.working_directory.join(name);
    let in_volumes = |file: &Path| Ok::<_, Failure>(Volumes::find(&[file.to_owned()])?.is_some());
    if file.is_file() && in_volumes(&file)? {
        return of_bundle(name, &Bundle::open_against(&file, store)?, store_dir);
    }
    let mut input: Box<dyn Read + Send> = match name {
        "-" => Box::new(std::io::stdin()),
        _ => Box::new(File::open(file).map_err(Error::io(format!("read {name}")))?),
    };
    if Compression::of_file(name) != Compression::None {
        let text = PathList::text(name, input)?;
        return Ok(Inventory::read(name, text.as_slice(), store_dir)?);
    }
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
    if is_bundle {
        return of_bundle(name, &Bundle::from_stream_against(input, name, store)?, store_dir);
    }
    Ok(Inventory::read(name, BufReader::new(input), store_dir)?)
}

fn of_bundle(name: &str, bundle: &Bundle, store_dir: &StoreDir) -> Result<Inventory, Failure> {
    require_directory(name, bundle.store_dir(), store_dir)?;
    let carried = bundle.path_infos().iter().map(|info| &info.path);
    let before = bundle.prerequisites().iter().map(|one| &one.path);
    Ok(Inventory::of(carried.chain(before).cloned()))
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
