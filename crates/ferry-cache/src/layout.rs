//! What the files of a binary cache are, told from their names.

use ferry_formats::build_trace;

/// The directory with NARs.
const NARS: &str = "nar";
/// The directory with build logs, each under the name of its derivation.
pub(crate) const LOGS: &str = "log";
/// The directory in which it is told which NAR has which debugging information.
const DEBUG: &str = "debuginfo";

/// The directories that Nix makes when it opens a cache, if only to read it
/// (`LocalBinaryCacheStore::init` in its `local-binary-cache-store.cc`): without them it cannot
/// read one on a disk that is read-only. One of those for realisations is that of Nix 2.35 and
/// later.
pub(crate) fn directories() -> impl Iterator<Item = &'static str> {
    [NARS, DEBUG, LOGS].into_iter().chain(build_trace::DIRECTORIES)
}

/// Characters in the hash part of a store path.
const HASH_PART: usize = 32;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// `HASH.narinfo`.
    Narinfo,
    /// `HASH.ls`: the files in a NAR.
    Listing,
    /// `nar/…`; some caches have them beside the narinfos.
    Nar,
    /// `log/NAME.drv`.
    Log,
    /// `realisations/….doi`, `build-trace-v2/….doi`: what became of an output.
    Realisation,
    /// `debuginfo/…`.
    DebugInfo,
    /// Anything else.
    Other,
}

impl FileKind {
    /// Of the file of this name, relative to the cache.
    pub(crate) fn of(name: &str) -> Self {
        match name.split_once('/') {
            None if hash_part(name, ".narinfo").is_some() => Self::Narinfo,
            None if hash_part(name, ".ls").is_some() => Self::Listing,
            None if is_named_like_nar(name) => Self::Nar,
            None => Self::Other,
            Some((NARS, _)) => Self::Nar,
            Some((LOGS, _)) => Self::Log,
            Some((DEBUG, _)) => Self::DebugInfo,
            Some((directory, file)) => {
                let is_realisation =
                    build_trace::DIRECTORIES.contains(&directory) && file.ends_with(".doi");
                if is_realisation { Self::Realisation } else { Self::Other }
            }
        }
    }
}

/// `….nar`, `….nar.xz`, and so on.
fn is_named_like_nar(name: &str) -> bool {
    name.split_once(".nar").is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('.'))
}

/// The hash part of the path that a file of a cache is about, if it has this ending: of
/// `HASH.narinfo`, and of `HASH.ls`.
pub(crate) fn hash_part<'n>(name: &'n str, ending: &str) -> Option<&'n str> {
    let hash = name.strip_suffix(ending)?;
    let is_hash = hash.len() == HASH_PART && hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_hash.then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_its_name_says() {
        let hash = "0".repeat(HASH_PART);
        for (name, kind) in [
            (format!("{hash}.narinfo"), FileKind::Narinfo),
            (format!("{hash}.ls"), FileKind::Listing),
            (format!("nar/{hash}.nar.xz"), FileKind::Nar),
            (format!("nar/{hash}.narinfo"), FileKind::Nar),
            (format!("{hash}.nar"), FileKind::Nar),
            (format!("{hash}.nar.zst"), FileKind::Nar),
            (format!("log/{hash}-x.drv"), FileKind::Log),
            (format!("realisations/sha256:{hash}!out.doi"), FileKind::Realisation),
            (format!("build-trace-v2/{hash}-x.drv/out.doi"), FileKind::Realisation),
            ("realisations/readme".to_owned(), FileKind::Other),
            ("debuginfo/1.debug".to_owned(), FileKind::DebugInfo),
            ("nix-cache-info".to_owned(), FileKind::Other),
            (format!("{}.narinfo", &hash[4..]), FileKind::Other),
            (format!("x/{hash}.narinfo"), FileKind::Other),
            ("nar".to_owned(), FileKind::Other),
        ] {
            assert_eq!(FileKind::of(&name), kind, "{name}");
        }
        assert_eq!(hash_part(&format!("{hash}.narinfo"), ".narinfo"), Some(&*hash));
        assert_eq!(hash_part(&format!("nar/{}.narinfo", &hash[4..]), ".narinfo"), None);
        assert_eq!(hash_part(".narinfo", ".narinfo"), None);
    }
}
