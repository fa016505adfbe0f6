//! The derivations of a real small system: third-party data, which stands beside the tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The texts of the derivations by the names of their files, `HASH-NAME.drv`; or `None`, loudly,
/// where the data are not there.
pub fn real_derivations() -> Option<BTreeMap<String, Vec<u8>>> {
    let beside = "../../../shared/data/ekaos-minimal-drvs.tar.zst";
    derivations_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join(beside))
}

/// The same out of any archive, a tar file that zstd made smaller.
pub fn derivations_in(archive: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    let Ok(file) = File::open(archive) else {
        eprintln!("NOT TESTED: the real derivations are not at {}", archive.display());
        return None;
    };
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).expect("a zstd file"));
    let mut found = BTreeMap::new();
    for entry in archive.entries().expect("a tar file") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").into_owned();
        let Some(base) = name.file_name().and_then(|base| base.to_str()) else { continue };
        if base.ends_with(".drv") {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).expect("contents");
            found.insert(base.to_owned(), text);
        }
    }
    Some(found)
}
