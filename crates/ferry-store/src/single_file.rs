//! NARs of one plain file, such as derivations, read into memory.

use std::io::Read;

use ferry_formats::{NarHash, PathInfo, StoreDir, nar};

use crate::{Error, Result};

/// Largest `.drv` that is read into memory, in bytes of NAR. The largest real ones are below 1 MB.
pub const MAX_DERIVATION_NAR: u64 = 64 << 20;

/// Reads a NAR that has to hold one plain file, checks its hash, and returns the file's contents.
///
/// # Errors
/// When it is too large ([`MAX_DERIVATION_NAR`]), is not what `info` says, or holds another kind
/// of object.
pub fn read_single_file(
    store_dir: &StoreDir,
    info: &PathInfo,
    nar: &mut dyn Read,
) -> Result<Vec<u8>> {
    let path = || store_dir.render_path(&info.path);
    if info.nar_size > MAX_DERIVATION_NAR {
        return Err(Error::MalformedNar {
            path: path(),
            reason: format!("{} bytes is too large for a derivation", info.nar_size),
        });
    }
    let mut bytes = Vec::new();
    nar.take(info.nar_size)
        .read_to_end(&mut bytes)
        .map_err(Error::io(format!("read the NAR of {}", path())))?;
    let found = NarHash::of(&bytes);
    if found != info.nar_hash {
        return Err(Error::WrongNarHash {
            path: path(),
            expected: info.nar_hash.to_string(),
            found: found.to_string(),
        });
    }
    nar::file_contents(&bytes).map(<[u8]>::to_vec).ok_or_else(|| Error::MalformedNar {
        path: path(),
        reason: "it is not a single plain file".to_owned(),
    })
}
