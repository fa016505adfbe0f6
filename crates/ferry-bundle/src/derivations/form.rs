//! The form that texts of derivations have: what is looked at without a code.

use ferry_formats::base16::from_hex;
use ferry_formats::derivation_parts::{Parts, is_escaped_as_nix_does, split};

use crate::derivations::model::{Addressing, Kind};

/// Characters in the hash part of a store path.
pub(super) const HASH: usize = 32;

/// The kind of an output, and the digest of a fixed one.
pub(crate) fn kind_of([_, path, method, hash]: &[&[u8]; 4]) -> Option<(Kind, Box<[u8]>)> {
    let kind = match (method.is_empty(), path.is_empty(), *hash) {
        (true, true, b"") => Kind::Deferred,
        (true, false, b"") => Kind::InputAddressed,
        (true, ..) => return None,
        (false, true, b"") => Kind::Floating(Addressing::parse(method)?),
        (false, true, b"impure") => Kind::Impure(Addressing::parse(method)?),
        (false, false, hash) => {
            return Some((Kind::Fixed(Addressing::parse(method)?), from_hex(hash)?));
        }
        (false, true, _) => return None,
    };
    Some((kind, Box::default()))
}

/// Whether a reader would take the strings and keys of a derivation: with the escapes that Nix
/// writes. (Those of a base are taken as they are.)
pub(super) fn can_be_read(text: &[u8]) -> bool {
    let keys = |parts: &Parts<'_>| {
        parts.environment.iter().all(|(key, _)| key.iter().all(|byte| *byte > 8))
    };
    is_escaped_as_nix_does(text) && split(text).as_ref().is_some_and(keys)
}

/// The hash part of the store path that a text begins with.
pub(super) fn hash_part(text: &[u8], prefix: &[u8]) -> Option<[u8; HASH]> {
    text.strip_prefix(prefix)?.get(..HASH)?.try_into().ok()
}
