//! Reading and writing the small values that sections are made of: unsigned LEB128 numbers, and
//! bytes with their length in front.

/// A value that is not well-formed, at a position within the section.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) position: usize,
    pub(crate) reason: String,
}

/// Appends a number.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends bytes and their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes values off the front of a section.
pub(crate) struct Take<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Take<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn malformed<T>(&self, reason: impl Into<String>) -> Result<T, Malformed> {
        Err(Malformed { position: self.position, reason: reason.into() })
    }

    /// How many bytes were taken.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub(crate) fn exactly(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.position.checked_add(count);
        let Some(taken) = end.and_then(|end| self.bytes.get(self.position..end)) else {
            return self.malformed(format!("{count} bytes wanted, {} left", self.remaining()));
        };
        self.position += count;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.exactly(N)?;
        taken.try_into().or_else(|_| self.malformed("wrong length"))
    }

    /// A number in its shortest form; another form would let two files say the same thing.
    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let mut number: u64 = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let low = u64::from(byte & 0x7f);
            if low.leading_zeros() < shift || (byte == 0 && shift > 0) {
                return self.malformed("a number that is too large or not in its shortest form");
            }
            number |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        self.malformed("a number that does not end")
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        match usize::try_from(length) {
            Ok(length) => self.exactly(length),
            Err(_) => self.malformed(format!("a length of {length}")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).or_else(|_| self.malformed("text that is not UTF-8"))
    }

    /// A length, of something that has to be in memory.
    pub(crate) fn length(&mut self) -> Result<usize, Malformed> {
        let length = self.number()?;
        usize::try_from(length).or_else(|_| self.malformed(format!("a length of {length}")))
    }

    /// The next bytes, to be taken apart on their own; positions still count from the beginning.
    pub(crate) fn part(&mut self, length: usize) -> Result<Take<'a>, Malformed> {
        let start = self.position;
        self.exactly(length)?;
        Ok(Take { bytes: self.bytes.get(..start + length).unwrap_or_default(), position: start })
    }

    /// The bytes up to the next `end`, which is taken too.
    pub(crate) fn until(&mut self, end: u8) -> Result<&'a [u8], Malformed> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        match rest.iter().position(|byte| *byte == end) {
            Some(length) => {
                let taken = self.exactly(length)?;
                self.position += 1;
                Ok(taken)
            }
            None => self.malformed("something that does not end"),
        }
    }

    pub(crate) fn finish(self) -> Result<(), Malformed> {
        match self.remaining() {
            0 => Ok(()),
            more => self.malformed(format!("{more} bytes too many")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_have_one_form() {
        for number in [0, 1, 127, 128, 300, 1 << 32, u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(Take::new(&out).number().unwrap(), number);
        }
        for long in [
            &[0x80, 0x00][..],
            &[0xff; 11],
            &[0x80; 3],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        ] {
            assert!(Take::new(long).number().is_err(), "{long:?}");
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_with_its_position() {
        let mut out = Vec::new();
        put_number(&mut out, u64::MAX);
        let error = Take::new(&out).bytes().unwrap_err();
        assert_eq!(error.position, out.len());
    }
}
