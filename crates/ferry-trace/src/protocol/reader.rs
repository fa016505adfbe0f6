//! Follows a message as its bytes come.

use thiserror::Error;

use super::Version;
use super::grammar::Item;
use super::nar::{KEYWORD, NarEnd};

/// Longer strings are not kept, in bytes.
pub const LONGEST_TEXT: u64 = 1 << 20;
/// No message keeps more in its lists, in bytes, about.
pub const KEPT: usize = 64 << 20;
/// No string is longer, in bytes: a length beyond this is no length.
const LENGTH: u64 = 1 << 44;

/// What a message says at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// A string.
    Text(Vec<u8>),
    /// A string, NAR or stream that was not kept, and its length in bytes.
    Bulk(u64),
    /// A list, the parts of each of its entries one after the other.
    List(Vec<Value>),
}

impl Value {
    /// The number that it is, if it is one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The string that it is, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What is in the list that it is; nothing if it is none.
    #[must_use]
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(values) => values,
            _ => &[],
        }
    }

    /// The strings in the list that it is.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.list().iter().filter_map(Self::text)
    }
}

/// What comes cannot be a message of this form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A string of more bytes than there are.
    #[error("a string of {0} bytes")]
    Length(u64),
    /// A choice that there is not.
    #[error("{0}, where there are {1} choices")]
    Choice(u64, usize),
    /// Not a NAR.
    #[error("what should be a NAR is none")]
    Nar,
}

/// Reads one message.
#[derive(Debug)]
pub struct Reader {
    version: Version,
    levels: Vec<Level>,
    leaf: Option<Leaf>,
    kept: usize,
    is_cut: bool,
}

/// A sequence of items being read.
#[derive(Debug)]
struct Level {
    items: &'static [Item],
    next: usize,
    /// How often it comes again.
    more: u64,
    /// Whether it becomes a value of its own.
    is_list: bool,
    values: Vec<Value>,
}

/// What is being read byte by byte.
#[derive(Debug)]
enum Leaf {
    Number(Number, Purpose),
    Text(Text),
    Frames { size: Number, left: u64, total: u64 },
    Nar { string: Text, end: NarEnd, total: u64 },
}

/// What a number is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Value,
    Repeat(&'static [Item]),
    Choice(&'static [&'static [Item]]),
}

impl Reader {
    /// A reader of a message of this form.
    #[must_use]
    pub fn new(items: &'static [Item], version: Version) -> Self {
        let level = Level { items, next: 0, more: 0, is_list: false, values: Vec::new() };
        Self { version, levels: vec![level], leaf: None, kept: 0, is_cut: false }
    }

    /// Whether something was left out of its lists, because it was too much.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Takes bytes from the beginning of `input`, and gives the message when it is whole.
    ///
    /// # Errors
    /// [`Malformed`]: nothing that follows can be understood.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Vec<Value>>, Malformed> {
        loop {
            if let Some(mut leaf) = self.leaf.take() {
                match leaf.read(input)? {
                    Some(value) => self.take(&leaf, value)?,
                    None => {
                        self.leaf = Some(leaf);
                        return Ok(None);
                    }
                }
            }
            let Some(level) = self.levels.last_mut() else { return Ok(Some(Vec::new())) };
            if let Some(item) = level.items.get(level.next).copied() {
                level.next += 1;
                self.begin(item);
            } else if level.more > 0 {
                level.more -= 1;
                level.next = 0;
            } else if let Some(done) = self.levels.pop() {
                let Some(above) = self.levels.last_mut() else { return Ok(Some(done.values)) };
                if done.is_list {
                    above.values.push(Value::List(done.values));
                } else {
                    above.values.extend(done.values);
                }
            }
        }
    }

    fn begin(&mut self, item: Item) {
        if let Some(items) = item.expansion(self.version) {
            return self.enter(items, 1, false);
        }
        self.leaf = match item {
            Item::Number => Some(Leaf::Number(Number::default(), Purpose::Value)),
            Item::Repeat(items) => Some(Leaf::Number(Number::default(), Purpose::Repeat(items))),
            Item::Choice(items) => Some(Leaf::Number(Number::default(), Purpose::Choice(items))),
            Item::Text => Some(Leaf::Text(Text::keeping(LONGEST_TEXT))),
            Item::Frames => Some(Leaf::Frames { size: Number::default(), left: 0, total: 0 }),
            Item::Nar => Some(Leaf::Nar {
                string: Text::keeping(KEYWORD as u64),
                end: NarEnd::default(),
                total: 0,
            }),
            // They were expanded.
            Item::All(_) | Item::Since(..) | Item::ByPath(..) => None,
        };
    }

    /// Goes on with items that come `times` times.
    fn enter(&mut self, items: &'static [Item], times: u64, is_list: bool) {
        let items = if times == 0 { &[] } else { items };
        let more = times.saturating_sub(1);
        self.levels.push(Level { items, next: 0, more, is_list, values: Vec::new() });
    }

    fn take(&mut self, leaf: &Leaf, value: Value) -> Result<(), Malformed> {
        match (leaf, value.number()) {
            (Leaf::Number(_, Purpose::Repeat(items)), Some(times)) => {
                self.enter(items, times, true);
            }
            (Leaf::Number(_, Purpose::Choice(choices)), Some(number)) => {
                let chosen = usize::try_from(number).ok().and_then(|number| choices.get(number));
                let items = chosen.ok_or(Malformed::Choice(number, choices.len()))?;
                self.keep(value);
                self.enter(items, 1, false);
            }
            _ => self.keep(value),
        }
        Ok(())
    }

    fn keep(&mut self, value: Value) {
        let in_list = self.levels.iter().any(|level| level.is_list);
        if in_list {
            self.kept += size_of::<Value>() + value.text().map_or(0, <[u8]>::len);
            if self.kept > KEPT {
                self.is_cut = true;
                return;
            }
        }
        if let Some(level) = self.levels.last_mut() {
            level.values.push(value);
        }
    }
}

impl Leaf {
    /// Takes bytes, and gives the value when it is whole.
    fn read(&mut self, input: &mut &[u8]) -> Result<Option<Value>, Malformed> {
        match self {
            Self::Number(number, _) => Ok(number.read(input).map(Value::Number)),
            Self::Text(text) => text.read(input),
            Self::Frames { size, left, total } => loop {
                *left -= skip(input, *left);
                if *left > 0 {
                    return Ok(None);
                }
                match size.read(input) {
                    None => return Ok(None),
                    Some(0) => return Ok(Some(Value::Bulk(*total))),
                    Some(next) if next > LENGTH => return Err(Malformed::Length(next)),
                    Some(next) => {
                        *size = Number::default();
                        *left = next;
                        *total = total.saturating_add(next);
                    }
                }
            },
            Self::Nar { string, end, total } => loop {
                let before = input.len();
                let value = string.read(input)?;
                *total = total.saturating_add((before - input.len()) as u64);
                let Some(value) = value else { return Ok(None) };
                *string = Text::keeping(KEYWORD as u64);
                // What is too long to be kept is no keyword.
                let text = value.text().unwrap_or(b"?");
                if end.string(text).ok_or(Malformed::Nar)? {
                    return Ok(Some(Value::Bulk(*total)));
                }
            },
        }
    }
}

/// Takes up to `count` bytes, and tells how many there were.
fn skip(input: &mut &[u8], count: u64) -> u64 {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(input.len());
    *input = input.get(count..).unwrap_or_default();
    count as u64
}

/// A number, as far as it has come.
#[derive(Clone, Debug, Default)]
struct Number {
    bytes: [u8; 8],
    count: usize,
}

impl Number {
    fn read(&mut self, input: &mut &[u8]) -> Option<u64> {
        while let Some(place) = self.bytes.get_mut(self.count) {
            let (first, rest) = input.split_first()?;
            *place = *first;
            *input = rest;
            self.count += 1;
        }
        Some(u64::from_le_bytes(self.bytes))
    }
}

/// A string, as far as it has come.
#[derive(Clone, Debug)]
struct Text {
    length: Number,
    /// Bytes to come, padding included, once the length is known.
    left: Option<u64>,
    kept: Vec<u8>,
    /// The longest that is kept.
    longest: u64,
}

impl Text {
    fn keeping(longest: u64) -> Self {
        Self { length: Number::default(), left: None, kept: Vec::new(), longest }
    }

    fn read(&mut self, input: &mut &[u8]) -> Result<Option<Value>, Malformed> {
        let Some(length) = self.length.read(input) else { return Ok(None) };
        if length > LENGTH {
            return Err(Malformed::Length(length));
        }
        let mut left = self.left.unwrap_or_else(|| length.next_multiple_of(8));
        if length <= self.longest {
            // At most what is allowed, so it fits.
            let missing = usize::try_from(length).unwrap_or(usize::MAX) - self.kept.len();
            let coming = input.get(..missing.min(input.len())).unwrap_or_default();
            self.kept.extend_from_slice(coming);
        }
        left -= skip(input, left);
        self.left = Some(left);
        if left > 0 {
            return Ok(None);
        }
        Ok(Some(match length <= self.longest {
            true => Value::Text(std::mem::take(&mut self.kept)),
            false => Value::Bulk(length),
        }))
    }
}
