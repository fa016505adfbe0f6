//! Kinds of a daemon's messages, and what is in those that mean nothing here.

use super::grammar::{FIELDS, Item};

pub(super) const LAST: u64 = 0x616c_7473;
pub(super) const ERROR: u64 = 0x6378_7470;
pub(super) const READ: u64 = 0x6461_7461;
pub(super) const LOG: &[(u64, &[Item])] = &[
    (0x6f6c_6d67, &[Item::Text]),
    (0x6461_7416, &[Item::Text]),
    (0x5354_5254, &[Item::Number, Item::Number, Item::Number, Item::Text, FIELDS, Item::Number]),
    (0x5354_4f50, &[Item::Number]),
    (0x5253_4c54, &[Item::Number, Item::Number, FIELDS]),
];
/// Kind, level, name, message, position, and a trace of positions and messages.
pub(super) const ERROR_ITEMS: &[Item] = &[
    Item::Text,
    Item::Number,
    Item::Text,
    Item::Text,
    Item::Number,
    Item::Repeat(&[Item::Number, Item::Text]),
];
