//! A random part of a set of paths, the same one for the same seed.

use std::fmt;
use std::str::FromStr;

use ferry_formats::StorePath;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// How many parts a whole has in the number that is kept.
const WHOLE: u32 = 100_000_000;

/// How large a part of all paths is taken, at random: `5%`, `0.1%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentage(u32);

/// What was given is no percentage.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no part of the whole: it is written `5%` or `0.1%`, above 0 and up to `100%`")]
pub struct BadPercentage(String);

impl FromStr for Percentage {
    type Err = BadPercentage;

    fn from_str(text: &str) -> Result<Self, BadPercentage> {
        // In digits, so that no two machines round it in two ways.
        let parse = || {
            let (whole, part) = text.strip_suffix('%').map(|number| {
                let number = number.trim_end();
                number.split_once('.').unwrap_or((number, "0"))
            })?;
            if part.is_empty() || part.len() > 6 || !part.bytes().all(|byte| byte.is_ascii_digit())
            {
                return None;
            }
            let whole: u32 = whole.parse().ok().filter(|whole| *whole <= 100)?;
            let millionths: u32 = format!("{part:0<6}").parse().ok()?;
            let parts = whole * 1_000_000 + millionths;
            (1..=WHOLE).contains(&parts).then_some(Self(parts))
        };
        parse().ok_or_else(|| BadPercentage(text.to_owned()))
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1_000_000, self.0 % 1_000_000);
        match part {
            0 => write!(f, "{whole}%"),
            _ => write!(f, "{whole}.{}%", format!("{part:06}").trim_end_matches('0')),
        }
    }
}

/// Which part it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How large it is.
    pub part: Percentage,
    /// The same seed takes the same paths, whatever else there is.
    pub seed: u64,
}

impl Sample {
    /// Whether a path is in it.
    #[must_use]
    pub fn holds(&self, path: &StorePath) -> bool {
        let mut hasher = Sha256::new();
        hasher.update(self.seed.to_le_bytes());
        hasher.update(path.digest());
        let beginning = hasher.finalize().into_iter().take(8);
        let number = beginning.fold(0_u64, |number, byte| (number << 8) | u64::from(byte));
        (u128::from(number) * u128::from(WHOLE)) >> 64 < u128::from(self.part.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_read_as_it_is_written() {
        for text in ["5%", "100%", "0.1%", "0.000001%", "99.5%"] {
            assert_eq!(text.parse::<Percentage>().unwrap().to_string(), text);
        }
        assert_eq!("5.50 %".parse::<Percentage>().unwrap().to_string(), "5.5%");
        for text in ["", "%", "5", "0%", "101%", "100.1%", "-5%", "5.%", "1e1%", "0.0000001%"] {
            assert_eq!(text.parse::<Percentage>(), Err(BadPercentage(text.to_owned())));
        }
    }

    #[test]
    fn a_sample_has_about_its_size_and_another_seed_takes_others() {
        let paths: Vec<StorePath> = (0..10_000_u32)
            .map(|number| {
                let mut digest = [0; 20];
                digest[..4].copy_from_slice(&number.to_le_bytes());
                StorePath::from_parts(digest, "x").unwrap()
            })
            .collect();
        let taken = |part: &str, seed| {
            let sample = Sample { part: part.parse().unwrap(), seed };
            paths.iter().filter(|path| sample.holds(path)).collect::<Vec<_>>()
        };
        assert_eq!(taken("100%", 7).len(), paths.len());
        let five = taken("5%", 7);
        assert!((400..600).contains(&five.len()), "{}", five.len());
        assert_eq!(taken("5%", 7), five);
        let others = taken("5%", 8);
        assert!(others.iter().filter(|path| five.contains(path)).count() < 100);
        // A larger sample takes what a smaller one took.
        let ten = taken("10%", 7);
        assert!(five.iter().all(|path| ten.contains(path)));
    }
}
