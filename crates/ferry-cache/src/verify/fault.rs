//! What can be wrong with a binary cache.

use ferry_formats::StorePath;

/// A kind of fault. Each has a [name](Self::name), which does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FaultKind {
    /// `nix-cache-info` has lines that are not `NAME: VALUE`.
    BadCacheInfo,
    /// A narinfo that is none, or that is too large for one.
    BadNarinfo,
    /// A narinfo about a path of another hash part than its name has.
    OtherPath,
    /// A path that was asked for has no narinfo.
    MissingPath,
    /// A path refers to one that has no narinfo.
    MissingReference,
    /// The URL of a NAR leads out of the cache, or nowhere.
    BadUrl,
    /// A NAR is compressed in a way that cannot be read here.
    UnknownCompression,
    /// A narinfo names a NAR that is not there.
    NoNar,
    /// The file with a NAR has another size than its narinfo says.
    WrongFileSize,
    /// The file with a NAR has another hash than its narinfo says.
    WrongFileHash,
    /// A file is there and cannot be read.
    Unreadable,
    /// The file with a NAR cannot be decompressed.
    BadCompression,
    /// A NAR has another size than its narinfo says.
    WrongNarSize,
    /// A NAR has another hash than its narinfo says.
    WrongNarHash,
    /// What has the right hash is no NAR.
    MalformedNar,
    /// The deriver is no derivation.
    BadDeriver,
    /// The content address does not give the path.
    WrongContentAddress,
    /// The content does not have the content address.
    WrongContent,
    /// A `Sig` that is no signature; Nix passes over it.
    MalformedSignature,
    /// A signature in the name of a trusted key that this key has not made.
    BadSignature,
    /// Nobody has signed a path that needs it.
    Unsigned,
    /// No key that is trusted has signed a path that needs it.
    Untrusted,
    /// A `.ls` file that is no listing.
    BadListing,
    /// A `.ls` file that lists something else than what is in the NAR.
    WrongListing,
    /// A realisation that is none.
    BadRealisation,
    /// A realisation of a path that has no narinfo.
    DanglingRealisation,
    /// A NAR that no narinfo names.
    OrphanNar,
    /// A listing of a path that has no narinfo.
    OrphanListing,
    /// What a writer was making when it was killed.
    StaleStaging,
}

impl FaultKind {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 29] = [
        Self::BadCacheInfo,
        Self::BadNarinfo,
        Self::OtherPath,
        Self::MissingPath,
        Self::MissingReference,
        Self::BadUrl,
        Self::UnknownCompression,
        Self::NoNar,
        Self::WrongFileSize,
        Self::WrongFileHash,
        Self::Unreadable,
        Self::BadCompression,
        Self::WrongNarSize,
        Self::WrongNarHash,
        Self::MalformedNar,
        Self::BadDeriver,
        Self::WrongContentAddress,
        Self::WrongContent,
        Self::MalformedSignature,
        Self::BadSignature,
        Self::Unsigned,
        Self::Untrusted,
        Self::BadListing,
        Self::WrongListing,
        Self::BadRealisation,
        Self::DanglingRealisation,
        Self::OrphanNar,
        Self::OrphanListing,
        Self::StaleStaging,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadCacheInfo => "bad-cache-info",
            Self::BadNarinfo => "bad-narinfo",
            Self::OtherPath => "other-path",
            Self::MissingPath => "missing-path",
            Self::MissingReference => "missing-reference",
            Self::BadUrl => "bad-url",
            Self::UnknownCompression => "unknown-compression",
            Self::NoNar => "no-nar",
            Self::WrongFileSize => "wrong-file-size",
            Self::WrongFileHash => "wrong-file-hash",
            Self::Unreadable => "unreadable",
            Self::BadCompression => "bad-compression",
            Self::WrongNarSize => "wrong-nar-size",
            Self::WrongNarHash => "wrong-nar-hash",
            Self::MalformedNar => "malformed-nar",
            Self::BadDeriver => "bad-deriver",
            Self::WrongContentAddress => "wrong-content-address",
            Self::WrongContent => "wrong-content",
            Self::MalformedSignature => "malformed-signature",
            Self::BadSignature => "bad-signature",
            Self::Unsigned => "unsigned",
            Self::Untrusted => "untrusted",
            Self::BadListing => "bad-listing",
            Self::WrongListing => "wrong-listing",
            Self::BadRealisation => "bad-realisation",
            Self::DanglingRealisation => "dangling-realisation",
            Self::OrphanNar => "orphan-nar",
            Self::OrphanListing => "orphan-listing",
            Self::StaleStaging => "stale-staging",
        }
    }

    /// Whether it takes up room and does no other harm.
    #[must_use]
    pub fn is_harmless(self) -> bool {
        matches!(self, Self::OrphanNar | Self::OrphanListing | Self::StaleStaging)
    }
}

/// Something that is wrong with a binary cache.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// What kind it is of.
    pub kind: FaultKind,
    /// The file, relative to the cache; made harmless.
    pub file: String,
    /// The path that it concerns, where that is known.
    pub path: Option<StorePath>,
    /// What is wrong, in a sentence without a subject.
    pub message: String,
    /// Of what takes up room in vain: how much, in bytes.
    pub size: Option<u64>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::FaultKind;

    #[test]
    fn every_kind_is_listed_once_and_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), FaultKind::ALL.len());
        assert!(FaultKind::ALL.is_sorted());
    }
}
