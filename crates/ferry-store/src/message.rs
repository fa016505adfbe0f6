//! What came from outside, made fit for a message.

use std::fmt;

/// How many characters of it are shown.
const SHOWN: usize = 120;

/// How some bytes begin: at most 120 characters, in quotes, with whatever a terminal might act on
/// escaped. Empty for no bytes.
#[must_use]
pub fn beginning(bytes: &[u8]) -> String {
    // No character takes more than four bytes.
    let head = bytes.get(..SHOWN * 4 + 4).unwrap_or(bytes);
    let text = harmless(String::from_utf8_lossy(head).trim());
    if text.is_empty() { text } else { format!("`{text}`") }
}

/// The part of a message that says how something [begins](beginning), if there is anything.
#[derive(Clone, Copy, Debug)]
pub struct Begins<'a>(pub &'a str);

impl fmt::Display for Begins<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(formatter, "; it begins: {}", self.0) }
    }
}

/// A text cut short after 120 characters, with whatever a terminal might act on escaped.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(SHOWN) {
        match character {
            '"' | '\'' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::beginning;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped_and_the_rest_is_cut_short() {
        assert_eq!(beginning(b" \x1b[31mred\x07\n"), r"`\u{1b}[31mred\u{7}`");
        assert_eq!(beginning(b"\xff\xfe"), "`\u{fffd}\u{fffd}`");
        assert_eq!(beginning(b"\n\n"), "");
        let long = beginning("ü".repeat(10_000).as_bytes());
        assert_eq!(long.chars().count(), 120 + 3);
    }
}
