//! How long work tells how far it has come. The library knows no terminal: whoever runs it
//! decides what to show.

use ferry_formats::StorePath;

/// Hears what goes on. Called from several threads.
pub trait Progress: Sync {
    /// Work of a known size begins; `what` is a present participle such as `packing`. Where `paths`
    /// is 0, it is not done path by path.
    fn begin(&self, what: &str, paths: u64, bytes: u64);
    /// There are this many more paths than was known when it began.
    fn more(&self, _paths: u64) {}
    /// This many more bytes of NARs have gone by.
    fn bytes(&self, count: u64);
    /// A path is done.
    fn path(&self, path: &StorePath);
    /// A log line from somewhere else, such as a daemon.
    fn message(&self, line: &str);
    /// The work that began last is over, one way or the other.
    fn end(&self);
}

/// Says nothing.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _paths: u64, _bytes: u64) {}
    fn bytes(&self, _count: u64) {}
    fn path(&self, _path: &StorePath) {}
    fn message(&self, _line: &str) {}
    fn end(&self) {}
}
