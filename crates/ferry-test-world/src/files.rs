//! What is in a directory of the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The files below a directory, by their names relative to it, with what is in them.
pub fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        let entries = fs::read_dir(&next)
            .unwrap_or_else(|error| panic!("cannot list {}: {error}", next.display()));
        for entry in entries {
            let path = entry
                .unwrap_or_else(|error| panic!("cannot list {}: {error}", next.display()))
                .path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(directory).unwrap_or(&path);
            let name = name
                .to_str()
                .unwrap_or_else(|| panic!("{} is not called in UTF-8", path.display()))
                .to_owned();
            let bytes = fs::read(&path)
                .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
            found.insert(name, bytes);
        }
    }
    found
}
