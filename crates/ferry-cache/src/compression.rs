//! How NARs are compressed.

use std::io::{self, BufReader, Read, Write};

use bzip2::read::MultiBzDecoder;
use bzip2::write::BzEncoder;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Check, MtStreamBuilder, Stream};
use liblzma::write::XzEncoder;

/// What a decoder may use, in bytes: `xz -9` takes 65 MiB.
const DECODER_MEMORY: u64 = 256 << 20;

/// A way to compress, by the names that Nix has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// `none`: as it is.
    None,
    /// `xz`.
    Xz,
    /// `zstd`.
    Zstd,
    /// `gzip`.
    Gzip,
    /// `bzip2`.
    Bzip2,
    /// `br`: Brotli. Read only.
    Brotli,
    /// `lz4`, frames. Read only.
    Lz4,
    /// `lzip`. Read only.
    Lzip,
    /// `lzma`, the form before `xz`. Read only.
    Lzma,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Xz,
        Self::Zstd,
        Self::Gzip,
        Self::Bzip2,
        Self::Brotli,
        Self::Lz4,
        Self::Lzip,
        Self::Lzma,
    ];

    /// The one with this name. Nix knows others (`compress`, `grzip`, `lrzip`, `lzop`), which no
    /// cache is known to use.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Its name in a narinfo, and in the parameter `compression`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Brotli => "br",
            Self::Lz4 => "lz4",
            Self::Lzip => "lzip",
            Self::Lzma => "lzma",
        }
    }

    /// What stands behind `.nar` in the name of a file, as in Nix's `binary-cache-store.cc`; it
    /// has nothing for `gzip`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
            Self::Bzip2 => ".bz2",
            Self::Brotli => ".br",
            Self::Lz4 => ".lz4",
            Self::Lzip => ".lzip",
            Self::None | Self::Gzip | Self::Lzma => "",
        }
    }

    /// How a file is compressed, by its name: `.xz`, `.zst`, `.gz`, `.bz2`, and else not at all.
    #[must_use]
    pub fn of_file(name: &str) -> Self {
        let known = [Self::Xz, Self::Zstd, Self::Bzip2];
        let found = known.into_iter().find(|method| name.ends_with(method.suffix()));
        // Nix gives NARs no such ending.
        found.unwrap_or(if name.ends_with(".gz") { Self::Gzip } else { Self::None })
    }

    /// Reads what was compressed, several frames or streams one behind the other included.
    ///
    /// # Errors
    /// When the decoder cannot be made.
    pub fn decoder<'a>(self, file: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        let xz = |stream: Result<Stream, liblzma::stream::Error>| stream.map_err(io::Error::from);
        Ok(match self {
            Self::None => Box::new(file),
            Self::Xz => {
                let stream = xz(Stream::new_stream_decoder(DECODER_MEMORY, CONCATENATED))?;
                Box::new(XzDecoder::new_stream(BufReader::new(file), stream))
            }
            Self::Lzip => {
                let stream = xz(Stream::new_lzip_decoder(DECODER_MEMORY, CONCATENATED))?;
                Box::new(XzDecoder::new_stream(BufReader::new(file), stream))
            }
            Self::Lzma => {
                let stream = xz(Stream::new_lzma_decoder(DECODER_MEMORY))?;
                Box::new(XzDecoder::new_stream(BufReader::new(file), stream))
            }
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
            Self::Gzip => Box::new(MultiGzDecoder::new(file)),
            Self::Bzip2 => Box::new(MultiBzDecoder::new(file)),
            Self::Brotli => Box::new(brotli_decompressor::Decompressor::new(file, 64 << 10)),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(file)),
        })
    }
}

/// How to compress what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionSetting {
    method: Compression,
    level: u32,
}

impl Default for CompressionSetting {
    /// What Nix does unless told otherwise: `xz`, level 6.
    fn default() -> Self {
        Self { method: Compression::Xz, level: 6 }
    }
}

impl CompressionSetting {
    /// NARs of at least this size, in bytes, are compressed on several threads, one NAR at a
    /// time. Whether they are depends on nothing else: the same NAR gives the same file.
    pub(crate) const WIDE: u64 = 64 << 20;

    /// A method with a level, or with its usual one.
    ///
    /// # Errors
    /// A sentence, when the method is only known for reading, or has no such level.
    pub fn new(method: Compression, level: Option<u32>) -> Result<Self, String> {
        let (levels, usual) = match method {
            Compression::None => (0..=0, 0),
            Compression::Xz => (0..=9, 6),
            Compression::Zstd => (1..=22, 3),
            Compression::Gzip => (1..=9, 6),
            Compression::Bzip2 => (1..=9, 9),
            _ => {
                let name = method.name();
                return Err(format!(
                    "`{name}` can be read, and not written; write none, xz, zstd, gzip or bzip2"
                ));
            }
        };
        let level = level.unwrap_or(usual);
        if levels.contains(&level) {
            return Ok(Self { method, level });
        }
        Err(match method {
            Compression::None => "`none` has no levels".to_owned(),
            _ => format!(
                "the levels of {} are {} to {}, and {level} is none of them",
                method.name(),
                levels.start(),
                levels.end()
            ),
        })
    }

    /// The level, as zstd's library has it.
    pub(crate) fn zstd_level(self) -> i32 {
        i32::try_from(self.level).unwrap_or(i32::MAX)
    }

    /// The method.
    #[must_use]
    pub fn method(self) -> Compression {
        self.method
    }

    /// Compresses a NAR of `size` bytes into `file`; a large one on so many threads.
    pub(crate) fn encoder<W: Write>(
        self,
        file: W,
        size: u64,
        threads: u32,
    ) -> io::Result<Encoder<W>> {
        let wide = size >= Self::WIDE;
        Ok(match self.method {
            Compression::Xz if wide => {
                let stream = MtStreamBuilder::new()
                    .preset(self.level)
                    .check(Check::Crc64)
                    .threads(threads.max(1))
                    .encoder()?;
                Encoder::Xz(XzEncoder::new_stream(file, stream))
            }
            Compression::Xz => Encoder::Xz(XzEncoder::new(file, self.level)),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(file, self.zstd_level())?;
                encoder.set_pledged_src_size(Some(size))?;
                if wide {
                    // One worker makes the same of it as several, and something else than none.
                    encoder.multithread(threads.max(1))?;
                }
                Encoder::Zstd(encoder)
            }
            Compression::Gzip => {
                Encoder::Gzip(GzEncoder::new(file, flate2::Compression::new(self.level)))
            }
            Compression::Bzip2 => {
                Encoder::Bzip2(BzEncoder::new(file, bzip2::Compression::new(self.level)))
            }
            _ => Encoder::None(file),
        })
    }
}

/// Compresses what is written to it.
pub(crate) enum Encoder<W: Write> {
    None(W),
    Xz(XzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Gzip(GzEncoder<W>),
    Bzip2(BzEncoder<W>),
}

impl<W: Write> Encoder<W> {
    /// Writes the end.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::None(file) => Ok(file),
            Self::Xz(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Bzip2(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(file) => file.write(bytes),
            Self::Xz(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Bzip2(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush in the middle would show in the bytes.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that compresses, but not to nothing.
    fn text(size: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(format!("{} ", state >> 40).as_bytes());
        }
        bytes.truncate(size);
        bytes
    }

    fn compress(setting: CompressionSetting, bytes: &[u8], threads: u32) -> Vec<u8> {
        let mut encoder = setting.encoder(Vec::new(), bytes.len() as u64, threads).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decompress(method: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut found = Vec::new();
        method.decoder(bytes)?.read_to_end(&mut found)?;
        Ok(found)
    }

    fn written() -> impl Iterator<Item = CompressionSetting> {
        Compression::ALL.into_iter().filter_map(|method| CompressionSetting::new(method, None).ok())
    }

    #[test]
    fn what_is_written_is_what_is_read_and_two_pieces_are_one_whole() {
        for setting in written() {
            for size in [0, 1, 300_000] {
                let text = text(size);
                let compressed = compress(setting, &text, 1);
                assert_eq!(decompress(setting.method, &compressed).unwrap(), text);
                if setting.method != Compression::None {
                    let twice = decompress(setting.method, &compressed.repeat(2)).unwrap();
                    assert_eq!(twice, text.repeat(2), "{setting:?}");
                }
            }
        }
        assert_eq!(written().count(), 5);
    }

    #[test]
    fn every_cut_but_the_last_is_noticed() {
        for setting in written().filter(|setting| setting.method != Compression::None) {
            let text = text(5000);
            let compressed = compress(setting, &text, 1);
            for end in 1..compressed.len() {
                let found = decompress(setting.method, &compressed[..end]);
                assert!(found.is_err(), "{setting:?} cut at {end} of {}", compressed.len());
            }
        }
    }

    #[test]
    fn how_many_threads_there_are_does_not_show() {
        // Farther apart than xz looks back on its lowest level, so that there is work to do.
        let count = usize::try_from(CompressionSetting::WIDE).unwrap() >> 19;
        let text = text((1 << 19) + 5).repeat(count);
        for (method, level) in [(Compression::Zstd, 1), (Compression::Xz, 0)] {
            let setting = CompressionSetting::new(method, Some(level)).unwrap();
            let one = compress(setting, &text, 1);
            for threads in [2, 3] {
                assert!(compress(setting, &text, threads) == one, "{setting:?} on {threads}");
            }
            assert!(decompress(method, &one).unwrap() == text);
        }
    }

    #[test]
    fn levels_are_those_of_the_method() {
        for (method, level) in [("xz", 10), ("zstd", 0), ("zstd", 23), ("none", 1), ("br", 5)] {
            let method = Compression::parse(method).unwrap();
            assert!(CompressionSetting::new(method, Some(level)).is_err(), "{method:?} {level}");
        }
        assert_eq!(Compression::parse("lzop"), None);
    }
}
