//! `.drv` files as facts, read and parsed on all processors.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use ferry_formats::derivation::{self, Derivation};
use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{DerivationFacts, Ledger, NodeId};
use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::admission::MAX_DERIVATION_NAR;
use crate::local::Layout;
use crate::{Error, Result};

/// Files that are parsed before what they say is entered: what waits is never more than this.
const BATCH: usize = 1024;

/// Reads the files of `wanted`, as many at a time as there are processors, and hands over what
/// they say in the order of `wanted`. Leaves out those that are not there.
///
/// # Errors
/// When a file cannot be read or is not a derivation, and what `enter` fails with.
pub(super) fn read(
    layout: &Layout,
    wanted: &[(NodeId, StorePath)],
    mut enter: impl FnMut(NodeId, &StorePath, DerivationFacts) -> Result<()>,
) -> Result<()> {
    for batch in wanted.chunks(BATCH) {
        // Only what the graph wants leaves the worker: most of a derivation is its environment.
        let read: Vec<Result<Option<DerivationFacts>>> = batch
            .par_iter()
            .map_init(Vec::new, |text, (_, path)| read_facts(layout, path, text))
            .collect();
        for ((node, path), facts) in batch.iter().zip(read) {
            if let Some(facts) = facts? {
                enter(*node, path, facts)?;
            }
        }
    }
    Ok(())
}

fn read_facts(
    layout: &Layout,
    path: &StorePath,
    text: &mut Vec<u8>,
) -> Result<Option<DerivationFacts>> {
    match read_one(layout, path, text)? {
        Some(parsed) => Ok(Some(DerivationFacts::of(&parsed)?)),
        None => Ok(None),
    }
}

/// Reads one file, by way of `text`; `None` where it is not there.
pub(crate) fn read_one(
    layout: &Layout,
    path: &StorePath,
    text: &mut Vec<u8>,
) -> Result<Option<Derivation>> {
    let file = layout.real_path(path);
    let found = read_text(&file, text).map_err(|source| Error::Io {
        action: format!("read the derivation {}", file.display()),
        source,
    });
    Ok(if found? { Some(derivation::parse(&layout.store_dir, path, text)?) } else { None })
}

/// Reads a file in place of what is in `text`; false where it is not there.
fn read_text(file: &Path, text: &mut Vec<u8>) -> io::Result<bool> {
    // What pretends to be a derivation may be a link, or something that never ends.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(file, flags, Mode::empty()) {
        Ok(opened) => File::from(opened),
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::LOOP) => return Err(io::Error::other("it is a link")),
        Err(error) => return Err(error.into()),
    };
    let metadata = opened.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    text.clear();
    opened.take(MAX_DERIVATION_NAR + 1).read_to_end(text)?;
    if text.len() as u64 > MAX_DERIVATION_NAR {
        let reason = format!("more than {MAX_DERIVATION_NAR} bytes are too many for a derivation");
        return Err(io::Error::other(reason));
    }
    Ok(true)
}

/// Texts of derivations that are waiting to be parsed, some at a time.
pub(super) struct Texts<'a> {
    store_dir: &'a StoreDir,
    waiting: Vec<(StorePath, Vec<u8>)>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(store_dir: &'a StoreDir) -> Self {
        Self { store_dir, waiting: Vec::new() }
    }

    /// Takes a text in, and enters those that wait when they are many.
    ///
    /// # Errors
    /// As for [`enter`](Self::enter).
    pub(super) fn push(
        &mut self,
        path: StorePath,
        text: Vec<u8>,
        ledger: &mut Ledger<'_>,
    ) -> Result<()> {
        self.waiting.push((path, text));
        if self.waiting.len() < BATCH { Ok(()) } else { self.enter(ledger) }
    }

    /// Enters what the waiting texts say.
    ///
    /// # Errors
    /// When one is not a derivation.
    pub(super) fn enter(&mut self, ledger: &mut Ledger<'_>) -> Result<()> {
        let store_dir = self.store_dir;
        let parse = |(path, text): (StorePath, Vec<u8>)| {
            let facts = DerivationFacts::of(&derivation::parse(store_dir, &path, &text)?)?;
            Ok((path, facts))
        };
        let waiting = std::mem::take(&mut self.waiting);
        let parsed: Vec<Result<(StorePath, DerivationFacts)>> =
            waiting.into_par_iter().map(parse).collect();
        for parsed in parsed {
            let (path, facts) = parsed?;
            let node = ledger.node(&path);
            ledger.derivation(node, &facts);
        }
        Ok(())
    }
}
