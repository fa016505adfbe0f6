//! One object in an export stream, read from front to back.

use std::io::{self, BufReader, Read, Write};
use std::ops::Range;

use ferry_formats::derivation::{self, Output};
use ferry_formats::nar::{self, Event};
use ferry_formats::{ContentAddress, NarHash, PathInfo, StoreDir, StorePath, content_address};
use sha2::{Digest as _, Sha256};

use super::{MAGIC, NOTHING, OBJECT};
use crate::admission::MAX_DERIVATION_NAR;
use crate::daemon::one_nar::OneNar;
use crate::daemon::wire::{read_bytes, read_u64};
use crate::hashed::Hashed;

/// Most references that one object may have; real ones have thousands.
const MAX_REFERENCES: u64 = 1 << 20;

/// What is wrong with a stream.
#[derive(Debug)]
pub(super) struct Malformed(pub(super) String);

impl Malformed {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl From<io::Error> for Malformed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::new("it ends too early"),
            _ => Self(error.to_string()),
        }
    }
}

/// A reader that counts.
pub(super) struct Counted<R> {
    pub(super) reader: R,
    pub(super) offset: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// An object, and where its NAR is.
pub(super) struct Entry {
    pub(super) info: PathInfo,
    pub(super) nar: Range<u64>,
    /// What a derivation says of its outputs: their paths, and their content addresses where
    /// those are fixed.
    pub(super) outputs: Vec<(StorePath, Option<ContentAddress>)>,
}

/// Reads the next object, or the end of the stream. The first object says in which store
/// directory all are.
pub(super) fn read<R: Read>(
    input: &mut Counted<R>,
    store_dir: &mut Option<StoreDir>,
) -> Result<Option<Entry>, Malformed> {
    match read_u64(input)? {
        OBJECT => {}
        NOTHING => return Ok(None),
        _ => return Err(Malformed::new("it is not something that `nix-store --export` writes")),
    }
    let begin = input.offset;
    let content = read_nar(input)?;
    let nar = begin..input.offset;
    if read_u64(input)? != MAGIC {
        return Err(Malformed::new("what stands behind a NAR is not what Nix puts there"));
    }
    let path = read_text(input)?;
    let store_dir = match store_dir {
        Some(known) => &*known,
        None => store_dir.insert(directory_of(&path)?),
    };
    let path = parse(store_dir, &path)?;
    let count = read_u64(input)?;
    if count > MAX_REFERENCES {
        return Err(Malformed(format!(
            "{} has {count} references (at most {MAX_REFERENCES} are accepted)",
            store_dir.render_path(&path)
        )));
    }
    let mut references = Vec::new();
    for _ in 0..count {
        references.push(parse(store_dir, &read_text(input)?)?);
    }
    references.sort();
    references.dedup();
    let deriver = match read_text(input)?.as_str() {
        "" => None,
        deriver => Some(parse(store_dir, deriver)?),
    };
    match read_u64(input)? {
        NOTHING => {}
        // By a program that no version of Nix calls any more.
        1 => drop(read_bytes(input)?),
        _ => return Err(Malformed::new("neither a signature nor the lack of one")),
    }
    let mut info = PathInfo {
        path,
        nar_hash: content.nar_hash,
        nar_size: nar.end - nar.start,
        references: references.into(),
        deriver,
        ca: None,
        signatures: Vec::new(),
    };
    info.ca = content_address::found(store_dir, &info, content.file);
    let outputs = match &content.text {
        Some(text) if info.path.is_derivation() => outputs(store_dir, &info.path, text),
        _ => Vec::new(),
    };
    Ok(Some(Entry { info, nar, outputs }))
}

fn read_text(input: &mut impl Read) -> Result<String, Malformed> {
    String::from_utf8(read_bytes(input)?)
        .map_err(|_| Malformed::new("a store path that is not text"))
}

fn directory_of(path: &str) -> Result<StoreDir, Malformed> {
    let (directory, _) = path
        .rsplit_once('/')
        .ok_or_else(|| Malformed(format!("`{}` is not a store path", cut(path))))?;
    StoreDir::new(directory)
        .map_err(|error| Malformed(format!("`{}` is not a store path: {error}", cut(path))))
}

fn parse(store_dir: &StoreDir, path: &str) -> Result<StorePath, Malformed> {
    store_dir.parse_path(path.as_bytes()).map_err(|error| {
        Malformed(format!("`{}` is not a store path in {store_dir}: {error}", cut(path)))
    })
}

fn cut(text: &str) -> String {
    text.chars().take(256).collect()
}

/// What a NAR turned out to be.
struct Content {
    nar_hash: NarHash,
    /// The digest of the one plain file in it.
    file: Option<[u8; 32]>,
    /// That file, if it looks like a derivation.
    text: Option<Vec<u8>>,
}

fn read_nar<R: Read>(input: &mut Counted<R>) -> Result<Content, Malformed> {
    let hashed = Hashed::new(OneNar::new(input));
    let mut reader = BufReader::with_capacity(64 << 10, hashed);
    let mut file = None;
    nar::decode(&mut reader, |event| {
        if let Event::Regular { name: None, executable: false, mut contents } = event {
            let mut sink = FileSink::default();
            contents.copy_to(&mut sink)?;
            file = Some(sink);
        }
        Ok(())
    })
    .map_err(|error| match error {
        nar::Error::Io(source) => Malformed::from(source),
        other => Malformed(format!("malformed NAR: {other}")),
    })?;
    let nar_hash = reader.into_inner().hasher.finish();
    let (file, text) = match file {
        Some(sink) => (Some(sink.digest.finalize().into()), sink.text),
        None => (None, None),
    };
    Ok(Content { nar_hash, file, text })
}

/// Hashes a file, and keeps it as long as it may be a derivation.
struct FileSink {
    digest: Sha256,
    text: Option<Vec<u8>>,
}

impl Default for FileSink {
    fn default() -> Self {
        Self { digest: Sha256::new(), text: Some(Vec::new()) }
    }
}

impl FileSink {
    fn may_be_derivation(text: &[u8]) -> bool {
        [&b"Derive("[..], b"DrvWithVersion("].iter().any(|start| {
            let shorter = text.len().min(start.len());
            text.get(..shorter) == start.get(..shorter)
        })
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.update(bytes);
        if let Some(text) = &mut self.text {
            text.extend_from_slice(bytes);
            if text.len() as u64 > MAX_DERIVATION_NAR || !Self::may_be_derivation(text) {
                self.text = None;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a derivation says of its outputs; nothing where it is not one, which is for whoever reads
/// it to complain about.
fn outputs(
    store_dir: &StoreDir,
    path: &StorePath,
    text: &[u8],
) -> Vec<(StorePath, Option<ContentAddress>)> {
    let Ok(parsed) = derivation::parse(store_dir, path, text) else { return Vec::new() };
    let Ok(outputs) = derivation::outputs(&parsed) else { return Vec::new() };
    let fixed = |name: &str| match parsed.outputs().get(name) {
        Some(Output::Fixed { ca }) => Some(ca.clone()),
        _ => None,
    };
    outputs.into_iter().filter_map(|(name, path)| Some((path?, fixed(&name)))).collect()
}
