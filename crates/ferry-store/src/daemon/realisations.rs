//! Which path an output got, asked of a daemon and told to one.
//!
//! Daemons up to Nix 2.34 are asked about `sha256:HASH!OUTPUT`, and answer with what a binary cache
//! has of it, as JSON. They have to have `ca-derivations` among their experimental features. Those
//! from Nix 2.35 on want another form, which is agreed on in the greeting, and is not spoken here.

use ferry_formats::StorePath;
use ferry_formats::build_trace::{DrvKey, DrvOutput, Realisation};

use super::DaemonStore;
use super::connection::Operation;
use super::wire::read_strings;
use crate::realisations::{NotTaken, can_float, candidates, dependencies_first, follow};
use crate::{Error, Result, Store as _, Wanted};

/// Those of which the output is among `paths`.
pub(super) fn of_paths(store: &DaemonStore, paths: &Wanted) -> Result<Vec<Realisation>> {
    let infos = paths.known_infos(store)?;
    if !infos.values().any(can_float) {
        return Ok(Vec::new());
    }
    // The derivation on record is the one that was built in the end, with no outputs of
    // derivations among its inputs. That of which it was made is somewhere.
    let all = store.all_paths()?.unwrap_or_default();
    let ids = candidates(store, &infos, &mut all.iter())?;
    let found =
        follow(ids, paths, |ids| ids.iter().map(|id| query(store, id)).collect::<Result<Vec<_>>>());
    found.or_else(|error| knows_none(store, &error).map(|()| Vec::new()))
}

/// The paths that outputs got, each of which may be filed under several things.
pub(super) fn paths_of(
    store: &DaemonStore,
    outputs: &[Vec<DrvOutput>],
) -> Result<Vec<Option<StorePath>>> {
    let path = |keys: &Vec<DrvOutput>| {
        for key in keys {
            if let Some(found) = query(store, key)? {
                return Ok(Some(found.path));
            }
        }
        Ok(None)
    };
    let found: Result<Vec<_>> = outputs.iter().map(path).collect();
    found.or_else(|error| knows_none(store, &error).map(|()| vec![None; outputs.len()]))
}

/// Without `ca-derivations` some daemons say nothing when they are asked, and hang up; and then they
/// know of no such thing. Those that cannot be reached are another matter.
fn knows_none(store: &DaemonStore, error: &Error) -> Result<()> {
    tracing::debug!(%error, "a daemon knows of no realisations");
    store.hello().map(drop)
}

/// What a daemon knows of an output.
fn query(store: &DaemonStore, id: &DrvOutput) -> Result<Option<Realisation>> {
    let DrvKey::Hash(_) = id.derivation else { return Ok(None) };
    store.with(|connection| {
        connection.request(Operation::QueryRealisation, &[&id.to_string()])?;
        let answer = connection.talk(|connection| read_strings(&mut connection.reader))?;
        let parse = |text: &String| {
            Realisation::parse(id, text.as_bytes())
                .map_err(|error| connection.protocol(format!("{id}: {error}")))
        };
        answer.first().map(parse).transpose()
    })
}

/// Tells a daemon. It checks no signatures of what it is told.
pub(super) fn add(store: &DaemonStore, offered: &[Realisation]) -> NotTaken {
    let mut not_taken = NotTaken::default();
    let mut is_hopeless = false;
    let mut count = 0_usize;
    for realisation in dependencies_first(offered) {
        let id = &realisation.id;
        let told = match id.derivation {
            DrvKey::Path(_) => Err("it is filed as Nix from 2.35 on does".to_owned()),
            DrvKey::Hash(_) if is_hopeless => Err(String::new()),
            DrvKey::Hash(_) => store
                .with(|connection| {
                    connection.request(Operation::RegisterDrvOutput, &[&realisation.render()])
                })
                .map_err(|error| error.to_string()),
        };
        let Err(reason) = told else {
            count += 1;
            continue;
        };
        let there = match is_hopeless {
            true => None,
            false => query(store, id).ok().flatten(),
        };
        if there.is_some_and(|there| there.path != realisation.path) {
            not_taken.other.push(id.clone());
            continue;
        }
        // Who takes not one is not asked a thousand times.
        is_hopeless |= count == 0 && matches!(id.derivation, DrvKey::Hash(_));
        not_taken.untold.push(id.clone());
        not_taken.reason.get_or_insert(reason);
    }
    not_taken
}
