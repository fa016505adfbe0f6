//! What an expression names: files, and what makes it unrepeatable. Found by its tokens alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_store::evaluation::normal;
use rnix::SyntaxKind;

/// Larger files are no Nix expressions, in bytes.
const LARGEST: u64 = 16 << 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Files and directories that are named as seen from an expression; they may not be there.
    pub(super) paths: BTreeSet<PathBuf>,
    /// Those that are named from the root on.
    pub(super) absolute: BTreeSet<PathBuf>,
    /// Absolute paths that stand in strings.
    pub(super) mentioned: BTreeSet<PathBuf>,
    /// What is looked up as `<name>`.
    pub(super) lookups: BTreeSet<String>,
    /// Uses of these: `currentTime`, `getEnv`, `nixPath`, and fetchers without a revision.
    pub(super) uses: BTreeSet<&'static str>,
}

impl Found {
    /// Adds what was found elsewhere.
    pub(super) fn extend(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.absolute.extend(other.absolute);
        self.mentioned.extend(other.mentioned);
        self.lookups.extend(other.lookups);
        self.uses.extend(other.uses);
    }
}

/// Built-in functions whose results differ from one day or place to another.
const IMPURE: [&str; 4] = ["currentTime", "getEnv", "nixPath", "findFile"];

/// Looks at a file.
pub(super) fn file(path: &Path, found: &mut Found) {
    let is_small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= LARGEST);
    if let Some(directory) = path.parent()
        && is_small
        && let Ok(bytes) = fs::read(path)
        && let Ok(source) = String::from_utf8(bytes)
    {
        text(&source, directory, found);
    }
}

/// Looks at an expression whose relative paths start from `directory`.
pub(super) fn text(source: &str, directory: &Path, found: &mut Found) {
    let tree = rnix::Root::parse(source).syntax();
    let tokens: Vec<rnix::SyntaxToken> = tree
        .descendants_with_tokens()
        .filter_map(|element| element.into_token())
        .filter(|token| !token.kind().is_trivia())
        .collect();
    for (place, token) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(place + ahead).map(|next| (next.kind(), next.text()));
        let before = token.prev_token().map(|before| before.kind());
        let (kind, token) = (token.kind(), token.text());
        match kind {
            SyntaxKind::TOKEN_PATH_REL | SyntaxKind::TOKEN_PATH_ABS => {
                // What follows an interpolation is not known.
                if before == Some(SyntaxKind::TOKEN_INTERPOL_END) {
                    continue;
                }
                let is_cut = matches!(next(1), Some((SyntaxKind::TOKEN_INTERPOL_START, _)));
                let known = match is_cut {
                    true => token.rsplit_once('/').map_or("", |(directory, _)| directory),
                    false => token,
                };
                if !known.is_empty() {
                    let is_absolute = kind == SyntaxKind::TOKEN_PATH_ABS;
                    let paths = if is_absolute { &mut found.absolute } else { &mut found.paths };
                    paths.insert(normal(&directory.join(known)));
                }
            }
            SyntaxKind::TOKEN_PATH_SEARCH => {
                let name = token.trim_start_matches('<').trim_end_matches('>');
                found.lookups.insert(name.to_owned());
            }
            SyntaxKind::TOKEN_STRING_CONTENT if token.starts_with('/') => {
                found.mentioned.insert(normal(Path::new(token)));
            }
            SyntaxKind::TOKEN_IDENT => {
                if let Some(name) = IMPURE.into_iter().find(|name| *name == token) {
                    found.uses.insert(name);
                }
                if matches!(token, "fetchGit" | "fetchMercurial") && !has_revision(next) {
                    found.uses.insert("fetchGit");
                }
            }
            _ => {}
        }
    }
}

/// Whether the argument of a fetcher has a revision, as far as can be seen here.
fn has_revision<'a>(next: impl Fn(usize) -> Option<(SyntaxKind, &'a str)>) -> bool {
    match next(1) {
        Some((SyntaxKind::TOKEN_STRING_START | SyntaxKind::TOKEN_URI, _)) => false,
        Some((SyntaxKind::TOKEN_L_BRACE, _)) => {
            let mut depth = 0_usize;
            for ahead in 1.. {
                match next(ahead) {
                    Some((SyntaxKind::TOKEN_L_BRACE | SyntaxKind::TOKEN_INTERPOL_START, _)) => {
                        depth += 1;
                    }
                    Some((SyntaxKind::TOKEN_R_BRACE | SyntaxKind::TOKEN_INTERPOL_END, _)) => {
                        depth = depth.saturating_sub(1);
                    }
                    Some((SyntaxKind::TOKEN_IDENT, "rev" | "narHash")) => return true,
                    Some(_) => {}
                    None => return false,
                }
                if depth == 0 {
                    return false;
                }
            }
            false
        }
        // It comes from elsewhere.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_look_ups_and_impurities_are_found_in_an_expression() {
        let mut found = Found::default();
        let source = r#"
            # ./comment.nix
            let now = builtins.currentTime; in import <nixpkgs/nixos> {
              a = ./a.txt; b = ../b; c = ./c/${now}.txt; d = "/nix/store/x"; e = "./string";
              f = builtins.fetchGit { url = "x"; ref = "main"; };
            }"#;
        text(source, Path::new("/top/dir"), &mut found);
        let paths: Vec<&str> = found.paths.iter().filter_map(|path| path.to_str()).collect();
        assert_eq!(paths, ["/top/b", "/top/dir/a.txt", "/top/dir/c"]);
        assert_eq!(found.mentioned.iter().collect::<Vec<_>>(), [Path::new("/nix/store/x")]);
        assert_eq!(found.lookups.iter().collect::<Vec<_>>(), ["nixpkgs/nixos"]);
        assert_eq!(found.uses.iter().collect::<Vec<_>>(), [&"currentTime", &"fetchGit"]);

        for locked in ["fetchGit { url = ./.; rev = \"x\"; }", "fetchGit source", "x.getEnvy"] {
            let mut found = Found::default();
            text(locked, Path::new("/"), &mut found);
            assert!(found.uses.is_empty(), "{locked}: {:?}", found.uses);
        }
    }
}
