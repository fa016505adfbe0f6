//! Parity over the leaves of a stripe.
//!
//! Reed-Solomon over GF(2^16); `docs/volume-format.md` says which of its codes, and a test below
//! that this is the one.

use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{
    HighRateDecoder, HighRateEncoder, RateDecoder as _, RateEncoder as _,
};

use super::header::Layout;

/// A leaf and the number of its volume.
pub(super) type Shard = (u32, Vec<u8>);

fn counts(layout: &Layout) -> (usize, usize) {
    (layout.data as usize, layout.parity as usize)
}

/// A leaf with the zeros that its stripe takes.
pub(super) fn padded(mut leaf: Vec<u8>, length: usize) -> Vec<u8> {
    leaf.resize(length, 0);
    leaf
}

/// The parity of a stripe, out of all of its data.
pub(super) fn encode(
    layout: &Layout,
    length: usize,
    data: impl IntoIterator<Item = Vec<u8>>,
) -> Result<Vec<Vec<u8>>, String> {
    let (originals, parity) = counts(layout);
    if parity == 0 {
        return Ok(Vec::new());
    }
    let failed = |error: reed_solomon_simd::Error| error.to_string();
    let mut encoder = HighRateEncoder::new(originals, parity, length, DefaultEngine::new(), None)
        .map_err(failed)?;
    for leaf in data {
        encoder.add_original_shard(padded(leaf, length)).map_err(failed)?;
    }
    let result = encoder.encode().map_err(failed)?;
    Ok(result.recovery_iter().map(<[u8]>::to_vec).collect())
}

/// The data of a stripe that is not among `shards`, of which there are as many as data volumes.
pub(super) fn decode(
    layout: &Layout,
    length: usize,
    shards: Vec<Shard>,
) -> Result<Vec<Shard>, String> {
    let (originals, parity) = counts(layout);
    let failed = |error: reed_solomon_simd::Error| error.to_string();
    let mut decoder = HighRateDecoder::new(originals, parity, length, DefaultEngine::new(), None)
        .map_err(failed)?;
    for (number, leaf) in shards {
        let leaf = padded(leaf, length);
        if layout.is_data(number) {
            decoder.add_original_shard(number as usize - 1, leaf)
        } else {
            decoder.add_recovery_shard((number - layout.data) as usize - 1, leaf)
        }
        .map_err(failed)?;
    }
    let result = decoder.decode().map_err(failed)?;
    let restored = result.restored_original_iter();
    Ok(restored
        .filter_map(|(place, leaf)| Some((u32::try_from(place).ok()? + 1, leaf.to_vec())))
        .collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const BASIS: [u16; 16] = [
        0x0001, 0xacca, 0x3c0e, 0x163e, 0xc582, 0xed2e, 0x914c, 0x4012, 0x6c98, 0x10d8, 0x6a72,
        0xb900, 0xfdb8, 0xfb34, 0xff38, 0x991e,
    ];

    /// The element that 16 bits stand for.
    fn element(bits: u16) -> u16 {
        (0..16).filter(|bit| bits >> bit & 1 == 1).fold(0, |sum, bit| sum ^ BASIS[bit])
    }

    /// A product of polynomials, modulo x^16 + x^5 + x^3 + x^2 + 1.
    fn product(one: u16, other: u16) -> u16 {
        let mut product = 0;
        for bit in (0..16).rev() {
            product = product << 1 ^ if product >> 15 == 1 { 0x2d } else { 0 };
            product ^= if other >> bit & 1 == 1 { one } else { 0 };
        }
        product
    }

    /// The elements of a shard.
    fn elements(shard: &[u8]) -> Vec<u16> {
        let blocks = shard.chunks(64);
        let in_block = |block: &[u8]| -> Vec<u16> {
            (0..32).map(|at| u16::from_le_bytes([block[at], block[at + 32]])).collect()
        };
        blocks.flat_map(in_block).map(element).collect()
    }

    #[test]
    fn parity_is_what_the_description_of_the_format_says() {
        for (data, parity) in [(1, 1), (5, 1), (2, 2), (3, 4), (9, 4), (1, 8), (40, 2)] {
            let layout = Layout { data, parity, size: 1, capacity: 1, leaf: 64 };
            let shard = |seed: u32| -> Vec<u8> {
                (0..128_u32)
                    .map(|at| (seed * 37 + at * at * 11 + at / 7).to_le_bytes()[0])
                    .collect()
            };
            let leaves: Vec<Vec<u8>> = (0..data).map(shard).collect();
            let made = encode(&layout, 128, leaves.clone()).unwrap();
            // Parity has the places from 0, data those behind the next power of two.
            let all: Vec<Vec<u16>> = made.iter().chain(&leaves).map(|it| elements(it)).collect();
            for power in 0..parity {
                for at in 0..64 {
                    let sum = all.iter().zip(0_u16..).fold(0, |sum, (shard, place)| {
                        let term =
                            (0..power).fold(shard[at], |term, _| product(term, element(place)));
                        sum ^ term
                    });
                    assert_eq!(sum, 0, "{data} + {parity}, power {power}, element {at}");
                }
            }
        }
    }
}
