//! Reading a NAR to its end, and telling everything that is wrong with it: whoever copies it stops
//! at the first thing, here it matters which of the file, the narinfo and the listing is to blame.

use std::io::{self, Read};

use ferry_formats::content_address::ContentAddressHasher;
use ferry_formats::hash::NarHasher;
use ferry_formats::narinfo::Narinfo;
use ferry_formats::{NixHash, nar};
use ferry_store::progress::Progress;

use super::FaultKind;
use crate::compression::Compression;
use crate::{BinaryCache, CacheError, listing};

/// What is wrong, without the file that it concerns.
pub(super) type Finding = (FaultKind, String);

/// Reads the NAR that a narinfo names, and says what is wrong with it, and what was listed in it.
pub(super) fn check(
    cache: &BinaryCache,
    narinfo: &Narinfo,
    compression: Compression,
    wants_listing: bool,
    progress: &dyn Progress,
) -> Result<(Vec<Finding>, Option<Vec<u8>>), CacheError> {
    // As a stream, however small it should be: one that is too long is to be told of, too.
    let Some(file) = cache.place.open(&narinfo.url, None)? else {
        return Ok((vec![(FaultKind::NoNar, "it is not there".to_owned())], None));
    };
    let size = narinfo.file_size.filter(|size| *size > 0);
    // One byte more than there should be: nothing grows beyond measure.
    let mut file = Hashed::new(file, size.map(|size| size.saturating_add(1)), |_: &[u8]| {});
    let unpacked = unpack(&mut file, narinfo, compression, wants_listing, progress);
    let rest = io::copy(&mut file, &mut io::sink());
    if let Some(failure) = file.failure.take().or(rest.err().map(|error| error.to_string())) {
        return Ok((vec![(FaultKind::Unreadable, failure)], None));
    }
    let mut findings: Vec<Finding> = container(narinfo, size, file.hasher).into_iter().collect();
    match unpacked {
        Ok((finding, listed)) => {
            findings.extend(finding);
            Ok((findings, listed))
        }
        Err(error) => {
            let message = format!("as {}: {error}", compression.name());
            findings.push((FaultKind::BadCompression, message));
            Ok((findings, None))
        }
    }
}

/// Decompresses a file, says what is wrong with what comes out, and lists it.
fn unpack(
    file: &mut impl Read,
    narinfo: &Narinfo,
    compression: Compression,
    wants_listing: bool,
    progress: &dyn Progress,
) -> Result<(Option<Finding>, Option<Vec<u8>>), String> {
    let mut content_address = ContentAddressHasher::new(&narinfo.info);
    let decoder = compression.decoder(file).map_err(|error| error.to_string())?;
    let limit = narinfo.info.nar_size.saturating_add(1);
    let mut nar = Hashed::new(decoder, Some(limit), |bytes: &[u8]| {
        if let Some(content_address) = &mut content_address {
            content_address.update(bytes);
        }
        progress.bytes(bytes.len() as u64);
    });
    let listed = match wants_listing {
        true => listing::list(&mut nar),
        false => nar::decode(&mut io::BufReader::new(&mut nar), |_| Ok(())).map(|()| None),
    };
    let rest = io::copy(&mut nar, &mut io::sink());
    if let Some(failure) = nar.failure.take().or(rest.err().map(|error| error.to_string())) {
        return Err(failure);
    }
    let hasher = nar.hasher;
    let finding = contents(narinfo, hasher, content_address, listed.as_ref().err());
    Ok((finding, listed.ok().flatten()))
}

/// What is wrong with the file as it is, whatever is in it.
fn container(narinfo: &Narinfo, expected: Option<u64>, file: NarHasher) -> Option<Finding> {
    let size = file.size();
    match expected {
        Some(expected) if size < expected => {
            let message = format!("it has {size} bytes, and should have {expected}");
            return Some((FaultKind::WrongFileSize, message));
        }
        Some(expected) if size > expected => {
            let message = format!("it has more than {expected} bytes");
            return Some((FaultKind::WrongFileSize, message));
        }
        _ => {}
    }
    let Some(expected @ NixHash::Sha256(_)) = &narinfo.file_hash else { return None };
    let found = NixHash::Sha256(file.finish().0);
    if found == *expected {
        return None;
    }
    let [found, expected] = [&found, expected].map(NixHash::to_nix_nixbase32_string);
    Some((FaultKind::WrongFileHash, format!("it has the hash {found}, and should have {expected}")))
}

/// What is wrong with what was decompressed.
fn contents(
    narinfo: &Narinfo,
    nar: NarHasher,
    content_address: Option<ContentAddressHasher>,
    malformed: Option<&nar::Error>,
) -> Option<Finding> {
    let info = &narinfo.info;
    let size = nar.size();
    if size > info.nar_size {
        let reason = format!("it decompresses to more than {} bytes", info.nar_size);
        return Some((FaultKind::WrongNarSize, reason));
    }
    let found = nar.finish();
    if found != info.nar_hash {
        let reason = format!("its NAR has the hash {found}, and should have {}", info.nar_hash);
        return Some((FaultKind::WrongNarHash, reason));
    }
    if size < info.nar_size {
        let reason = format!("its NAR has {size} bytes, and should have {}", info.nar_size);
        return Some((FaultKind::WrongNarSize, reason));
    }
    if let Some(error) = malformed {
        return Some((FaultKind::MalformedNar, error.to_string()));
    }
    let proved = content_address?.finish(found);
    proved.err().map(|error| (FaultKind::WrongContent, error.to_string()))
}

/// Hashes what is read through it, and shows it to `each`; reads no more than so much.
struct Hashed<R, F> {
    inner: R,
    hasher: NarHasher,
    left: Option<u64>,
    each: F,
    /// Why it could not be read.
    failure: Option<String>,
}

impl<R: Read, F: FnMut(&[u8])> Hashed<R, F> {
    fn new(inner: R, limit: Option<u64>, each: F) -> Self {
        Self { inner, hasher: NarHasher::default(), left: limit, each, failure: None }
    }
}

impl<R: Read, F: FnMut(&[u8])> Read for Hashed<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let limit = buffer.len().min(left);
        // A decoder that is asked for nothing may take it amiss.
        let Some(buffer) = buffer.get_mut(..limit).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let read = self.inner.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failure.get_or_insert_with(|| error.to_string());
            }
        })?;
        let bytes = buffer.get(..read).unwrap_or_default();
        self.hasher.update(bytes);
        (self.each)(bytes);
        self.left = self.left.map(|left| left.saturating_sub(read as u64));
        Ok(read)
    }
}

/// In what a listing that is in the cache differs from what was listed, if it is one.
pub(super) fn differs(
    cache: &BinaryCache,
    name: &str,
    listed: &[u8],
) -> Result<Option<String>, CacheError> {
    let Some(mut file) = cache.place.open(name, None)? else { return Ok(None) };
    let mut there = Vec::new();
    // Other versions of Nix have other spaces and another order in it, not ten times as much.
    let limit = (listed.len() as u64).saturating_mul(10);
    if let Err(error) = file.by_ref().take(limit).read_to_end(&mut there) {
        return Ok(Some(error.to_string()));
    }
    let parse = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).ok();
    if there == listed || (parse(&there).is_some() && parse(&there) == parse(listed)) {
        return Ok(None);
    }
    Ok(Some("it lists something else than what is in the NAR".to_owned()))
}
