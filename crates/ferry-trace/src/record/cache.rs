//! What an evaluation needs of the fetchers' cache.
//!
//! Since 2.20, Nix fetches trees into repositories of its own (`gitv3`, `tarball-cache`) and
//! copies them into the store from there; before, what it fetches is in the store only, and a
//! database in the cache tells under which path (`fetcher-cache-v*.sqlite`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ferry_formats::nixbase32;
use ferry_store::facts::{Recorded, Why};

use super::RecordError;

/// Which parts of the cache are needed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// The database.
    pub(super) database: bool,
    /// Repositories of tarballs.
    pub(super) tarballs: bool,
    /// Git repositories.
    pub(super) repositories: bool,
}

/// The entries of the cache that are there and needed, as paths in it; Git repositories of the
/// URLs in `without` are not.
pub(super) fn entries(cache: &Path, wanted: Wanted, without: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for name in names(&cache.join("nix")) {
        // Journals are left behind empty.
        let is_empty =
            fs::metadata(cache.join("nix").join(&name)).is_ok_and(|entry| entry.len() == 0);
        let is_database = name.starts_with("fetcher-cache") && !is_empty;
        let is_tarballs = name.starts_with("tarball-cache");
        if (wanted.database && is_database) || (wanted.tarballs && is_tarballs) {
            found.push(format!("nix/{name}"));
        }
    }
    if wanted.repositories {
        let without: Vec<String> = without.iter().map(|url| repository_name(url)).collect();
        for name in names(&cache.join("nix/gitv3")) {
            let is_lock = name.ends_with(".lock");
            let plain = name.trim_end_matches("-shallow");
            if !is_lock && !without.iter().any(|one| one == plain) {
                found.push(format!("nix/gitv3/{name}"));
            }
        }
    }
    found.sort();
    found
}

/// Whether anything was fetched but plain files.
pub(super) fn has_fetched(cache: &Path) -> bool {
    let names = names(&cache.join("nix"));
    names.iter().any(|name| name.starts_with("fetcher-cache"))
}

/// What the cache calls the repository of a URL.
fn repository_name(url: &str) -> String {
    use sha2::Digest as _;
    nixbase32::encode(&<[u8; 32]>::from(sha2::Sha256::digest(url.as_bytes())))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Puts what a trace lists of the cache into a directory, and nothing else; there is none if that
/// is nothing.
pub(super) fn keep(recorded: &Recorded, cache: &Path, to: &Path) -> Result<(), RecordError> {
    let failed = |file: &Path| {
        let file = file.display().to_string();
        move |source| RecordError::Write { file, source }
    };
    if let Err(error) = fs::remove_dir_all(to)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(failed(to)(error));
    }
    let listed = recorded.outside.iter().filter(|one| one.why == Why::FetcherCache);
    for entry in listed {
        let target = to.join(&entry.what);
        let parent = target.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        fs::create_dir_all(&parent).map_err(failed(&parent))?;
        copy_tree(&cache.join(&entry.what), &target).map_err(failed(&target))?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if !kind.is_dir() {
        // Sockets and the like are nothing to be kept.
        return if kind.is_file() { fs::copy(from, to).map(drop) } else { Ok(()) };
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_tree(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_called_as_nix_calls_it() {
        // As seen in a cache of Nix 2.34 for this URL.
        assert_eq!(repository_name("http://127.0.0.1:37249/repo.git").len(), 52);
        assert_eq!(
            repository_name("http://127.0.0.1:37249/repo.git"),
            "0ppina3zhyfaw3mr8v6fhq5ly2d3lsazk16cx40yan15v8wv3my8"
        );
    }
}
