//! What is converted from: told apart by its first bytes, opened as a store.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use ferry_bundle::{Bundle, MAGIC};
use ferry_cache::BinaryCache;
use ferry_formats::{PathInfo, StorePath};
use ferry_store::Store;
use ferry_store::closure::unreferenced;
use ferry_store::derivation_directory::DerivationDirectory;
use ferry_store::export::{ExportStream, is_export};

use crate::cli::Format;
use crate::context::Context;
use crate::failure::Failure;
use crate::sources::{cache_address, everything, is_cache, open_cache};

/// Something with store objects in it, in a file of its own.
pub(crate) enum Freight {
    Bundle(Box<Bundle>),
    Export(ExportStream),
    Derivations(DerivationDirectory),
    /// With everything in it.
    Cache(Box<BinaryCache>, Vec<PathInfo>),
}

/// Enough of a file to tell what it is.
const START: u64 = 16;

impl Freight {
    /// Opens it; `-` is standard input.
    pub(crate) fn open(
        context: &Context,
        from: &Path,
        format: Option<Format>,
    ) -> Result<Self, Failure> {
        if from == Path::new("-") {
            return Self::from_stdin(context, format);
        }
        let format = match format {
            Some(format) => format,
            None if is_cache(context, &from.to_string_lossy()) => Format::Cache,
            None if from.is_dir() => Format::Drvs,
            None => guess(&start_of(from)?, &from.display().to_string())?,
        };
        Ok(match format {
            Format::Bundle => Self::Bundle(Box::new(Bundle::open(from)?)),
            Format::Export => Self::Export(ExportStream::open(from, &context.store_dir()?)?),
            Format::Drvs => Self::Derivations(derivations(context, from)?),
            Format::Cache => {
                let place = from.to_string_lossy();
                let address = cache_address(context, &place)?;
                let cache = open_cache(context, &place, &address, &context.store_dir()?)?;
                let infos = everything(&cache)?.infos(&cache)?.into_values().collect();
                Self::Cache(Box::new(cache), infos)
            }
        })
    }

    fn from_stdin(context: &Context, format: Option<Format>) -> Result<Self, Failure> {
        let name = "<standard input>";
        let start = read_start(io::stdin(), name)?;
        let format = format.map_or_else(|| guess(&start, name), Ok)?;
        let stream = Cursor::new(start).chain(io::stdin());
        Ok(match format {
            Format::Bundle => Self::Bundle(Box::new(Bundle::from_stream(stream, name)?)),
            Format::Export => {
                let store_dir = context.store_dir()?;
                let scratch = std::env::temp_dir();
                Self::Export(ExportStream::from_stream(stream, name, &store_dir, &scratch)?)
            }
            Format::Drvs | Format::Cache => {
                return Err(Failure::usage("a directory is not on standard input"));
            }
        })
    }

    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Bundle(_) => Format::Bundle,
            Self::Export(_) => Format::Export,
            Self::Derivations(_) => Format::Drvs,
            Self::Cache(..) => Format::Cache,
        }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        match self {
            Self::Bundle(bundle) => bundle.as_ref(),
            Self::Export(stream) => stream,
            Self::Derivations(directory) => directory,
            Self::Cache(cache, _) => cache.as_ref(),
        }
    }

    /// Everything in it.
    pub(crate) fn path_infos(&self) -> &[PathInfo] {
        match self {
            Self::Bundle(bundle) => bundle.path_infos(),
            Self::Export(stream) => stream.path_infos(),
            Self::Derivations(directory) => directory.path_infos(),
            Self::Cache(_, infos) => infos,
        }
    }

    /// What was asked for when it was made; where it does not say, what nothing else in it refers
    /// to.
    pub(crate) fn roots(&self) -> Vec<StorePath> {
        match self {
            Self::Bundle(bundle) => bundle.manifest().root_paths(),
            _ => unreferenced(self.path_infos()),
        }
    }

    /// What of `roots` it holds, as a set that `ferry pack` knows.
    pub(crate) fn set(&self, roots: &[StorePath]) -> String {
        if let Self::Bundle(bundle) = self {
            return bundle.manifest().set.clone();
        }
        // With everything that they refer to, these are what those sets hold.
        let set = if roots.iter().all(StorePath::is_derivation) {
            "recipe"
        } else if !self.path_infos().iter().any(|info| info.path.is_derivation()) {
            "runtime"
        } else {
            "closure(run, x)"
        };
        set.to_owned()
    }
}

fn derivations(context: &Context, from: &Path) -> Result<DerivationDirectory, Failure> {
    let found = DerivationDirectory::open(from, &context.store_dir()?)?;
    if found.path_infos().is_empty() {
        return Err(Failure::new(format!("there is no `.drv` file in {}", from.display())).hint(
            "what is in a store is taken out of it by `ferry copy --from` or `ferry pack --store`; \
             for a binary cache without a `nix-cache-info` say --from cache",
        ));
    }
    Ok(found)
}

fn start_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed =
        |error: io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
    read_start(File::open(path).map_err(failed)?, &path.display().to_string())
}

fn read_start(stream: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut start = Vec::new();
    let read = stream.take(START).read_to_end(&mut start);
    read.map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
    Ok(start)
}

/// Whether a file begins as a bundle does, or a volume of one, even where the line end behind it
/// has suffered.
pub(crate) fn begins_like_bundle(start: &[u8]) -> bool {
    start.starts_with(MAGIC.get(..6).unwrap_or_default())
}

fn guess(start: &[u8], name: &str) -> Result<Format, Failure> {
    if begins_like_bundle(start) {
        Ok(Format::Bundle)
    } else if is_export(start) {
        Ok(Format::Export)
    } else {
        Err(Failure::new(format!("{name} is neither a bundle nor an export stream")))
    }
}
