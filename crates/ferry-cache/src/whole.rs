//! Small NARs, compressed and decompressed whole, with tables that are made once for many of them.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use ferry_formats::NixHash;
use sha2::{Digest as _, Sha256};
use zstd::bulk::{Compressor, Decompressor};

use crate::cache::NarFile;
use crate::compression::{Compression, CompressionSetting};

/// Compresses NARs, one after the other.
pub(crate) struct WholeEncoder {
    setting: CompressionSetting,
    zstd: Option<Compressor<'static>>,
}

impl WholeEncoder {
    pub(crate) fn new(setting: CompressionSetting) -> Self {
        Self { setting, zstd: None }
    }

    /// The NAR, compressed. What was compressed before does not show.
    pub(crate) fn encode<'a>(&mut self, nar: &'a [u8]) -> io::Result<Cow<'a, [u8]>> {
        let packed = match self.setting.method() {
            Compression::None => return Ok(Cow::Borrowed(nar)),
            Compression::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(made) => made,
                    none => none.insert(Compressor::new(self.setting.zstd_level())?),
                };
                zstd.compress(nar)?
            }
            _ => {
                let mut encoder = self.setting.encoder(Vec::new(), nar.len() as u64, 1)?;
                encoder.write_all(nar)?;
                encoder.finish()?
            }
        };
        Ok(Cow::Owned(packed))
    }
}

/// Decompresses NARs, one after the other.
#[derive(Default)]
pub(crate) struct WholeDecoder {
    zstd: Option<Decompressor<'static>>,
}

impl WholeDecoder {
    /// The NAR of `nar_size` bytes in a file. Where anything about that is not as its narinfo says,
    /// or is not said there, what was read of the file: what it is is for others to find out.
    pub(crate) fn decode(
        &mut self,
        file: &mut dyn Read,
        described: &NarFile,
        nar_size: u64,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let (Some(NixHash::Sha256(expected)), Some(size)) = (&described.hash, described.size)
        else {
            return Err(Vec::new());
        };
        let room = usize::try_from(size).unwrap_or_default().saturating_add(1);
        let mut bytes = Vec::with_capacity(room);
        let read = file.take(size.saturating_add(1)).read_to_end(&mut bytes);
        let is_expected = read.is_ok_and(|read| read as u64 == size)
            && Sha256::digest(&bytes)[..] == expected[..];
        let nar = is_expected.then(|| self.decompress(&bytes, described, nar_size)).flatten();
        nar.ok_or(bytes)
    }

    fn decompress(&mut self, bytes: &[u8], described: &NarFile, nar_size: u64) -> Option<Vec<u8>> {
        // One byte more than there should be.
        let limit = nar_size.saturating_add(1);
        let nar = match described.compression {
            Compression::None => bytes.to_vec(),
            Compression::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(made) => made,
                    none => none.insert(Decompressor::new().ok()?),
                };
                zstd.decompress(bytes, usize::try_from(limit).ok()?).ok()?
            }
            other => {
                let mut nar = Vec::with_capacity(usize::try_from(limit).ok()?);
                let decoder = other.decoder(bytes).ok()?;
                decoder.take(limit).read_to_end(&mut nar).ok()?;
                nar
            }
        };
        (nar.len() as u64 == nar_size).then_some(nar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(compression: Compression, packed: &[u8]) -> NarFile {
        NarFile {
            url: String::new(),
            compression,
            hash: Some(NixHash::Sha256(Sha256::digest(packed).into())),
            size: Some(packed.len() as u64),
        }
    }

    #[test]
    fn what_went_before_does_not_show_and_all_comes_back() {
        let nars: Vec<Vec<u8>> =
            [0, 1, 700, 70_000, 300_000].map(|size| (0..=250).cycle().take(size).collect()).into();
        for method in Compression::ALL {
            let Ok(setting) = CompressionSetting::new(method, None) else { continue };
            let mut encoder = WholeEncoder::new(setting);
            let mut decoder = WholeDecoder::default();
            for nar in nars.iter().chain(nars.iter().rev()) {
                let packed = encoder.encode(nar).unwrap();
                assert_eq!(packed, WholeEncoder::new(setting).encode(nar).unwrap());
                let described = described(method, &packed);
                let size = nar.len() as u64;
                let decoded = decoder.decode(&mut &packed[..], &described, size);
                assert!(decoded.as_ref() == Ok(nar), "{method:?} {size}");
            }
        }
    }

    #[test]
    fn nothing_comes_of_a_file_that_is_not_what_its_narinfo_says() {
        let nar = vec![7; 5000];
        for method in [Compression::None, Compression::Zstd, Compression::Xz] {
            let setting = CompressionSetting::new(method, None).unwrap();
            let packed = WholeEncoder::new(setting).encode(&nar).unwrap().into_owned();
            let right = described(method, &packed);
            let decode = |packed: &[u8], described: &NarFile, size| {
                WholeDecoder::default().decode(&mut &packed[..], described, size)
            };
            // What was read of it is given back, so that others need not read it again.
            let read = |packed: &[u8]| Err(packed.to_vec());
            assert_eq!(decode(&packed, &right, 5000), Ok(nar.clone()));
            assert_eq!(decode(&packed, &right, 4999), read(&packed));
            assert_eq!(decode(&packed, &right, 5001), read(&packed));
            assert_eq!(decode(&packed[1..], &right, 5000), read(&packed[1..]));
            let longer = [&packed[..], &[0]].concat();
            assert_eq!(decode(&longer, &right, 5000), read(&longer));
            let mut changed = packed.clone();
            changed[packed.len() / 2] ^= 1;
            assert_eq!(decode(&changed, &right, 5000), read(&changed));
            assert_eq!(decode(&packed, &NarFile { hash: None, ..right.clone() }, 5000), read(&[]));
        }
    }
}
