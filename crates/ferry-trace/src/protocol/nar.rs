//! Where a NAR ends.
//!
//! Nobody says how long a NAR is that stands in the protocol as it is: one has to follow its
//! parentheses, and pass over what people have put between them.

/// Finds the end of a NAR, string by string.
#[derive(Clone, Debug, Default)]
pub(super) struct NarEnd {
    depth: u64,
    /// Whether the next string is somebody's, and means nothing.
    is_content: bool,
}

/// No keyword is longer.
pub(super) const KEYWORD: usize = 16;

impl NarEnd {
    /// Takes the next string, of which the beginning is enough, and tells whether it was the last;
    /// `None` if no NAR has such a string there.
    pub(super) fn string(&mut self, text: &[u8]) -> Option<bool> {
        if std::mem::take(&mut self.is_content) {
            return Some(false);
        }
        match text {
            b"nix-archive-1" | b"entry" | b"node" => {}
            b"type" | b"executable" | b"contents" | b"target" | b"name" => self.is_content = true,
            b"(" => self.depth = self.depth.checked_add(1)?,
            b")" => {
                self.depth = self.depth.checked_sub(1)?;
                return Some(self.depth == 0);
            }
            _ => return None,
        }
        Some(false)
    }
}
