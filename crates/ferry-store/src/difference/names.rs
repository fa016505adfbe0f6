//! Names and versions of packages, out of store paths.

use ferry_formats::StorePath;

/// What a store path's name says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The package.
    pub name: String,
    /// Its version, without the name of an output; empty where there is none.
    pub version: String,
    /// Whether it is its derivation.
    pub derivation: bool,
}

/// Takes a name apart as Nix does (`DrvName`): the version begins behind the first dash that no
/// letter follows. What stands behind a version in small letters is taken for the name of an
/// output, as in `nix store diff-closures`.
#[must_use]
pub fn parse_name(path: &StorePath) -> Named {
    let whole = path.name();
    let (text, derivation) = match whole.strip_suffix(".drv") {
        Some(text) if !text.is_empty() => (text, true),
        _ => (whole, false),
    };
    let is_version = |behind: &str| {
        behind.chars().next().is_some_and(|character| !character.is_ascii_alphabetic())
    };
    let dash = text.match_indices('-').find(|(at, _)| text.get(at + 1..).is_some_and(is_version));
    let (name, mut version) = match dash {
        Some((at, _)) => (text.get(..at).unwrap_or(text), text.get(at + 1..).unwrap_or_default()),
        None => (text, ""),
    };
    if let (false, Some((shorter, output))) = (derivation, version.rsplit_once('-'))
        && is_output(output)
    {
        version = shorter;
    }
    Named { name: name.to_owned(), version: version.to_owned(), derivation }
}

fn is_output(text: &str) -> bool {
    matches!(text, "lib32" | "lib64")
        || (!text.is_empty() && text.chars().all(|character| character.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        for (text, name, version, derivation) in [
            ("hello-2.12.1", "hello", "2.12.1", false),
            ("hello-2.12.1.drv", "hello", "2.12.1", true),
            ("openssl-3.0.14-bin", "openssl", "3.0.14", false),
            ("zlib-1.3-lib64", "zlib", "1.3", false),
            ("gcc-wrapper-13.2.0", "gcc-wrapper", "13.2.0", false),
            ("source", "source", "", false),
            ("fix-something.patch", "fix-something.patch", "", false),
            ("x-2024-01-01-unstable.drv", "x", "2024-01-01-unstable", true),
            ("a-", "a-", "", false),
        ] {
            let path = StorePath::from_parts([0; 20], text).unwrap();
            let name = name.to_owned();
            let version = version.to_owned();
            assert_eq!(parse_name(&path), Named { name, version, derivation }, "{text}");
        }
    }
}
