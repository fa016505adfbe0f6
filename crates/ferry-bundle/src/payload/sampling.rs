//! Fingerprints at places that the content itself chooses, so that the same content has the same
//! ones wherever it stands.

/// How many bytes decide a fingerprint.
const WINDOW: u32 = 32;

/// One random number for each byte (a SplitMix64 sequence).
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut byte = 0;
    while byte < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        #[allow(clippy::indexing_slicing, reason = "of 256, in a constant")]
        {
            table[byte] = mixed ^ (mixed >> 31);
        }
        byte += 1;
    }
    table
};

/// A fingerprint of 32 bytes, and where the last of them stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) fingerprint: u64,
    pub(crate) position: u32,
}

/// The fingerprints of `content`: one in 2^`bits` bytes, about. Where the same one repeats, as in
/// a run of zeros, only the first counts.
pub(crate) fn samples(content: &[u8], bits: u32) -> Vec<Sample> {
    let mut found = Vec::with_capacity(content.len() >> bits);
    let shift = 64 - bits;
    let mut rolling: u64 = 0;
    let mut last = 0;
    for (byte, position) in content.iter().zip(0u32..) {
        // Two bits a byte: what is older than 32 bytes has left at the top.
        let gear = GEAR.get(usize::from(*byte)).copied().unwrap_or_default();
        rolling = (rolling << 2).wrapping_add(gear);
        if rolling >> shift == 0 && rolling != last && position >= WINDOW - 1 {
            last = rolling;
            found.push(Sample { fingerprint: rolling, position });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize) -> Vec<u8> {
        let mut state: u64 = 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_same_content_has_the_same_fingerprints_at_another_place() {
        let content = noise(100_000);
        let moved = [noise(777).as_slice(), &content].concat();
        let here: Vec<u64> = samples(&content, 6).iter().map(|one| one.fingerprint).collect();
        let there: Vec<u64> = samples(&moved, 6)
            .iter()
            .filter(|one| one.position as usize >= 777 + WINDOW as usize - 1)
            .map(|one| one.fingerprint)
            .collect();
        assert_eq!(here, there);
        assert!((1000..2200).contains(&here.len()), "{}", here.len());
    }

    #[test]
    fn a_run_has_no_more_than_one() {
        for byte in 0..=255 {
            assert!(samples(&vec![byte; 10_000], 4).len() <= 12, "{byte}");
        }
    }
}
