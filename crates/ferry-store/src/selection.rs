//! From what was named to the paths that are carried.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ferry_formats::{PathInfo, StorePath, derivation};

use crate::closure::closure;
use crate::installable::{Installable, Outputs};
use crate::{Error, Result, Store};

/// A named set: what of a thing is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedSet {
    /// Every derivation of the build graph and every input source: enough to build it where
    /// fixed outputs can be had.
    Recipe,
    /// The closure of the outputs: enough to run it.
    Runtime,
}

impl fmt::Display for NamedSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Recipe => "recipe",
            Self::Runtime => "runtime",
        })
    }
}

impl FromStr for NamedSet {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "recipe" => Ok(Self::Recipe),
            "runtime" => Ok(Self::Runtime),
            other => Err(format!("`{other}` is not a set; there are `recipe` and `runtime`")),
        }
    }
}

/// What is to be carried: the roots, and everything they need.
#[derive(Clone, Debug)]
pub struct Selection {
    /// What the user named, as store paths, in the order given, each once.
    pub roots: Vec<StorePath>,
    /// The roots and everything that comes with them.
    pub infos: BTreeMap<StorePath, PathInfo>,
}

/// Finds what `named` means under `set`; `also` names what comes along with its run closure
/// whatever the set.
///
/// # Errors
/// When something named is not in the store, is not built, or has no known deriver.
pub fn select(
    store: &dyn Store,
    set: NamedSet,
    named: &[Installable],
    also: &[Installable],
) -> Result<Selection> {
    let mut roots = Vec::new();
    for installable in named {
        roots.extend(match set {
            NamedSet::Recipe => vec![recipe_root(store, installable)?],
            NamedSet::Runtime => runtime_roots(store, installable)?,
        });
    }
    for installable in also {
        roots.extend(match installable {
            Installable::Path(path) => vec![path.clone()],
            Installable::Outputs(..) => runtime_roots(store, installable)?,
        });
    }
    let mut seen = std::collections::HashSet::new();
    roots.retain(|root| seen.insert(root.clone()));
    let infos = closure(store, &roots)?;
    Ok(Selection { roots, infos })
}

/// The derivation whose closure is the recipe.
fn recipe_root(store: &dyn Store, installable: &Installable) -> Result<StorePath> {
    let path = match installable {
        Installable::Outputs(derivation, _) => return Ok(derivation.clone()),
        Installable::Path(path) if path.is_derivation() => return Ok(path.clone()),
        Installable::Path(path) => path,
    };
    let info = store.require(path)?;
    if let Some(deriver) = info.deriver
        && store.path_info(&deriver)?.is_some()
    {
        return Ok(deriver);
    }
    let derivers = store.derivers(path)?;
    derivers.into_iter().next().ok_or_else(|| Error::NoDeriver {
        path: store.store_dir().render_path(path),
        store: store.describe(),
    })
}

/// The paths whose closure is the runtime. A derivation stands for all of its outputs.
fn runtime_roots(store: &dyn Store, installable: &Installable) -> Result<Vec<StorePath>> {
    let (drv, wanted) = match installable {
        Installable::Path(path) if path.is_derivation() => (path, &Outputs::All),
        Installable::Path(path) => return Ok(vec![path.clone()]),
        Installable::Outputs(drv, wanted) => (drv, wanted),
    };
    let store_dir = store.store_dir();
    let text = store.derivation_text(drv)?;
    let parsed = derivation::parse(store_dir, drv, &text)?;
    let outputs: BTreeMap<String, Option<StorePath>> =
        derivation::outputs(&parsed)?.into_iter().collect();
    let out = "out".to_owned();
    let names: Vec<&String> = match wanted {
        Outputs::Default if outputs.contains_key(&out) => vec![&out],
        Outputs::Default | Outputs::All => outputs.keys().collect(),
        Outputs::Named(names) => names.iter().collect(),
    };
    let bad = |name: &str, reason: String| Error::BadInstallable {
        installable: format!("{}^{name}", store_dir.render_path(drv)),
        reason,
    };
    names
        .into_iter()
        .map(|name| match outputs.get(name) {
            None => {
                let there: Vec<&str> = outputs.keys().map(String::as_str).collect();
                Err(bad(name, format!("its outputs are: {}", there.join(", "))))
            }
            Some(None) => Err(bad(
                name,
                "its path is not known before it is built; name the path instead".to_owned(),
            )),
            Some(Some(path)) if store.path_info(path)?.is_none() => Err(Error::NotBuilt {
                derivation: store_dir.render_path(drv),
                output: name.clone(),
                path: store_dir.render_path(path),
                store: store.describe(),
            }),
            Some(Some(path)) => Ok(path.clone()),
        })
        .collect()
}
