//! Where in a store object its references are: which file mentions which other path, and how.
//!
//! A reference is the 32 characters of a store path's hash, wherever they stand in a file or in
//! the target of a link; Nix looks for nothing more. This is what `nix why-depends --precise`
//! shows.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};

use aho_corasick::AhoCorasick;
use ferry_formats::nar::{self, Event};
use ferry_formats::{StorePath, nixbase32};

use crate::{Error, Result, Store};

/// Characters in the hash of a store path.
const HASH: usize = 32;
/// Bytes shown on either side of a hash.
const MARGIN: usize = 32;
/// Bytes that are searched at a time.
const PIECE: u64 = 128 << 10;

/// A place in an object where a reference stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// What is referred to.
    pub reference: StorePath,
    /// The file's path within the object, in bytes; empty where the object is one file.
    pub file: Vec<u8>,
    /// Where in that file it stands.
    pub kind: SiteKind,
    /// Offset of the hash in bytes. Of several in one file this is the first.
    pub offset: u64,
    /// What stands around it, in printable ASCII: a dot for every other byte. Of a link it is
    /// the whole target.
    pub context: String,
}

/// Which part of a file a reference stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteKind {
    /// The contents of a plain file.
    Contents,
    /// The target of a symbolic link.
    SymlinkTarget,
}

/// Finds the places in `object` where one of `wanted` is mentioned: the first for each of them in
/// each file, in the order of the object's NAR. Memory does not grow with the files.
///
/// # Errors
/// When the object is not valid in `store` or cannot be read.
pub fn reference_sites(
    store: &dyn Store,
    object: &StorePath,
    wanted: &[StorePath],
) -> Result<Vec<Site>> {
    let info = store.require(object)?;
    let path = store.store_dir().render_path(object);
    let mut search = Search::new(wanted)?;
    store.read_nars(&[info], &mut |_, nar| {
        let mut nar = BufReader::new(nar);
        search.read(&mut nar).map_err(|error| match error {
            nar::Error::Io(error) => Error::reading(format!("read the NAR of {path}"))(error),
            other => Error::MalformedNar { path: path.clone(), reason: other.to_string() },
        })
    })?;
    Ok(search.sites)
}

struct Search {
    wanted: Vec<Wanted>,
    hashes: AhoCorasick,
    /// The number of the file that is searched.
    file: u64,
    sites: Vec<Site>,
}

struct Wanted {
    path: StorePath,
    /// The last file in which it was found.
    found_in: Option<u64>,
}

impl Search {
    fn new(wanted: &[StorePath]) -> Result<Self> {
        let wanted: BTreeSet<&StorePath> = wanted.iter().collect();
        let hashes = wanted.iter().map(|path| nixbase32::encode(path.digest()));
        let hashes = AhoCorasick::new(hashes).map_err(Error::other)?;
        let new = |path: &StorePath| Wanted { path: path.clone(), found_in: None };
        let wanted = wanted.into_iter().map(new).collect();
        Ok(Self { wanted, hashes, file: 0, sites: Vec::new() })
    }

    fn read(&mut self, nar: &mut dyn Read) -> std::result::Result<(), nar::Error> {
        let mut place = Place::default();
        nar::decode(nar, |event| {
            self.file += 1;
            match event {
                Event::DirectoryStart { name } => place.enter(name),
                Event::DirectoryEnd { .. } => place.leave(),
                Event::Regular { name, mut contents, .. } => {
                    self.search_contents(&place.of(name), &mut contents)?;
                }
                Event::Symlink { name, target } => {
                    let file = place.of(name);
                    for (number, offset) in self.find(target) {
                        let kind = SiteKind::SymlinkTarget;
                        self.put(number, &file, kind, offset as u64, || printable(target));
                    }
                }
            }
            Ok(())
        })
    }

    fn search_contents(&mut self, file: &[u8], contents: &mut impl Read) -> io::Result<()> {
        let first = self.sites.len();
        // The bytes at hand, and where in the file they begin.
        let (mut window, mut start) = (Vec::new(), 0_u64);
        while self.sites.len() - first < self.wanted.len() {
            let is_end = contents.by_ref().take(PIECE).read_to_end(&mut window)? == 0;
            for (number, offset) in self.find(&window) {
                let end = offset + HASH + MARGIN;
                // Without what follows it, it is found again in the next window.
                if end <= window.len() || is_end {
                    let around = offset.saturating_sub(MARGIN)..end.min(window.len());
                    let around = window.get(around).unwrap_or_default();
                    let offset = start + offset as u64;
                    self.put(number, file, SiteKind::Contents, offset, || printable(around));
                }
            }
            if is_end {
                break;
            }
            let done = window.len().saturating_sub(MARGIN + HASH + MARGIN);
            window.drain(..done);
            start += done as u64;
        }
        Ok(())
    }

    /// Which of the wanted stand in `bytes`, and where.
    fn find(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let hits = self.hashes.find_overlapping_iter(bytes);
        hits.map(|hit| (hit.pattern().as_usize(), hit.start())).collect()
    }

    /// Notes a place, unless there was one in this file before.
    fn put(
        &mut self,
        number: usize,
        file: &[u8],
        kind: SiteKind,
        offset: u64,
        context: impl FnOnce() -> String,
    ) {
        let Some(wanted) = self.wanted.get_mut(number) else { return };
        if wanted.found_in.replace(self.file) != Some(self.file) {
            let (reference, file) = (wanted.path.clone(), file.to_vec());
            self.sites.push(Site { reference, file, kind, offset, context: context() });
        }
    }
}

/// Where in an object the decoder is.
#[derive(Default)]
struct Place {
    directory: Vec<u8>,
    /// How long `directory` was before each directory that is open.
    lengths: Vec<usize>,
}

impl Place {
    fn enter(&mut self, name: Option<&[u8]>) {
        let directory = self.of(name);
        self.lengths.push(self.directory.len());
        self.directory = directory;
    }

    fn leave(&mut self) {
        self.directory.truncate(self.lengths.pop().unwrap_or_default());
    }

    fn of(&self, name: Option<&[u8]>) -> Vec<u8> {
        let mut path = self.directory.clone();
        if let Some(name) = name {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        path
    }
}

fn printable(bytes: &[u8]) -> String {
    let show = |byte: &u8| {
        let is_shown = byte.is_ascii_graphic() || *byte == b' ';
        if is_shown { char::from(*byte) } else { '.' }
    };
    bytes.iter().map(show).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn wanted(name: &str) -> StorePath {
        StorePath::from_parts([name.as_bytes()[0]; 20], name).unwrap()
    }

    fn hash(path: &StorePath) -> String {
        nixbase32::encode(path.digest())
    }

    fn search(nar: &[u8], wanted: &[StorePath]) -> Vec<Site> {
        let mut search = Search::new(wanted).unwrap();
        search.read(&mut &*nar).unwrap();
        search.sites
    }

    #[test]
    fn the_first_place_is_found_wherever_pieces_are_cut() {
        let a = wanted("a");
        let piece = usize::try_from(PIECE).unwrap();
        for before in (piece - 2 * HASH - MARGIN..piece + 2).chain(2 * piece - 70..2 * piece - 50) {
            for after in [0, 5, 40, piece] {
                let text = ["x".repeat(before), hash(&a), "y".repeat(after), hash(&a)].concat();
                let sites = search(&nar::of_file(text.as_bytes()), std::slice::from_ref(&a));
                assert_eq!(sites.len(), 1, "{before} {after}");
                assert_eq!(sites[0].offset, before as u64, "{before} {after}");
                let end = (before + HASH + MARGIN).min(text.len());
                assert_eq!(sites[0].context, text[before - MARGIN..end], "{before} {after}");
            }
        }
    }

    #[test]
    fn what_is_not_printable_is_a_dot_and_the_file_has_no_name() {
        let a = wanted("a");
        let text = ["\n\u{1b}é ".as_bytes(), hash(&a).as_bytes(), b"\0"].concat();
        let expected = Site {
            reference: a.clone(),
            file: Vec::new(),
            kind: SiteKind::Contents,
            offset: 5,
            context: format!(".... {}.", hash(&a)),
        };
        assert_eq!(search(&nar::of_file(&text), &[a.clone(), a]), [expected]);
    }

    #[test]
    fn hashes_that_overlap_are_both_found() {
        let path = |hash: &str| {
            let digest = nixbase32::decode(hash.as_bytes()).unwrap();
            StorePath::from_parts(digest.try_into().unwrap(), "x").unwrap()
        };
        let (half, other) = ("0".repeat(16), "1".repeat(16));
        let wanted = [path(&format!("{half}{other}")), path(&format!("{other}{half}"))];
        let text = format!("{half}{other}{half}");
        let sites = search(&nar::of_file(text.as_bytes()), &wanted);
        let found: Vec<(&StorePath, u64)> =
            sites.iter().map(|site| (&site.reference, site.offset)).collect();
        assert_eq!(found, [(&wanted[0], 0), (&wanted[1], 16)]);
    }

    #[test]
    fn paths_of_files_follow_the_directories() {
        let mut place = Place::default();
        assert_eq!(place.of(None), b"");
        place.enter(None);
        assert_eq!(place.of(Some(b"x")), b"x");
        place.enter(Some(b"a"));
        place.enter(Some(b"b"));
        assert_eq!(place.of(Some(b"x")), b"a/b/x");
        place.leave();
        assert_eq!(place.of(Some(b"x")), b"a/x");
        place.leave();
        place.leave();
        assert_eq!(place.of(None), b"");
    }
}
