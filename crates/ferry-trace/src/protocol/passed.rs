//! What is passed on of what came: most of it as it is.

use std::borrow::Cow;

/// What is passed on of some bytes.
pub(super) struct Passed<'a> {
    pub(super) changed: Option<Vec<u8>>,
    /// What follows, as far as is known as it came.
    pub(super) same: &'a [u8],
}

impl<'a> Passed<'a> {
    /// Passes on what stands before `until`, then something new, and goes on at `from`.
    pub(super) fn put(&mut self, until: &[u8], new: &[u8], from: &'a [u8]) {
        let count = self.same.len().saturating_sub(until.len());
        let out = self.changed.get_or_insert_default();
        out.extend_from_slice(self.same.get(..count).unwrap_or_default());
        out.extend_from_slice(new);
        self.same = from;
    }

    pub(super) fn finish(self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match self.changed {
            None => Cow::Borrowed(bytes),
            Some(mut out) => {
                out.extend_from_slice(self.same);
                Cow::Owned(out)
            }
        }
    }
}
