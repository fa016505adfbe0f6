//! The compact form: sorted, shortened hashes of the paths, each as its distance from the one
//! before in Golomb-Rice code. `docs/inventory-format.md` specifies it.

use std::io::Read;

use ferry_formats::{StoreDir, StorePath};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// How an inventory in compact form begins. A transfer that takes the file for text changes it.
pub const MAGIC: [u8; 9] = *b"\x89FERRYI\r\n";

/// A path that is not there is claimed once in 2 to the power of this.
pub const BITS: u8 = 30;

/// The part of [`MAGIC`] that survives a transfer as text.
const MARK: usize = 7;
const VERSION: u32 = 1;
/// Which certainties are understood.
const MOST_BITS: u8 = 36;
const LEAST_BITS: u8 = 8;
/// Most paths: with the bits above, the numbers stay below 2^62.
const MOST_PATHS: u64 = 1 << 26;
/// Longest file, in bytes: that of the most paths, and some.
const LONGEST_FILE: u64 = 320 << 20;
const DIGEST: usize = 32;

/// The numbers that stand for the paths.
#[derive(Debug)]
pub(super) struct Compact {
    bits: u8,
    /// Ascending.
    numbers: Vec<u64>,
}

impl Compact {
    pub(super) fn has(&self, path: &StorePath) -> bool {
        let range = range(self.numbers.len() as u64, self.bits);
        self.numbers.binary_search(&number(path, range)).is_ok()
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn bits(&self) -> u8 {
        self.bits
    }
}

/// How many numbers there are to choose from: one in 2^`bits` of them is taken.
fn range(paths: u64, bits: u8) -> u64 {
    paths << bits
}

/// The number that stands for a path, below `range`: the first eight bytes of the SHA-256 of its
/// base name, as a fraction of 2^64.
fn number(path: &StorePath, range: u64) -> u64 {
    let digest: [u8; DIGEST] = Sha256::digest(path.to_basename().as_bytes()).into();
    let (start, _) = digest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let scaled = (u128::from(u64::from_be_bytes(*start)) * u128::from(range)) >> 64;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// How many low bits of a distance stand as they are. With one less than the bits of certainty a
/// path takes 1.54 bits more than those; the limit for any code is 1.44.
fn low_bits(bits: u8) -> u32 {
    u32::from(bits) - 1
}

/// Whether a file that begins so is in compact form, be it damaged by a transfer as text.
pub(super) fn looks_like_one(start: &[u8]) -> bool {
    start.len() >= MARK && start.get(..MARK) == MAGIC.get(..MARK)
}

/// The file: `bits` from [`LEAST_BITS`] to [`MOST_BITS`].
pub(super) fn encode(paths: &[StorePath], store_dir: &StoreDir, bits: u8) -> Result<Vec<u8>> {
    let mut paths: Vec<&StorePath> = paths.iter().collect();
    paths.sort_unstable();
    paths.dedup();
    let count = paths.len() as u64;
    if count > MOST_PATHS {
        let source = std::io::Error::other(format!("more than {MOST_PATHS} paths"));
        return Err(Error::Io { action: "make an inventory".to_owned(), source });
    }
    let range = range(count, bits);
    let mut numbers: Vec<u64> = paths.into_iter().map(|path| number(path, range)).collect();
    numbers.sort_unstable();

    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.push(bits);
    let directory = store_dir.as_str().as_bytes();
    bytes.extend_from_slice(&(directory.len() as u64).to_le_bytes());
    bytes.extend_from_slice(directory);
    bytes.extend_from_slice(&count.to_le_bytes());
    let mut codes = Codes { bytes, pending: 0, used: 0 };
    let mut before = 0;
    for number in numbers {
        codes.put(number - before, low_bits(bits));
        before = number;
    }
    let mut bytes = codes.finish();
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    Ok(bytes)
}

/// Bits, the highest of each byte first.
struct Codes {
    bytes: Vec<u8>,
    pending: u8,
    used: u32,
}

impl Codes {
    fn bit(&mut self, one: bool) {
        self.pending = self.pending << 1 | u8::from(one);
        self.used += 1;
        if self.used == 8 {
            self.bytes.push(self.pending);
            (self.pending, self.used) = (0, 0);
        }
    }

    /// As many ones as `distance` has times 2^`low`, a zero, then the rest in `low` bits.
    fn put(&mut self, distance: u64, low: u32) {
        for _ in 0..distance >> low {
            self.bit(true);
        }
        self.bit(false);
        for place in (0..low).rev() {
            self.bit(distance >> place & 1 == 1);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        while self.used > 0 {
            self.bit(false);
        }
        self.bytes
    }
}

/// Reads a file that begins as one in compact form does.
pub(super) fn read(name: &str, input: &mut dyn Read, store_dir: &StoreDir) -> Result<Compact> {
    let mut bytes = Vec::new();
    let read = input.take(LONGEST_FILE + 1).read_to_end(&mut bytes);
    read.map_err(Error::io(format!("read {name}")))?;
    parse(&bytes, store_dir)
        .map_err(|reason| Error::UnusableInventory { file: name.to_owned(), reason })
}

fn parse(bytes: &[u8], store_dir: &StoreDir) -> std::result::Result<Compact, String> {
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(format!("it is longer than {LONGEST_FILE} bytes"));
    }
    let mut rest = Bytes { bytes };
    if rest.array()? != MAGIC {
        return Err("its line ends were changed: it was transferred as text, and has to be \
                    transferred as a binary file"
            .to_owned());
    }
    let version = u32::from_le_bytes(rest.array()?);
    if version != VERSION {
        return Err(format!("it has version {version}, and this ferry reads version {VERSION}"));
    }
    // The digest first: what is damaged should not be reported as what it happens to look like.
    let split = bytes.split_last_chunk::<DIGEST>().ok_or_else(cut_short)?;
    let (contents, stated) = split;
    if Sha256::digest(contents).as_slice() != stated {
        return Err(
            "its digest is not the one stated at its end: it is damaged or cut short".to_owned()
        );
    }
    rest.bytes = rest.bytes.get(..rest.bytes.len().saturating_sub(DIGEST)).ok_or_else(cut_short)?;

    let [bits] = rest.array()?;
    if !(LEAST_BITS..=MOST_BITS).contains(&bits) {
        return Err(format!("{bits} bits a path are not from {LEAST_BITS} to {MOST_BITS}"));
    }
    let length = u64::from_le_bytes(rest.array()?);
    let directory = rest.take(length)?;
    if directory != store_dir.as_str().as_bytes() {
        return Err(format!(
            "it is of a store in {}, and not in {store_dir}",
            String::from_utf8_lossy(directory.get(..256).unwrap_or(directory))
        ));
    }
    let count = u64::from_le_bytes(rest.array()?);
    // Each path has at least its low bits and the bit before them.
    let room = rest.bytes.len() as u64 * 8 / (u64::from(low_bits(bits)) + 1);
    if count > room || count > MOST_PATHS {
        return Err(format!("{} bytes cannot hold {count} paths", rest.bytes.len()));
    }
    let numbers = numbers(rest.bytes, count, bits)?;
    Ok(Compact { bits, numbers })
}

fn cut_short() -> String {
    "it is cut short".to_owned()
}

fn numbers(codes: &[u8], count: u64, bits: u8) -> std::result::Result<Vec<u64>, String> {
    let (range, low) = (range(count, bits), low_bits(bits));
    let mut stream = codes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut numbers = Vec::new();
    let mut number: u64 = 0;
    for _ in 0..count {
        while stream.next().ok_or_else(cut_short)? == 1 {
            number += 1 << low;
            if number >= range {
                return Err("a path is beyond the range of all paths".to_owned());
            }
        }
        let mut distance = 0;
        for _ in 0..low {
            distance = distance << 1 | u64::from(stream.next().ok_or_else(cut_short)?);
        }
        number += distance;
        if number >= range {
            return Err("a path is beyond the range of all paths".to_owned());
        }
        numbers.push(number);
    }
    // What is left is what fills the last byte.
    let mut left = 0;
    for bit in stream {
        left += 1;
        if bit != 0 || left > 7 {
            return Err("something follows the last path".to_owned());
        }
    }
    Ok(numbers)
}

/// What is left to read.
struct Bytes<'a> {
    bytes: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn array<const N: usize>(&mut self) -> std::result::Result<[u8; N], String> {
        let (start, rest) = self.bytes.split_first_chunk::<N>().ok_or_else(cut_short)?;
        self.bytes = rest;
        Ok(*start)
    }

    fn take(&mut self, length: u64) -> std::result::Result<&'a [u8], String> {
        let length = usize::try_from(length).map_err(|_| cut_short())?;
        let (start, rest) = self.bytes.split_at_checked(length).ok_or_else(cut_short)?;
        self.bytes = rest;
        Ok(start)
    }
}
