//! NARs written word by word, so that any rule of theirs can be broken.

/// A NAR in the making.
#[derive(Clone)]
pub(crate) struct Wire(pub(crate) Vec<u8>);

impl Wire {
    /// With the words that every NAR begins with.
    pub(crate) fn new() -> Self {
        Self(Vec::new()).word(b"nix-archive-1")
    }

    /// A length, the bytes, and zeros up to a multiple of eight.
    pub(crate) fn word(mut self, bytes: &[u8]) -> Self {
        self.0.extend((bytes.len() as u64).to_le_bytes());
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }

    pub(crate) fn words(self, words: &[&str]) -> Self {
        words.iter().fold(self, |wire, word| wire.word(word.as_bytes()))
    }

    pub(crate) fn file(self, contents: &[u8]) -> Self {
        self.words(&["(", "type", "regular", "contents"]).word(contents).words(&[")"])
    }

    pub(crate) fn executable(self, contents: &[u8]) -> Self {
        let marked = self.words(&["(", "type", "regular", "executable", "", "contents"]);
        marked.word(contents).words(&[")"])
    }

    pub(crate) fn symlink(self, target: &[u8]) -> Self {
        self.words(&["(", "type", "symlink", "target"]).word(target).words(&[")"])
    }

    pub(crate) fn directory(self, inside: impl FnOnce(Self) -> Self) -> Self {
        inside(self.words(&["(", "type", "directory"])).words(&[")"])
    }

    pub(crate) fn entry(self, name: &[u8], node: impl FnOnce(Self) -> Self) -> Self {
        node(self.words(&["entry", "(", "name"]).word(name).words(&["node"])).words(&[")"])
    }
}
