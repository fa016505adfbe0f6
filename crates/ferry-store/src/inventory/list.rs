//! Inventories as people and other programs write them: a list of store paths, a line each.
//!
//! `nix-store --query --requisites`, `nix path-info --all` and `ferry query` print such lists, and
//! so does `find /nix/store -maxdepth 1`. Empty lines and what follows a `#` at the beginning of a
//! line are passed over, and a path may lack its directory.

use std::io::{BufRead, Read as _};

use ferry_formats::{StoreDir, StorePath};

use crate::{Error, Result};

/// Longer than any store path with its directory: what such a line holds is something else.
const LONGEST_LINE: u64 = 4096;

/// Reads an inventory of paths below `store_dir`; `name` is what to call it in a message.
pub(super) fn read(
    name: &str,
    mut input: impl BufRead,
    store_dir: &StoreDir,
) -> Result<Vec<StorePath>> {
    let mut paths = Vec::new();
    let mut line = Vec::new();
    for number in 1_usize.. {
        line.clear();
        let read = input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        if read.map_err(Error::io(format!("read {name}")))? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") || text == store_dir.as_str().as_bytes() {
            continue;
        }
        let path = match store_dir.parse_path(text) {
            Ok(path) => Ok(path),
            Err(_) => StorePath::from_basename(text),
        };
        paths.push(path.map_err(|source| Error::BadInventory {
            file: name.to_owned(),
            line: number,
            reason: source.to_string(),
        })?);
    }
    Ok(paths)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const BASE: &str = "00000000000000000000000000000000-x";

    fn parsed(text: &str) -> Result<Vec<String>> {
        let paths = read("island.txt", text.as_bytes(), &StoreDir::default())?;
        Ok(paths.iter().map(StorePath::to_basename).collect())
    }

    #[test]
    fn a_line_is_a_path_with_or_without_its_directory() {
        let text = format!("# the island\n/nix/store\n/nix/store/{BASE}\n\n  {BASE}.drv \r\n");
        assert_eq!(parsed(&text).unwrap(), [BASE.to_owned(), format!("{BASE}.drv")]);
        assert_eq!(parsed("").unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_not_a_path_is_told_by_its_line() {
        for bad in ["x", "/nix/store/x", "/gnu/store/00000000000000000000000000000000-x"] {
            let error = parsed(&format!("{BASE}\n{bad}\n")).unwrap_err().to_string();
            assert!(error.starts_with("island.txt, line 2: "), "{error}");
        }
        let long = format!("{BASE}\n{}", "x".repeat(100_000));
        assert!(parsed(&long).unwrap_err().to_string().starts_with("island.txt, line 2: "));
    }
}
