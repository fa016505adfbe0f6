//! What stands at the beginning of a volume, and where its parts are.

use sha2::{Digest as _, Sha256};

/// How a volume begins.
pub(crate) const MAGIC: [u8; 9] = *b"\x89FERRYV\r\n";
/// The part of [`MAGIC`] that survives a transfer as text.
pub(crate) const MARK: &[u8] = b"\x89FERRYV";
/// Length of a header in bytes.
pub(crate) const HEADER: usize = 141;
/// Length of a digest in bytes.
pub(crate) const DIGEST: usize = 32;
/// Most volumes of one bundle, as their names have three digits.
pub(crate) const MOST_VOLUMES: u32 = 999;
/// Bytes that have a digest of their own.
pub(crate) const LEAF: u32 = 64 << 10;

const VERSION: u32 = 1;
const LEAST_LEAF: u32 = 64;
const MOST_LEAF: u32 = 1 << 20;
/// What the lengths of parity are multiples of.
const UNIT: u64 = 64;

/// How a bundle is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// How many volumes hold the bundle; they are numbered from 1.
    pub(crate) data: u32,
    /// How many volumes behind them hold parity.
    pub(crate) parity: u32,
    /// Size of the bundle in bytes.
    pub(crate) size: u64,
    /// How much of it each volume holds, except the last.
    pub(crate) capacity: u64,
    /// How many bytes have a digest of their own.
    pub(crate) leaf: u32,
}

impl Layout {
    pub(crate) fn all(&self) -> u32 {
        self.data + self.parity
    }

    pub(crate) fn is_data(&self, number: u32) -> bool {
        number <= self.data
    }

    /// How many bytes of data or parity a volume holds.
    pub(crate) fn length(&self, number: u32) -> u64 {
        if self.is_data(number) {
            let before = u64::from(number - 1) * self.capacity;
            self.size.saturating_sub(before).min(self.capacity)
        } else {
            self.capacity.min(self.size).next_multiple_of(UNIT)
        }
    }

    /// How many leaves that is.
    pub(crate) fn leaves(&self, number: u32) -> u64 {
        self.length(number).div_ceil(u64::from(self.leaf))
    }

    /// How many stripes there are: a stripe is one leaf of each volume.
    pub(crate) fn stripes(&self) -> u64 {
        self.leaves(1)
    }

    /// The length of one leaf, 0 behind the last.
    pub(crate) fn leaf_length(&self, number: u32, stripe: u64) -> usize {
        let before = stripe * u64::from(self.leaf);
        let left = self.length(number).saturating_sub(before).min(u64::from(self.leaf));
        usize::try_from(left).unwrap_or(0)
    }

    /// How long all leaves of a stripe are with the zeros that fill them up for parity.
    pub(crate) fn shard_length(&self, stripe: u64) -> usize {
        self.leaf_length(1, stripe).next_multiple_of(64)
    }

    /// Where a leaf begins in its file; its digest follows it.
    pub(crate) fn leaf_at(&self, stripe: u64) -> u64 {
        HEADER as u64 + stripe * (u64::from(self.leaf) + DIGEST as u64)
    }

    /// How many leaves begin in a file of so many bytes.
    pub(crate) fn leaves_in_file(&self, size: u64) -> u64 {
        size.saturating_sub(HEADER as u64).div_ceil(u64::from(self.leaf) + DIGEST as u64)
    }

    /// Size of the file of a volume.
    pub(crate) fn file_size(&self, number: u32) -> u64 {
        HEADER as u64 + self.length(number) + self.leaves(number) * DIGEST as u64
    }

    fn check(&self) -> Result<(), String> {
        let leaf = u64::from(self.leaf);
        let sound = (LEAST_LEAF..=MOST_LEAF).contains(&self.leaf)
            && self.leaf.is_power_of_two()
            && self.capacity > 0
            && self.capacity.is_multiple_of(leaf)
            && self.capacity < 1 << 60
            && self.size > 0
            && u64::from(self.data) == self.size.div_ceil(self.capacity)
            && self.data <= MOST_VOLUMES
            && self.parity <= MOST_VOLUMES
            && self.all() <= MOST_VOLUMES;
        if sound { Ok(()) } else { Err("its sizes do not fit each other".to_owned()) }
    }
}

/// How much of a bundle fits into a file that is smaller than `limit`, in whole leaves.
pub(crate) fn capacity(limit: u64, leaf: u32) -> Option<u64> {
    let with_digest = u64::from(leaf) + DIGEST as u64;
    let leaves = limit.saturating_sub(1 + HEADER as u64) / with_digest;
    (leaves > 0 && leaves < 1 << 40).then_some(leaves * u64::from(leaf))
}

/// What a volume says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its number, from 1.
    pub(crate) number: u32,
    pub(crate) layout: Layout,
    /// SHA-256 of all of the bundle.
    pub(crate) bundle: [u8; DIGEST],
    /// SHA-256 of the digests of its leaves.
    pub(crate) root: [u8; DIGEST],
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        for number in [self.number, self.layout.data, self.layout.parity, self.layout.leaf] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.layout.size.to_le_bytes());
        bytes.extend_from_slice(&self.layout.capacity.to_le_bytes());
        bytes.extend_from_slice(&self.bundle);
        bytes.extend_from_slice(&self.root);
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        bytes
    }

    /// Reads what [`Header::encode`] makes; says what is wrong with anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes;
        let magic: [u8; 9] = array(&mut rest)?;
        if magic != MAGIC {
            return Err(if magic.starts_with(MARK) {
                "its line ends were changed: it was transferred as text".to_owned()
            } else {
                "it does not begin like a volume".to_owned()
            });
        }
        let version = u32::from_le_bytes(array(&mut rest)?);
        let mut number = || array(&mut rest).map(u32::from_le_bytes);
        let [number, data, parity, leaf] = [number()?, number()?, number()?, number()?];
        let size = u64::from_le_bytes(array(&mut rest)?);
        let capacity = u64::from_le_bytes(array(&mut rest)?);
        let layout = Layout { data, parity, size, capacity, leaf };
        let header = Self { number, layout, bundle: array(&mut rest)?, root: array(&mut rest)? };
        let digest: [u8; DIGEST] = array(&mut rest)?;
        let before = bytes.get(..HEADER - DIGEST).unwrap_or_default();
        if Sha256::digest(before).as_slice() != digest {
            return Err("the digest of its header is wrong".to_owned());
        }
        if version != VERSION {
            return Err(format!("it has version {version}; this ferry reads version {VERSION}"));
        }
        layout.check()?;
        if number == 0 || number > layout.all() {
            return Err(format!("it is number {number} of {}", layout.all()));
        }
        Ok(header)
    }

    /// Whether two volumes are of the same bundle, divided in the same way.
    pub(crate) fn belongs_with(&self, other: &Self) -> bool {
        self.layout == other.layout && self.bundle == other.bundle
    }
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (start, rest) =
        bytes.split_first_chunk::<N>().ok_or_else(|| "its header is cut short".to_owned())?;
    *bytes = rest;
    Ok(*start)
}

/// The digest of a leaf, which holds for its place only.
pub(crate) fn leaf_digest(number: u32, stripe: u64, data: &[u8]) -> [u8; DIGEST] {
    let mut hasher = Sha256::new();
    hasher.update(number.to_le_bytes());
    hasher.update(stripe.to_le_bytes());
    hasher.update(data);
    hasher.finalize().into()
}
