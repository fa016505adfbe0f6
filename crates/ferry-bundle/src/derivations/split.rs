//! The strings of a derivation, as they stand in the file.

/// A derivation cut up. Every string is the bytes between its quotes, escapes and all.
pub(crate) struct Parts<'a> {
    /// Name, path, method with algorithm, and digest.
    pub(crate) outputs: Vec<[&'a [u8]; 4]>,
    pub(crate) inputs: Vec<(&'a [u8], Vec<&'a [u8]>)>,
    pub(crate) sources: Vec<&'a [u8]>,
    pub(crate) system: &'a [u8],
    pub(crate) builder: &'a [u8],
    pub(crate) arguments: Vec<&'a [u8]>,
    pub(crate) environment: Vec<(&'a [u8], &'a [u8])>,
}

/// Cuts up a derivation of the usual form, or returns `None` for any other.
pub(crate) fn split(text: &[u8]) -> Option<Parts<'_>> {
    let mut rest = Rest(text);
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
    let inputs = rest.list(|rest| {
        rest.expect(b"(")?;
        let path = rest.string()?;
        rest.expect(b",")?;
        let outputs = rest.list(Rest::string)?;
        rest.expect(b")")?;
        Some((path, outputs))
    })?;
    rest.expect(b",")?;
    let sources = rest.list(Rest::string)?;
    rest.expect(b",")?;
    let system = rest.string()?;
    rest.expect(b",")?;
    let builder = rest.string()?;
    rest.expect(b",")?;
    let arguments = rest.list(Rest::string)?;
    rest.expect(b",")?;
    let environment = rest.list(|rest| {
        rest.expect(b"(")?;
        let key = rest.string()?;
        rest.expect(b",")?;
        let value = rest.string()?;
        rest.expect(b")")?;
        Some((key, value))
    })?;
    rest.expect(b")")?;
    let whole = rest.0.is_empty();
    whole.then_some(Parts { outputs, inputs, sources, system, builder, arguments, environment })
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
            end += self.0.get(end..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
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
