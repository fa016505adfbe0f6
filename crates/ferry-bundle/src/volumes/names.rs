//! What the files of volumes are called.

use std::path::{Path, PathBuf};

use super::header::MOST_VOLUMES;

/// The names of the volumes of one bundle: `NAME.001.ferry` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    before: PathBuf,
    stem: String,
    extension: String,
}

const EXTENSION: &str = ".ferry";

impl Names {
    /// Of a bundle that would be called `file` in one piece.
    pub(crate) fn of_bundle(file: &Path) -> Self {
        let (before, name) = split(file);
        let (stem, extension) = match name.strip_suffix(EXTENSION) {
            Some(stem) => (stem.to_owned(), EXTENSION.to_owned()),
            None => (name, String::new()),
        };
        Self { before, stem, extension }
    }

    /// Of a file that is called like a volume, or like the bundle.
    pub(crate) fn of(file: &Path) -> Self {
        Self::of_volume(file).map_or_else(|| Self::of_bundle(file), |(names, _)| names)
    }

    /// Those that a volume called `file` belongs to, and its number, if it is called like one.
    pub(crate) fn of_volume(file: &Path) -> Option<(Self, u32)> {
        let (before, name) = split(file);
        let (rest, extension) = match name.strip_suffix(EXTENSION) {
            Some(rest) => (rest, EXTENSION.to_owned()),
            None => (name.as_str(), String::new()),
        };
        let (stem, digits) = rest.rsplit_once('.')?;
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number = digits.parse().ok().filter(|number| (1..=MOST_VOLUMES).contains(number))?;
        Some((Self { before, stem: stem.to_owned(), extension }, number))
    }

    /// The file of a volume.
    pub(crate) fn volume(&self, number: u32) -> PathBuf {
        self.before.join(format!("{}.{number:03}{}", self.stem, self.extension))
    }

    /// Where a volume waits that is whole and about to take its place.
    pub(crate) fn waiting(&self, number: u32) -> PathBuf {
        self.before.join(format!(".{}.{number:03}{}.new", self.stem, self.extension))
    }

    /// Where they all are.
    pub(crate) fn directory(&self) -> &Path {
        if self.before.as_os_str().is_empty() { Path::new(".") } else { &self.before }
    }

    /// What to call all of them together.
    pub(crate) fn together(&self) -> String {
        self.before.join(format!("{}.*{}", self.stem, self.extension)).display().to_string()
    }
}

/// A name that is not UTF-8 is not one that a volume of ours has.
fn split(file: &Path) -> (PathBuf, String) {
    let before = file.parent().map(Path::to_owned).unwrap_or_default();
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    (before, name.unwrap_or_default())
}
