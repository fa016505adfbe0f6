//! The strings of a derivation, as they stand in the file.

use std::ops::Range;

use memchr::memchr2;

/// A derivation cut up. Every string is the bytes between its quotes, escapes and all.
pub struct Parts<'a> {
    /// Name, path, method with algorithm, and digest.
    pub outputs: Vec<[&'a [u8]; 4]>,
    /// The paths of input derivations, and the names of their outputs.
    pub inputs: Vec<(&'a [u8], Vec<&'a [u8]>)>,
    /// The paths of input sources.
    pub sources: Vec<&'a [u8]>,
    /// The system that it is built on.
    pub system: &'a [u8],
    /// The program that builds it.
    pub builder: &'a [u8],
    /// What that is called with.
    pub arguments: Vec<&'a [u8]>,
    /// Names and values.
    pub environment: Vec<(&'a [u8], &'a [u8])>,
    /// Where the list of input derivations stands in the text, with its brackets.
    pub(crate) inputs_at: Range<usize>,
    /// Where the first entry of the environment begins in the text.
    pub(crate) environment_at: usize,
}

/// Cuts up a derivation of the usual form, or returns `None` for any other.
#[must_use]
pub fn split(text: &[u8]) -> Option<Parts<'_>> {
    let mut rest = Rest(text);
    let at = |rest: &Rest<'_>| text.len() - rest.0.len();
    rest.expect(b"Derive(")?;
    let outputs = rest.list(|rest| {
        rest.expect(b"(")?;
        let name = rest.string()?;
        rest.expect(b",")?;
        let path = rest.string()?;
        rest.expect(b",")?;
        let method = rest.string()?;
        rest.expect(b",")?;
        let digest = rest.string()?;
        rest.expect(b")")?;
        Some([name, path, method, digest])
    })?;
    rest.expect(b",")?;
    let inputs_from = at(&rest);
    let inputs = rest.list(|rest| {
        rest.expect(b"(")?;
        let path = rest.string()?;
        rest.expect(b",")?;
        let outputs = rest.list(Rest::string)?;
        rest.expect(b")")?;
        Some((path, outputs))
    })?;
    let inputs_at = inputs_from..at(&rest);
    rest.expect(b",")?;
    let sources = rest.list(Rest::string)?;
    rest.expect(b",")?;
    let system = rest.string()?;
    rest.expect(b",")?;
    let builder = rest.string()?;
    rest.expect(b",")?;
    let arguments = rest.list(Rest::string)?;
    rest.expect(b",")?;
    let environment_at = at(&rest) + 1;
    let environment = rest.list(|rest| {
        rest.expect(b"(")?;
        let key = rest.string()?;
        rest.expect(b",")?;
        let value = rest.string()?;
        rest.expect(b")")?;
        Some((key, value))
    })?;
    rest.expect(b")")?;
    rest.0.is_empty().then_some(Parts {
        outputs,
        inputs,
        sources,
        system,
        builder,
        arguments,
        environment,
        inputs_at,
        environment_at,
    })
}

impl Parts<'_> {
    /// Where the values of the environment stand in the text, in order.
    pub(crate) fn values_at(&self) -> impl Iterator<Item = Range<usize>> {
        let mut next = self.environment_at;
        self.environment.iter().map(move |(key, value)| {
            // `("key","value"),`
            let start = next + 2 + key.len() + 3;
            let end = start + value.len();
            next = end + 3;
            start..end
        })
    }
}

/// Whether all escapes are those that Nix writes, and nothing is left unescaped that it escapes.
#[must_use]
pub fn is_escaped_as_nix_does(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(place) = memchr::memchr(b'\\', rest) {
        if !matches!(rest.get(place + 1), Some(b'n' | b'r' | b't' | b'"' | b'\\')) {
            return false;
        }
        rest = rest.get(place + 2..).unwrap_or_default();
    }
    memchr::memchr3(b'\n', b'\r', b'\t', text).is_none()
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn expect(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b"\"")?;
        let mut end = 0;
        loop {
            end += memchr2(b'"', b'\\', self.0.get(end..)?)?;
            if self.0.get(end) == Some(&b'"') {
                break;
            }
            end += 2;
        }
        let (string, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..)?;
        Some(string)
    }

    fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.expect(b"[")?;
        let mut elements = Vec::new();
        if self.expect(b"]").is_some() {
            return Some(elements);
        }
        loop {
            elements.push(element(self)?);
            if self.expect(b"]").is_some() {
                return Some(elements);
            }
            self.expect(b",")?;
        }
    }
}
