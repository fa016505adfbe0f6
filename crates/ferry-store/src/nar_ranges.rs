//! NARs read at any position.

use ferry_formats::StorePath;

use crate::Result;

/// Where parts of the NARs of store paths can be read.
pub trait NarRanges: Send + Sync {
    /// What to call it in a message.
    fn describe(&self) -> String;

    /// Fills `buffer` with what stands at `offset` bytes in the NAR of `path`.
    ///
    /// # Errors
    /// When the path is not valid there, its NAR is shorter, or it cannot be read.
    fn read_range(&self, path: &StorePath, offset: u64, buffer: &mut [u8]) -> Result<()>;
}
