//! The Nix versions under test.

use std::fmt;

/// A real Nix version, and with it the Debian suite that ships it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)]
pub enum NixVersion {
    /// Nix 2.8, from Debian bookworm.
    V2_8,
    /// Nix 2.26, from Debian trixie.
    V2_26,
    /// Nix 2.34, from Debian sid.
    V2_34,
}

impl NixVersion {
    /// Every version under test, oldest first.
    pub const ALL: [Self; 3] = [Self::V2_8, Self::V2_26, Self::V2_34];

    /// The Debian suite whose root holds this version.
    pub fn suite(self) -> &'static str {
        match self {
            Self::V2_8 => "bookworm",
            Self::V2_26 => "trixie",
            Self::V2_34 => "sid",
        }
    }
}

impl fmt::Display for NixVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2_8 => "2.8",
            Self::V2_26 => "2.26",
            Self::V2_34 => "2.34",
        })
    }
}
