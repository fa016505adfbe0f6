//! Digests in hexadecimal digits, as Nix writes them in derivations.

/// Appends bytes.
pub fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        out.extend([digit(byte >> 4), digit(byte & 15)]);
    }
}

/// Reads what [`put_hex`] writes, and nothing else.
#[must_use]
pub fn from_hex(text: &[u8]) -> Option<Box<[u8]>> {
    let nibble = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    text.chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(nibble(high)? << 4 | nibble(low)?),
            _ => None,
        })
        .collect()
}
