//! What builds have printed, as a store on disk keeps it: `drvs/XX/….drv.bz2` below its directory
//! of logs, or without the last suffix where `compress-build-log` is off.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;

use bzip2::Compression;
use bzip2::read::BzDecoder;
use bzip2::write::BzEncoder;
use ferry_formats::StorePath;

use super::layout::Layout;
use crate::whole_file::write_whole;
use crate::{Error, Result};

const COMPRESSED: &str = ".bz2";

/// Where Nix looks for a log, and how it is compressed there.
fn places(layout: &Layout, derivation: &StorePath) -> [(PathBuf, bool); 4] {
    let name = derivation.to_basename();
    let (first, rest) = name.split_at_checked(2).unwrap_or(("", &name));
    let logs = layout.log_dir().join("drvs");
    let (nested, flat) = (logs.join(first).join(rest), logs.join(&name));
    let compressed = |place: &PathBuf| {
        let mut place = place.clone().into_os_string();
        place.push(COMPRESSED);
        PathBuf::from(place)
    };
    let (nested_compressed, flat_compressed) = (compressed(&nested), compressed(&flat));
    [(nested, false), (nested_compressed, true), (flat, false), (flat_compressed, true)]
}

/// Opens a log, if there is one.
pub(super) fn open(
    layout: &Layout,
    derivation: &StorePath,
) -> Result<Option<Box<dyn Read + Send>>> {
    for (place, is_compressed) in places(layout, derivation) {
        match File::open(&place) {
            Ok(file) if is_compressed => return Ok(Some(Box::new(BzDecoder::new(file)))),
            Ok(file) => return Ok(Some(Box::new(file))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::io(format!("read the build log {}", place.display()))(error));
            }
        }
    }
    Ok(None)
}

/// Whether there is a log.
pub(super) fn is_there(layout: &Layout, derivation: &StorePath) -> bool {
    places(layout, derivation).iter().any(|(place, _)| place.exists())
}

/// Keeps a log where Nix looks for it.
pub(super) fn add(layout: &Layout, derivation: &StorePath, log: &mut dyn Read) -> Result<()> {
    let [_, (place, _), ..] = places(layout, derivation);
    let failed = || Error::io(format!("write the build log {}", place.display()));
    let directory = place.parent().unwrap_or(&place);
    fs::create_dir_all(directory).map_err(failed())?;
    // As Nix leaves them: anybody may read.
    write_whole(&place, 0o644, |file| {
        let mut encoder = BzEncoder::new(file, Compression::best());
        io::copy(log, &mut encoder)?;
        encoder.finish().map(drop)
    })
    .map_err(failed())
}
