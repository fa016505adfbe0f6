//! Installables: the ways to name what is to be carried.
//!
//! A store path, a path below one, or a link that leads to one; a derivation, `x.drv`; its
//! outputs, `x.drv^out,dev` or `x.drv^*`; the outputs of a derivation that is an output itself,
//! `x.drv^out^*`. Anything else (`FLAKE#attr`) has to be evaluated, and only Nix can do that.

use std::path::{Component, Path, PathBuf};

use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Explorer, NodeId};

use crate::{Error, Result};

/// Which outputs of a derivation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// The one called `out`, or all where none is: what Nix means where none is named.
    Default,
    /// All of them: `^*`.
    All,
    /// These: `^out,dev`.
    Named(Vec<String>),
}

/// An installable that names something in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installable {
    /// A store path itself; for a derivation, the `.drv` file.
    Path(StorePath),
    /// Outputs of a derivation.
    Outputs {
        /// The derivation.
        derivation: StorePath,
        /// Where the derivation meant is itself an output: which one, of which one, and so on.
        through: Vec<String>,
        /// Which outputs.
        outputs: Outputs,
    },
}

impl Installable {
    /// Outputs of a derivation that is in the store as it is.
    #[must_use]
    pub fn outputs(derivation: StorePath, outputs: Outputs) -> Self {
        Self::Outputs { derivation, through: Vec::new(), outputs }
    }

    /// The store path that it is about: of outputs, their derivation.
    #[must_use]
    pub fn path(&self) -> &StorePath {
        match self {
            Self::Path(path) | Self::Outputs { derivation: path, .. } => path,
        }
    }

    /// The nodes that it stands for, in the order in which they are named. The derivation it names is one that is meant wherever a
    /// path has several derivers.
    ///
    /// # Errors
    /// When there is no such output, and when a source of facts could not look.
    pub fn nodes(&self, explorer: &mut Explorer<'_>) -> Result<Vec<NodeId>> {
        let (derivation, through, outputs) = match self {
            Self::Path(path) => {
                let node = explorer.node(path);
                explorer.name(node);
                return Ok(vec![node]);
            }
            Self::Outputs { derivation, through, outputs } => (derivation, through, outputs),
        };
        let mut derivation = explorer.node(derivation);
        explorer.name(derivation);
        for name in through {
            derivation = explorer.output(derivation, name)?;
        }
        let names: Vec<String> = match outputs {
            Outputs::Named(names) => names.clone(),
            Outputs::Default | Outputs::All => {
                let known = explorer.named_outputs(derivation)?.unwrap_or_default();
                let mut names: Vec<String> = known.into_iter().map(|(name, _)| name).collect();
                if *outputs == Outputs::Default && names.iter().any(|name| name == "out") {
                    names.retain(|name| name == "out");
                }
                names
            }
        };
        let outputs = names.iter().map(|name| explorer.output(derivation, name));
        Ok(outputs.collect::<std::result::Result<_, _>>()?)
    }
}

/// What an argument turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Something in a store.
    Installable(Installable),
    /// Something that Nix has to evaluate first.
    NeedsEvaluation,
}

/// Follows at most this many links, as the kernel does.
const MAX_LINKS: usize = 40;

/// Reads an argument. `working_directory` is where relative paths start.
///
/// # Errors
/// [`Error::BadInstallable`] when it names a path that is not in the store.
pub fn parse(text: &str, store_dir: &StoreDir, working_directory: &Path) -> Result<Parsed> {
    let bad = |reason: String| Error::BadInstallable { installable: text.to_owned(), reason };
    // `!` is how Nix wrote `^` before 2.13, and how nix-instantiate still prints it.
    let (text, outputs) = match text.rsplit_once(['^', '!']) {
        Some((text, outputs)) => (text, Some(parse_outputs(outputs).map_err(bad)?)),
        None => (text, None),
    };
    let mut parts = text.split(['^', '!']);
    let place = parts.next().unwrap_or_default();
    let through: Vec<String> = parts.map(str::to_owned).collect();
    if through.iter().any(|name| name.is_empty() || name.contains(',') || name == "*") {
        return Err(bad("only the last outputs may be several".to_owned()));
    }
    let looks_like_a_path =
        (place.starts_with(['/', '.']) || place.ends_with(".drv")) && !place.contains('#');
    let path = if let Ok(path) = StorePath::from_basename(place.as_bytes()) {
        path
    } else if looks_like_a_path || working_directory.join(place).is_symlink() {
        resolve(&working_directory.join(place), store_dir).map_err(bad)?
    } else {
        // `result/bin` is one too, and `nixpkgs/nixos-25.11` a flake.
        match resolve(&working_directory.join(place), store_dir) {
            Ok(path) if place.contains('/') => path,
            _ => return Ok(Parsed::NeedsEvaluation),
        }
    };
    let installable = match outputs {
        None => Installable::Path(path),
        Some(outputs) if path.is_derivation() => {
            Installable::Outputs { derivation: path, through, outputs }
        }
        Some(_) => return Err(bad("only a derivation (`….drv`) has outputs".to_owned())),
    };
    Ok(Parsed::Installable(installable))
}

fn parse_outputs(text: &str) -> std::result::Result<Outputs, String> {
    if text == "*" {
        return Ok(Outputs::All);
    }
    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| name.is_empty()) {
        None => Ok(Outputs::Named(names)),
        Some(_) => Err("outputs are written `^*` or `^NAME,NAME`".to_owned()),
    }
}

/// The store path that a file name leads to: itself, the one it is in, or the one that links
/// lead to.
fn resolve(path: &Path, store_dir: &StoreDir) -> std::result::Result<StorePath, String> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        if let Some(found) = in_store(&path, store_dir) {
            return found.map_err(|source| source.to_string());
        }
        match first_link(&path)? {
            Some(target) => path = target,
            None => return Err(format!("{} is not in {store_dir}", path.display())),
        }
    }
    Err("too many symbolic links".to_owned())
}

fn in_store(
    path: &Path,
    store_dir: &StoreDir,
) -> Option<std::result::Result<StorePath, ferry_formats::StorePathError>> {
    let Some(Component::Normal(name)) =
        path.strip_prefix(store_dir.as_str()).ok()?.components().next()
    else {
        return None;
    };
    Some(StorePath::from_basename(name.as_encoded_bytes()))
}

/// Replaces the first link on the way to `path` by what it points to.
fn first_link(path: &Path) -> std::result::Result<Option<PathBuf>, String> {
    let mut walked = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        match component {
            Component::ParentDir => {
                walked.pop();
                continue;
            }
            Component::CurDir => continue,
            component => walked.push(component),
        }
        let metadata =
            walked.symlink_metadata().map_err(|error| format!("{}: {error}", walked.display()))?;
        if metadata.is_symlink() {
            let target =
                walked.read_link().map_err(|error| format!("{}: {error}", walked.display()))?;
            walked.pop();
            return Ok(Some(walked.join(target).join(components.as_path())));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const BASE: &str = "00000000000000000000000000000000-x";

    fn path(name: &str) -> StorePath {
        StorePath::from_basename(name.as_bytes()).unwrap()
    }

    fn parsed(text: &str) -> Result<Parsed> {
        parse(text, &StoreDir::default(), Path::new("/"))
    }

    #[test]
    fn outputs_are_named_behind_a_caret() {
        let drv = format!("{BASE}.drv");
        let expect = |outputs| Parsed::Installable(Installable::outputs(path(&drv), outputs));
        assert_eq!(parsed(&format!("/nix/store/{drv}^*")).unwrap(), expect(Outputs::All));
        let named = Outputs::Named(vec!["out".into(), "dev".into()]);
        assert_eq!(parsed(&format!("{drv}^out,dev")).unwrap(), expect(named));
        let dynamic = Parsed::Installable(Installable::Outputs {
            derivation: path(&drv),
            through: vec!["out".into()],
            outputs: Outputs::All,
        });
        assert_eq!(parsed(&format!("/nix/store/{drv}^out^*")).unwrap(), dynamic);
        assert!(parsed(&format!("/nix/store/{drv}^out,dev^*")).is_err());
        assert!(parsed(&format!("/nix/store/{BASE}^out")).is_err());
        assert!(parsed(&format!("/nix/store/{drv}^")).is_err());
    }

    #[test]
    fn a_path_below_a_store_path_and_a_chain_of_links_lead_to_it() {
        let expect = Parsed::Installable(Installable::Path(path(BASE)));
        assert_eq!(parsed(&format!("/nix/store/{BASE}/bin/x")).unwrap(), expect);

        let directory = tempfile::tempdir().unwrap();
        symlink(format!("/nix/store/{BASE}"), directory.path().join("result")).unwrap();
        symlink("result", directory.path().join("again")).unwrap();
        symlink(directory.path(), directory.path().join("loop")).unwrap();
        let at = |text: &str| parse(text, &StoreDir::default(), directory.path());
        assert_eq!(at("./result").unwrap(), expect);
        assert_eq!(at("result").unwrap(), expect);
        assert_eq!(at("result/bin/x").unwrap(), expect);
        assert_eq!(at("./loop/again").unwrap(), expect);
        assert!(at("./loop").is_err());
    }

    #[test]
    fn a_flake_reference_is_left_to_nix() {
        assert_eq!(parsed("nixpkgs#hello").unwrap(), Parsed::NeedsEvaluation);
        assert_eq!(parsed(".#hello").unwrap(), Parsed::NeedsEvaluation);
    }
}
