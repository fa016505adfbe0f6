//! Hashes of store paths that were replaced by others between two versions of the same thing.

use std::collections::HashMap;

use ferry_formats::nixbase32;

/// Length of the hash part of a store path.
const LENGTH: usize = 32;

/// Old hash parts and the ones that stand for them now.
#[derive(Debug, Default)]
pub(crate) struct Renames(HashMap<[u8; LENGTH], [u8; LENGTH]>);

/// What the bytes of a hash part may be.
const IS_BASE32: [bool; 256] = {
    let mut table = [false; 256];
    let alphabet = *b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut place = 0;
    while place < alphabet.len() {
        #[allow(clippy::indexing_slicing, reason = "of 256 by a byte, in a constant")]
        {
            table[alphabet[place] as usize] = true;
        }
        place += 1;
    }
    table
};

impl Renames {
    /// From pairs of digests, old and new. Of two pairs for one old digest the first counts.
    pub(crate) fn new<'a>(pairs: impl IntoIterator<Item = (&'a [u8; 20], &'a [u8; 20])>) -> Self {
        let text = |digest: &[u8; 20]| -> [u8; LENGTH] {
            nixbase32::encode(digest).into_bytes().try_into().unwrap_or([0; LENGTH])
        };
        let mut all = HashMap::new();
        for (old, new) in pairs {
            if old != new {
                all.entry(text(old)).or_insert_with(|| text(new));
            }
        }
        Self(all)
    }

    /// Replaces every old hash in `content`, from front to back.
    pub(crate) fn apply(&self, content: &mut [u8]) {
        if self.0.is_empty() {
            return;
        }
        let mut start = 0;
        while let Some(window) = content.get_mut(start..start + LENGTH) {
            // From behind: one byte that cannot be part of a hash rules out all before it.
            let other = window
                .iter()
                .rposition(|byte| !IS_BASE32.get(usize::from(*byte)).copied().unwrap_or_default());
            start += match other {
                Some(place) => place + 1,
                None => match self.0.get(&*window) {
                    Some(new) => {
                        window.copy_from_slice(new);
                        LENGTH
                    }
                    None => 1,
                },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_hashes_are_replaced_wherever_they_stand() {
        let digest = |seed: u8| {
            std::array::from_fn(|place| seed.wrapping_mul(place.to_le_bytes()[0] ^ 0x5a))
        };
        let (old, new, other): ([u8; 20], [u8; 20], [u8; 20]) = (digest(7), digest(13), digest(29));
        let text = |digest: &[u8; 20]| nixbase32::encode(digest);
        let renames = Renames::new([(&old, &new)]);
        let (others, part) = (text(&other), text(&old).split_off(1));
        let write = |digest: &[u8; 20]| {
            let hash = text(digest);
            format!("{hash}/nix/store/{hash}-a{others}0{hash}{hash}\0{part}{hash}")
        };
        let mut content = write(&old).into_bytes();
        renames.apply(&mut content);
        assert_eq!(String::from_utf8(content).unwrap(), write(&new));
    }

    #[test]
    fn a_part_of_a_hash_stays_as_it_is() {
        let renames = Renames::new([(&[1; 20], &[2; 20])]);
        let hash = nixbase32::encode(&[1; 20]);
        for part in [&hash[1..], &hash[..31]] {
            let mut content = part.as_bytes().to_vec();
            renames.apply(&mut content);
            assert_eq!(content, part.as_bytes());
        }
    }
}
