//! Several streams of bytes in one section, each compressed by itself: digests do not disturb the
//! statistics of text, nor text those of numbers.

use std::io::Read;

use zstd::stream::raw::CParameter;

use crate::codec::{Malformed, Take, put_number};
use crate::format::limit;

/// Compresses streams, and puts them one behind the other with their lengths in front.
pub(crate) fn encode(streams: &[&[u8]], level: i32) -> std::io::Result<Vec<u8>> {
    let packed: Vec<std::io::Result<Vec<u8>>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            streams.iter().map(|plain| scope.spawn(move || compress(plain, level))).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread ended")))
            })
            .collect()
    });
    let mut out = Vec::new();
    let mut contents = Vec::new();
    for (plain, packed) in streams.iter().zip(packed) {
        let packed = packed?;
        let (plain_size, size) = (plain.len() as u64, packed.len() as u64);
        // Stored as it is where that is as good, or where a reader would take it for a bomb.
        let stored = plain_size <= 128 || size >= plain_size || plain_size > most_plain(size);
        put_number(&mut out, plain_size);
        put_number(&mut out, if stored { plain_size } else { size });
        contents.extend_from_slice(if stored { plain } else { &packed });
    }
    out.extend(contents);
    Ok(out)
}

fn compress(plain: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    // A window over all of it: what is alike may stand anywhere.
    let bits = usize::BITS - plain.len().leading_zeros();
    compressor.set_parameter(CParameter::WindowLog(bits.clamp(10, limit::WINDOW_LOG)))?;
    compressor.include_contentsize(false)?;
    compressor.include_checksum(false)?;
    compressor.compress(plain)
}

/// How large a stream of so many bytes may become.
fn most_plain(packed: u64) -> u64 {
    packed
        .saturating_mul(limit::STREAM_RATIO)
        .saturating_add(limit::STREAM_SLACK)
        .min(limit::STREAM_PLAIN)
}

/// Takes `N` streams apart.
pub(crate) fn decode<const N: usize>(section: &[u8]) -> Result<[Vec<u8>; N], Malformed> {
    let mut take = Take::new(section);
    let mut sizes = [(0, 0); N];
    for size in &mut sizes {
        *size = (take.number()?, take.number()?);
    }
    let mut streams = std::array::from_fn(|_| Vec::new());
    for (stream, (plain, packed)) in streams.iter_mut().zip(sizes) {
        let Ok(length) = usize::try_from(packed) else {
            return take.malformed(format!("a stream of {packed} bytes"));
        };
        if plain > most_plain(packed) && plain != packed {
            return take.malformed(format!("{packed} bytes cannot hold {plain}"));
        }
        let contents = take.exactly(length)?;
        *stream = match plain == packed {
            true => contents.to_vec(),
            false => decompress(contents, plain).or_else(|reason| take.malformed(reason))?,
        };
    }
    take.finish()?;
    Ok(streams)
}

fn decompress(frame: &[u8], size: u64) -> Result<Vec<u8>, String> {
    let broken = |error: std::io::Error| error.to_string();
    let mut decoder = zstd::Decoder::with_buffer(frame).map_err(broken)?.single_frame();
    decoder.window_log_max(limit::WINDOW_LOG).map_err(broken)?;
    let mut plain = Vec::new();
    let read = (&mut decoder).take(size.saturating_add(1)).read_to_end(&mut plain);
    if read.map_err(broken)? as u64 != size {
        return Err(format!("a stream that should have {size} bytes"));
    }
    match decoder.finish() {
        [] => Ok(plain),
        more => Err(format!("{} bytes too many in a stream", more.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, put_number};

    #[test]
    fn a_stream_that_claims_more_than_there_can_be_is_refused() {
        let mut section = Vec::new();
        put_number(&mut section, u64::MAX);
        put_number(&mut section, u64::MAX - 1);
        assert!(decode::<1>(&section).is_err());
    }
}
