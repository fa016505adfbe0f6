//! Numbers and names of the file format, all in one place. See `docs/bundle-format.md`.

/// The format version written. This and all earlier ones are read.
pub const VERSION: u32 = 1;

/// First bytes of every bundle. The first one is not ASCII and the last two are a line end, so
/// that a transfer that takes the file for text is noticed.
pub const MAGIC: [u8; 8] = *b"\x89FERRY\r\n";

/// Section names. `DRVS` is not in version 0: its derivations stand among the NARs.
pub(crate) mod section {
    pub(crate) const MANIFEST: [u8; 4] = *b"MANI";
    pub(crate) const INDEX: [u8; 4] = *b"INDX";
    pub(crate) const DERIVATIONS: [u8; 4] = *b"DRVS";
    pub(crate) const BASES: [u8; 4] = *b"BASE";
    pub(crate) const SIGNATURES: [u8; 4] = *b"SIGN";
    pub(crate) const BLOCK: [u8; 4] = *b"BLCK";
    pub(crate) const END: [u8; 4] = *b"TAIL";
}

/// Bytes of NAR in every block but the last, before compression.
pub(crate) const BLOCK_SIZE: usize = 4 << 20;

/// Largest sections accepted, in bytes.
pub(crate) mod limit {
    use super::BLOCK_SIZE;

    pub(crate) const MANIFEST: u64 = 64 << 20;
    /// Compressed. A million paths take about 80 MB.
    pub(crate) const INDEX: u64 = 1 << 30;
    /// How far the index may grow when it is decompressed. It is made of digests, which do not
    /// compress: more than this is an attack.
    pub(crate) const INDEX_RATIO: u64 = 32;
    pub(crate) const INDEX_SLACK: u64 = 1 << 20;
    pub(crate) const INDEX_PLAIN: u64 = 4 << 30;
    pub(crate) const DERIVATIONS: u64 = 1 << 30;
    /// How far a stream may grow when it is decompressed. One that would grow more is stored as
    /// it is, so this keeps nobody from writing anything.
    pub(crate) const STREAM_RATIO: u64 = 64;
    pub(crate) const STREAM_SLACK: u64 = 64 << 10;
    pub(crate) const STREAM_PLAIN: u64 = 4 << 30;
    /// Powers of two of the largest window that takes part in compression.
    pub(crate) const WINDOW_LOG: u32 = 27;
    /// A derivation takes seven bytes before compression, or more.
    pub(crate) const DERIVATIONS_SLACK: u64 = 16 << 10;
    /// Largest text of a coded derivation. Real ones are below a megabyte, and larger ones are
    /// carried as they are.
    pub(crate) const DERIVATION: usize = 16 << 20;
    /// How much text derivations may have for each byte of their section. Real ones have 40.
    pub(crate) const TEXT_RATIO: u64 = 1024;
    pub(crate) const TEXT_SLACK: u64 = 64 << 20;
    pub(crate) const REFERENCES_SLACK: u64 = 1 << 16;
    pub(crate) const BASES: u64 = 64 << 20;
    pub(crate) const SIGNATURES: u64 = 1 << 20;
    /// A block that does not compress grows a little.
    pub(crate) const BLOCK: u64 = (BLOCK_SIZE + (BLOCK_SIZE >> 7) + 1024 + RANGES_SIZE) as u64;
    /// How many ranges a block may be packed against, and how many bytes they may have together.
    pub(crate) const RANGES: usize = 1024;
    pub(crate) const PREFIX: usize = 32 << 20;
    /// What they take at most: three numbers each, and their count.
    pub(crate) const RANGES_SIZE: usize = RANGES * 30 + 10;
    /// How much of the payload is held in memory for later blocks to refer to.
    pub(crate) const HELD: u64 = 64 << 20;
}

/// How much of each kind an index may hold, given its compressed size. Each takes more room in
/// memory than in the file, where it may take next to none; real ones stay far below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amounts {
    /// A path has a digest of 20 bytes, which does not compress.
    pub(crate) entries: u64,
    /// References are numbers, and those of similar paths are alike.
    pub(crate) references: u64,
    /// A signature has 64 bytes that do not compress.
    pub(crate) signatures: u64,
}

impl Amounts {
    /// The most that an index of `packed` compressed bytes may hold.
    pub(crate) fn most(packed: u64) -> Self {
        Self {
            entries: packed / 16 + 1024,
            references: packed.saturating_mul(8) + (1 << 16),
            signatures: packed / 32 + 1024,
        }
    }

    /// What is left without `others`.
    pub(crate) fn less(self, others: Self) -> Self {
        Self {
            entries: self.entries.saturating_sub(others.entries),
            references: self.references.saturating_sub(others.references),
            signatures: self.signatures.saturating_sub(others.signatures),
        }
    }

    /// What does not fit into `most`, if anything.
    pub(crate) fn excess(self, most: Self) -> Option<String> {
        [
            (self.entries, most.entries, "paths"),
            (self.references, most.references, "references"),
            (self.signatures, most.signatures, "signatures"),
        ]
        .into_iter()
        .find(|(found, most, _)| found > most)
        .map(|(_, most, what)| format!("more than {most} {what}"))
    }
}

/// What the signatures of a bundle sign: this with its version, and the digest of its head in
/// base 32.
pub(crate) fn signed_prefix(version: u32) -> String {
    format!("ferry-bundle-{version};sha256:")
}
