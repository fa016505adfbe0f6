//! Where a NAR ends that comes bare, with something or nothing behind it.
//!
//! A daemon answers with the NAR alone, and then waits for the next request: who reads more than
//! there is waits for ever. The size on record helps only as long as the object is what it was
//! when it was registered. So the words of the NAR are followed to the parenthesis that closes
//! it; whether they are the right words is for whoever decodes them.

use std::io::{self, Read};

/// Reads one NAR, and then the end of the file.
pub(crate) struct OneNar<R> {
    reader: R,
    word: Word,
    depth: u64,
    /// Whether the next word is a name, a target or contents, and so means nothing here.
    is_data: bool,
    ended: bool,
}

enum Word {
    /// So many bytes of its length are known.
    Length([u8; 8], usize),
    /// So many bytes of it and its padding are to come; its first bytes, and its length.
    Bytes { left: u64, first: Vec<u8>, length: u64 },
}

/// Longest word that means something: `contents`.
const LONGEST: usize = 8;

impl<R: Read> OneNar<R> {
    pub(crate) fn new(reader: R) -> Self {
        let word = Word::Length([0; 8], 0);
        Self { reader, word, depth: 0, is_data: false, ended: false }
    }

    fn follow(&mut self, bytes: &[u8]) {
        match &mut self.word {
            Word::Length(length, known) => {
                for (place, byte) in length.iter_mut().skip(*known).zip(bytes) {
                    *place = *byte;
                }
                *known += bytes.len();
                if *known == length.len() {
                    let length = u64::from_le_bytes(*length);
                    let left = length.checked_next_multiple_of(8).unwrap_or(u64::MAX);
                    self.word = Word::Bytes { left, first: Vec::new(), length };
                }
            }
            Word::Bytes { left, first, .. } => {
                let wanted = LONGEST - first.len();
                first.extend(bytes.iter().take(wanted));
                *left -= bytes.len() as u64;
            }
        }
        if let Word::Bytes { left: 0, first, length } = &self.word {
            let word = usize::try_from(*length).ok().and_then(|length| first.get(..length));
            let is_data = std::mem::replace(&mut self.is_data, false);
            match word.filter(|_| !is_data) {
                Some(b"(") => self.depth += 1,
                Some(b")") => {
                    self.depth = self.depth.saturating_sub(1);
                    self.ended = self.depth == 0;
                }
                Some(b"contents" | b"target" | b"name") => self.is_data = true,
                _ => {}
            }
            self.word = Word::Length([0; 8], 0);
        }
    }
}

impl<R: Read> Read for OneNar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let most = match &self.word {
            Word::Length(length, known) => length.len() - known,
            Word::Bytes { left, .. } => usize::try_from(*left).unwrap_or(usize::MAX),
        };
        let most = most.min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let count = self.reader.read(buffer)?;
        self.follow(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_formats::nar::Encoder;

    fn motley() -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new()).unwrap();
        encoder.start_directory(None).unwrap();
        // Names, contents and targets that look like the words around them.
        for name in ["(", ")", "contents", "name"] {
            let name = Some(name.as_bytes());
            encoder.regular(name, false, b")\0\0\0\0\0\0\0").unwrap();
        }
        encoder.start_directory(Some(b"sub")).unwrap();
        encoder.regular(Some(b"empty"), true, b"").unwrap();
        encoder.symlink(Some(b"link"), b")").unwrap();
        encoder.end_directory().unwrap();
        encoder.end_directory().unwrap();
        encoder.finish().unwrap()
    }

    /// Gives so many bytes at a time at most.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(buffer.len());
            self.0.read(&mut buffer[..most])
        }
    }

    #[test]
    fn the_end_is_found_whatever_follows_and_however_it_arrives() {
        let file = ferry_formats::nar::of_file(b"contents");
        for nar in [motley(), file] {
            let followed = [&nar[..], b"and then something else"].concat();
            for step in [1, 3, 8, 13, 4096] {
                let mut found = Vec::new();
                OneNar::new(Dribble(&followed, step)).read_to_end(&mut found).unwrap();
                assert_eq!(found, nar, "in pieces of {step}");
            }
        }
    }

    #[test]
    fn what_is_no_nar_ends_with_its_source() {
        for bytes in [&b""[..], b"short", &[0xff; 64], &[0; 64]] {
            let mut found = Vec::new();
            OneNar::new(bytes).read_to_end(&mut found).unwrap();
            assert_eq!(found, bytes);
        }
    }
}
