//! Strings in which what can be said shorter is a token.
//!
//! The bytes 0 to 8 are tokens; all others stand for themselves, escaped as in a derivation. So a
//! string is put together by copying.

use memchr::memmem;

use crate::codec::{Take, put_number};
use crate::derivations::model::column;

/// Ends a string in its column.
pub(crate) const END: u8 = 0;
/// The next thing that the derivation mentions.
const MENTION: u8 = 1;
/// A byte from 0 to 8 that stands for itself: it follows, with 16 added.
const LITERAL: u8 = 2;
/// The placeholder of an output; the number of its name follows, with 1 added.
const PLACEHOLDER: u8 = 3;
/// The path of the output that the environment variable is named after.
const OWN_OUTPUT: u8 = 4;
/// The name of the derivation.
const NAME: u8 = 5;
/// The name without its version.
const STEM: u8 = 6;
/// The version in the name.
const VERSION: u8 = 7;
/// Ends an argument.
const ARGUMENT: u8 = 8;
/// No token is larger.
const LAST: u8 = ARGUMENT;
const LITERAL_OFFSET: u8 = 16;

/// A derivation's name and its parts.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) whole: &'a [u8],
    /// What stands before and behind the first dash that no letter follows.
    parts: Option<(&'a [u8], &'a [u8])>,
}

impl<'a> Name<'a> {
    pub(crate) fn new(whole: &'a [u8]) -> Self {
        let dash = whole
            .windows(2)
            .position(|pair| matches!(pair, [b'-', next] if !next.is_ascii_alphabetic()));
        let parts = dash
            .and_then(|dash| Some((whole.get(..dash)?, whole.get(dash + 1..)?)))
            .filter(|(stem, _)| !stem.is_empty());
        Self { whole, parts }
    }

    /// The name without its version.
    pub(crate) fn stem(self) -> &'a [u8] {
        self.parts.map_or(self.whole, |(stem, _)| stem)
    }

    fn part(self, token: u8) -> Option<&'a [u8]> {
        match (token, self.parts) {
            (NAME, _) => Some(self.whole),
            (STEM, Some((stem, _))) => Some(stem),
            (VERSION, Some((_, version))) => Some(version),
            _ => None,
        }
    }
}

/// Names in longer strings than this are left as they are: such strings are often shared by
/// derivations of different names.
const SHORT: usize = 600;
/// Names shorter than this are not worth a token.
const SHORTEST: usize = 3;

/// A string in the making.
#[derive(Default)]
pub(crate) struct Builder(pub(crate) Vec<u8>);

impl Builder {
    pub(crate) fn mention(&mut self) {
        self.0.push(MENTION);
    }

    pub(crate) fn own_output(&mut self) {
        self.0.push(OWN_OUTPUT);
    }

    pub(crate) fn placeholder(&mut self, word: u32) {
        self.0.push(PLACEHOLDER);
        put_number(&mut self.0, u64::from(word) + 1);
    }

    pub(crate) fn end_argument(&mut self) {
        self.0.push(ARGUMENT);
    }

    /// Text without references; with a name, that and its parts become tokens.
    pub(crate) fn text(&mut self, text: &[u8], name: Option<Name<'_>>) {
        match name {
            Some(name) if text.len() <= SHORT => self.named(text, name, &[NAME, VERSION, STEM]),
            _ => self.literal(text),
        }
    }

    fn named(&mut self, mut text: &[u8], name: Name<'_>, tokens: &[u8]) {
        let Some((token, others)) = tokens.split_first() else { return self.literal(text) };
        if let Some(part) = name.part(*token).filter(|part| part.len() >= SHORTEST) {
            while let Some(at) = memmem::find(text, part) {
                self.named(text.get(..at).unwrap_or_default(), name, others);
                self.0.push(*token);
                text = text.get(at + part.len()..).unwrap_or_default();
            }
        }
        self.named(text, name, others);
    }

    fn literal(&mut self, text: &[u8]) {
        if is_text(text) {
            return self.0.extend(text);
        }
        for byte in text {
            if *byte <= LAST {
                self.0.push(LITERAL);
                self.0.push(*byte + LITERAL_OFFSET);
            } else {
                self.0.push(*byte);
            }
        }
    }
}

/// Whether there are no tokens in a string.
pub(crate) fn is_text(template: &[u8]) -> bool {
    // Without leaving early, which a processor can do many bytes at a time.
    template.iter().fold(0, |tokens, byte| tokens | u8::from(*byte <= LAST)) == 0
}

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Text(&'a [u8]),
    Byte(u8),
    Mention,
    Placeholder(u32),
    OwnOutput,
    /// The derivation's name or a part of it; see [`named`].
    Name(u8),
    ArgumentEnd,
}

/// What a [`Piece::Name`] stands for.
pub(crate) fn named<'a>(name: Name<'a>, token: u8) -> Result<&'a [u8], String> {
    name.part(token).ok_or_else(|| "the name has no version".to_owned())
}

/// The pieces of a string.
pub(crate) fn pieces<'a>(
    mut template: &'a [u8],
    mut visit: impl FnMut(Piece<'a>) -> Result<(), String>,
) -> Result<(), String> {
    while let Some((first, rest)) = template.split_first() {
        template = rest;
        let piece = match *first {
            MENTION => Piece::Mention,
            LITERAL => match rest.split_first() {
                Some((byte, rest)) if (16..=16 + LAST).contains(byte) => {
                    template = rest;
                    Piece::Byte(*byte - LITERAL_OFFSET)
                }
                _ => return Err("no byte follows where one should".to_owned()),
            },
            PLACEHOLDER => {
                let mut take = Take::new(rest);
                let word = take.number().map_err(|malformed| malformed.reason)?;
                template = rest.get(rest.len() - take.remaining()..).unwrap_or_default();
                match u32::try_from(word).ok().and_then(|word| word.checked_sub(1)) {
                    Some(word) => Piece::Placeholder(word),
                    None => return Err(format!("the placeholder of output {word}")),
                }
            }
            OWN_OUTPUT => Piece::OwnOutput,
            NAME | STEM | VERSION => Piece::Name(*first),
            ARGUMENT => Piece::ArgumentEnd,
            END => return Err("an end within a string".to_owned()),
            _ => {
                let length = rest.iter().position(|byte| *byte <= LAST).unwrap_or(rest.len());
                let (more, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                template = behind;
                // The first byte and those behind it are one piece; they stand side by side.
                visit(Piece::Text(std::slice::from_ref(first)))?;
                Piece::Text(more)
            }
        };
        visit(piece)?;
    }
    Ok(())
}

/// Makes sure that a string may stand in a column, and returns how many things it mentions.
pub(crate) fn check(template: &[u8], in_column: usize, words: usize) -> Result<u32, String> {
    let mut mentions = 0;
    let mut escape = false;
    let mut open_argument = false;
    pieces(template, |piece| {
        let in_name = in_column == column::NAME;
        let allowed = match piece {
            Piece::Text(text) => text.iter().all(|byte| unescaped(*byte, &mut escape)),
            Piece::Byte(byte) => !escape && unescaped(byte, &mut escape),
            Piece::Mention => {
                mentions += 1;
                !in_name
            }
            Piece::Placeholder(word) => !in_name && (word as usize) < words,
            Piece::OwnOutput => in_column >= column::FIRST_KEY,
            Piece::Name(_) => !in_name,
            Piece::ArgumentEnd => in_column == column::ARGUMENTS,
        };
        let between = !matches!(piece, Piece::Text(_) | Piece::Byte(_));
        open_argument = !matches!(piece, Piece::ArgumentEnd);
        match allowed && !(between && escape) {
            true => Ok(()),
            false => Err("a string with something in it that may not stand there".to_owned()),
        }
    })?;
    if escape || (in_column == column::ARGUMENTS && open_argument) {
        return Err("a string that is cut off".to_owned());
    }
    Ok(mentions)
}

/// Whether a byte may stand in a string of a derivation, given what stands before it.
fn unescaped(byte: u8, escape: &mut bool) -> bool {
    if std::mem::take(escape) {
        return matches!(byte, b'n' | b'r' | b't' | b'"' | b'\\');
    }
    *escape = byte == b'\\';
    !matches!(byte, b'"' | b'\n' | b'\r' | b'\t')
}
