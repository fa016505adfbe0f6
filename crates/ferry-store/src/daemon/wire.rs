//! The words of the worker protocol (`worker-protocol.cc`, `serialise.cc`).
//!
//! Everything is a 64-bit little-endian number, or bytes: their count, themselves, and zeros up
//! to a multiple of eight. Every count that is read is capped before anything is allocated.

use std::io::{self, Read, Write};

/// Longest string accepted from a daemon, in bytes. Its longest real ones are error messages with
/// build logs in them.
const MAX_STRING: u64 = 64 << 20;
/// Most strings accepted in one list.
const MAX_LIST: u64 = 64 << 20;

fn malformed(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

pub(crate) fn read_u64(reader: &mut (impl Read + ?Sized)) -> io::Result<u64> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

pub(crate) fn read_bool(reader: &mut (impl Read + ?Sized)) -> io::Result<bool> {
    Ok(read_u64(reader)? != 0)
}

pub(crate) fn read_bytes(reader: &mut (impl Read + ?Sized)) -> io::Result<Vec<u8>> {
    let length = read_u64(reader)?;
    if length > MAX_STRING {
        return Err(malformed(format!(
            "a string of {length} bytes (at most {MAX_STRING} are accepted)"
        )));
    }
    let mut bytes = Vec::new();
    let read = reader.take(length).read_to_end(&mut bytes)?;
    if read as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let padding = length.next_multiple_of(8) - length;
    let mut zeros = [0; 8];
    let zeros = zeros.get_mut(..usize::try_from(padding).unwrap_or(0)).unwrap_or_default();
    reader.read_exact(zeros)?;
    if zeros.iter().any(|byte| *byte != 0) {
        return Err(malformed("padding that is not zero".to_owned()));
    }
    Ok(bytes)
}

pub(crate) fn read_string(reader: &mut (impl Read + ?Sized)) -> io::Result<String> {
    let bytes = read_bytes(reader)?;
    // Messages may quote file names in any encoding.
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

pub(crate) fn read_strings(reader: &mut (impl Read + ?Sized)) -> io::Result<Vec<String>> {
    let count = read_u64(reader)?;
    if count > MAX_LIST {
        return Err(malformed(format!(
            "a list of {count} strings (at most {MAX_LIST} are accepted)"
        )));
    }
    let mut strings = Vec::new();
    for _ in 0..count {
        strings.push(read_string(reader)?);
    }
    Ok(strings)
}

pub(crate) fn write_u64(writer: &mut (impl Write + ?Sized), number: u64) -> io::Result<()> {
    writer.write_all(&number.to_le_bytes())
}

pub(crate) fn write_bytes(writer: &mut (impl Write + ?Sized), bytes: &[u8]) -> io::Result<()> {
    let length = bytes.len() as u64;
    write_u64(writer, length)?;
    writer.write_all(bytes)?;
    let padding = usize::try_from(length.next_multiple_of(8) - length).unwrap_or(0);
    writer.write_all([0; 8].get(..padding).unwrap_or_default())
}

pub(crate) fn write_strings<S: AsRef<str>>(
    writer: &mut (impl Write + ?Sized),
    strings: impl ExactSizeIterator<Item = S>,
) -> io::Result<()> {
    write_u64(writer, strings.len() as u64)?;
    for string in strings {
        write_bytes(writer, string.as_ref().as_bytes())?;
    }
    Ok(())
}

/// Cuts what is written into frames: a length and that many bytes, ended by a length of zero.
pub(crate) struct Frames<W> {
    writer: W,
    buffer: Vec<u8>,
}

const FRAME: usize = 128 << 10;

impl<W: Write> Frames<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self { writer, buffer: Vec::with_capacity(FRAME) }
    }

    fn send(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            write_u64(&mut self.writer, self.buffer.len() as u64)?;
            self.writer.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.send()?;
        write_u64(&mut self.writer, 0)?;
        self.writer.flush()
    }
}

impl<W: Write> Write for Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = FRAME - self.buffer.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() == FRAME {
            self.send()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.writer.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_every_padding_come_back() {
        for length in 0..20 {
            let text = "x".repeat(length);
            let mut wire = Vec::new();
            write_bytes(&mut wire, text.as_bytes()).unwrap();
            assert_eq!(wire.len() % 8, 0);
            assert_eq!(read_string(&mut wire.as_slice()).unwrap(), text);
        }
    }

    #[test]
    fn a_length_that_lies_is_an_error_and_not_an_allocation() {
        let error = read_bytes(&mut u64::MAX.to_le_bytes().as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut wire = (MAX_STRING).to_le_bytes().to_vec();
        wire.extend_from_slice(b"short");
        let error = read_bytes(&mut wire.as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn frames_cut_and_end_the_stream() {
        let mut wire = Vec::new();
        let mut frames = Frames::new(&mut wire);
        frames.write_all(&vec![7; FRAME + 5]).unwrap();
        frames.finish().unwrap();
        let mut rest = wire.as_slice();
        assert_eq!(read_u64(&mut rest).unwrap(), FRAME as u64);
        let (_, mut rest) = rest.split_at(FRAME);
        assert_eq!(read_u64(&mut rest).unwrap(), 5);
        assert_eq!(rest, [[7; 5].as_slice(), &[0; 8]].concat());
    }
}
