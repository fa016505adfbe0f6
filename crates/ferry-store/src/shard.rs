//! A part of a set of paths, for work that several machines share.
//!
//! Which part a path falls into depends on its hash part and the number of parts only, so machines
//! that know nothing of each other agree on it, whatever else is in the set.

use std::fmt;
use std::num::NonZero;
use std::str::FromStr;

use ferry_formats::StorePath;
use thiserror::Error;

/// One of several parts: `0/4` is the first of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: NonZero<u32>,
}

/// What was given does not name a part.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("`{0}` names no part: it is written `0/4` to `3/4` for the four parts of four")]
pub struct BadShard(String);

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: NonZero::<u32>::MIN };

    /// Whether it is all of it.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.count == NonZero::<u32>::MIN
    }

    /// Whether it is the first: what cannot be divided is done there.
    #[must_use]
    pub fn is_first(self) -> bool {
        self.index == 0
    }

    /// Whether a path falls into it.
    #[must_use]
    pub fn holds(self, path: &StorePath) -> bool {
        self.holds_digest(path.digest())
    }

    /// Whether something with this digest falls into it.
    #[must_use]
    pub fn holds_digest(self, digest: &[u8]) -> bool {
        // A digest is random, so its beginning spreads things evenly.
        let beginning = digest.iter().take(8);
        let number = beginning.fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        let part = (u128::from(number) * u128::from(self.count.get())) >> 64;
        part == u128::from(self.index)
    }
}

impl FromStr for Shard {
    type Err = BadShard;

    fn from_str(text: &str) -> Result<Self, BadShard> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            let (index, count): (u32, NonZero<u32>) = (index.parse().ok()?, count.parse().ok()?);
            (index < count.get()).then_some(Self { index, count })
        });
        numbers.ok_or_else(|| BadShard(text.to_owned()))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_falls_into_one_part_and_the_parts_are_about_equal() {
        let digest = |seed: u32| -> [u8; 20] {
            std::array::from_fn(|byte| {
                let mixed = (u64::from(seed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                mixed.rotate_left(u32::try_from(byte).unwrap() * 7).to_le_bytes()[3]
            })
        };
        for count in [1, 2, 3, 16] {
            let parts: Vec<Shard> =
                (0..count).map(|index| format!("{index}/{count}").parse().unwrap()).collect();
            let mut held = vec![0_u32; parts.len()];
            for seed in 0..4000 {
                let path = StorePath::from_parts(digest(seed), "x").unwrap();
                let holding: Vec<usize> =
                    (0..parts.len()).filter(|part| parts[*part].holds(&path)).collect();
                assert_eq!(holding.len(), 1, "{path}");
                held[holding[0]] += 1;
            }
            let fair = 4000 / count;
            assert!(held.iter().all(|held| held.abs_diff(fair) < fair / 4), "{held:?}");
        }
    }

    #[test]
    fn what_names_no_part_is_refused() {
        for text in ["", "1", "4/4", "0/0", "-1/2", "1/2/3", "a/b"] {
            assert_eq!(text.parse::<Shard>(), Err(BadShard(text.to_owned())));
        }
        assert_eq!("3/4".parse::<Shard>().unwrap().to_string(), "3/4");
        assert!(!"3/4".parse::<Shard>().unwrap().is_first());
        assert!("0/1".parse::<Shard>().unwrap().is_whole());
    }
}
