//! A directory with `.drv` files in it, named as they are in a store, and nothing said about them:
//! a derivation's path and references follow from its text.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use ferry_formats::derivation::{self, Derivation, DerivationError, OutputPaths};
use ferry_formats::{ContentAddress, NarHash, PathInfo, StoreDir, StorePath, nar};
use sha2::{Digest as _, Sha256};

use crate::admission::{MAX_DERIVATION_NAR, read_single_file};
use crate::closure::references_first;
use crate::progress::Progress;
use crate::store::NarVisitor;
use crate::{Error, Result, Store};

/// The derivations in a directory.
pub struct DerivationDirectory {
    directory: PathBuf,
    store_dir: StoreDir,
    /// References before their referrers.
    infos: Vec<PathInfo>,
    places: HashMap<StorePath, usize>,
    derivers: HashMap<StorePath, Vec<StorePath>>,
}

impl DerivationDirectory {
    /// Reads all `.drv` files in it; what else is in it is not looked at.
    ///
    /// # Errors
    /// When one of them cannot be read, is not a derivation, or is not what its name says.
    pub fn open(directory: &Path, store_dir: &StoreDir) -> Result<Self> {
        let reading = || Error::io(format!("read {}", directory.display()));
        let mut infos = Vec::new();
        let mut derivers: HashMap<StorePath, Vec<StorePath>> = HashMap::new();
        for entry in fs::read_dir(directory).map_err(reading())? {
            let name = entry.map_err(reading())?.file_name();
            if !name.as_encoded_bytes().ends_with(b".drv") {
                continue;
            }
            let path = StorePath::from_basename(name.as_encoded_bytes()).map_err(|error| {
                let path = directory.join(&name).display().to_string();
                DerivationError::Parse { path, reason: error.to_string() }
            })?;
            let text = read_text(directory, &path)?;
            let parsed = derivation::parse(store_dir, &path, &text)?;
            for output in derivation::outputs(&parsed)?.into_iter().filter_map(|(_, path)| path) {
                derivers.entry(output).or_default().push(path.clone());
            }
            infos.push(describe(store_dir, path, &parsed, &text)?);
        }
        derivers.values_mut().for_each(|derivers| derivers.sort());
        let infos = references_first(store_dir, infos)?;
        let places =
            infos.iter().zip(0..).map(|(info, place)| (info.path.clone(), place)).collect();
        let (directory, store_dir) = (directory.to_owned(), store_dir.clone());
        Ok(Self { directory, store_dir, infos, places, derivers })
    }

    /// Everything in it, references before their referrers.
    #[must_use]
    pub fn path_infos(&self) -> &[PathInfo] {
        &self.infos
    }
}

fn read_text(directory: &Path, path: &StorePath) -> Result<Vec<u8>> {
    let file = directory.join(path.to_basename());
    let mut text = Vec::new();
    File::open(&file)
        .and_then(|file| file.take(MAX_DERIVATION_NAR).read_to_end(&mut text))
        .map_err(Error::io(format!("read {}", file.display())))?;
    Ok(text)
}

/// What a store records for a derivation.
fn describe(
    store_dir: &StoreDir,
    path: StorePath,
    derivation: &Derivation,
    text: &[u8],
) -> Result<PathInfo> {
    let inputs = derivation.input_derivations().keys().chain(derivation.input_sources());
    let mut references: Vec<StorePath> = inputs.cloned().collect();
    references.sort();
    references.dedup();
    let ca = ContentAddress::Text(Sha256::digest(text).into());
    let right = store_dir.build_ca_path(path.name(), &ca, &references, false);
    if right.as_ref().ok() != Some(&path) {
        let right = right.map_or_else(|error| error.to_string(), |it| store_dir.render_path(&it));
        return Err(DerivationError::Invalid {
            path: store_dir.render_path(&path),
            reason: format!("its contents give {right}"),
        }
        .into());
    }
    let nar = nar::of_file(text);
    Ok(PathInfo {
        path,
        nar_hash: NarHash::of(&nar),
        nar_size: nar.len() as u64,
        references: references.into(),
        deriver: None,
        ca: Some(ca),
        signatures: Vec::new(),
    })
}

impl Store for DerivationDirectory {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn describe(&self) -> String {
        format!("directory {}", self.directory.display())
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        Ok(self.places.get(path).and_then(|place| self.infos.get(*place)).cloned())
    }

    fn all_paths(&self) -> Result<Option<Vec<StorePath>>> {
        Ok(Some(self.infos.iter().map(|info| info.path.clone()).collect()))
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        Ok(self.derivers.get(path).cloned().unwrap_or_default())
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        for info in wanted {
            self.require(&info.path)?;
            let nar = nar::of_file(&read_text(&self.directory, &info.path)?);
            visit(info, &mut nar.as_slice())?;
        }
        Ok(())
    }
}

/// Writes those of `infos` that are derivations into a directory, made if there is none, and says
/// how many they were and how large. What they refer to may be anywhere, so this is no copy:
/// nothing becomes valid by standing there. What is checked is what a copy would check.
///
/// Files are written beside their place and moved there; one that is there already has to be the
/// same.
///
/// # Errors
/// When a derivation is not what its path says, states output paths that are not its own, reads an
/// input derivation that is not among `infos`, or cannot be written.
pub fn write_derivations(
    source: &dyn Store,
    infos: &[PathInfo],
    directory: &Path,
    progress: &dyn Progress,
) -> Result<(usize, u64)> {
    let store_dir = source.store_dir();
    let derivations = infos.iter().filter(|info| info.path.is_derivation()).cloned();
    let derivations = references_first(store_dir, derivations)?;
    let size = derivations.iter().fold(0, |sum: u64, info| sum.saturating_add(info.nar_size));
    fs::create_dir_all(directory).map_err(Error::io(format!("make {}", directory.display())))?;
    let mut outputs = OutputPaths::default();
    progress.begin("writing", derivations.len() as u64, size);
    let written = source.read_nars(&derivations, &mut |info, nar| {
        let text = read_single_file(store_dir, info, nar)?;
        let parsed = derivation::parse(store_dir, &info.path, &text)?;
        describe(store_dir, info.path.clone(), &parsed, &text)?;
        outputs.check(&info.path, &parsed, &mut |_| Err("it is not among them".to_owned()))?;
        write_file(directory, &info.path, &text)?;
        progress.bytes(info.nar_size);
        progress.path(&info.path);
        Ok(())
    });
    progress.end();
    written?;
    let flushing = || Error::io(format!("flush {} to disk", directory.display()));
    let handle = File::open(directory).map_err(flushing())?;
    rustix::fs::syncfs(handle).map_err(|error| flushing()(error.into()))?;
    Ok((derivations.len(), size))
}

fn write_file(directory: &Path, path: &StorePath, text: &[u8]) -> Result<()> {
    let file = directory.join(path.to_basename());
    let failed = || Error::io(format!("write {}", file.display()));
    match fs::read(&file) {
        Ok(present) if present == text => return Ok(()),
        // Left by a machine that lost its power.
        Ok(present) if present.is_empty() => {}
        Ok(_) => {
            return Err(failed()(std::io::Error::other("another file of this name is there")));
        }
        Err(_) => {}
    }
    let mut temporary = tempfile::Builder::new()
        .prefix(".ferry-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(failed())?;
    temporary.write_all(text).map_err(failed())?;
    temporary.persist(&file).map_err(|error| failed()(error.error))?;
    Ok(())
}
