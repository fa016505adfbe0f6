//! The payload: sections, and in them blocks, each compressed against what the reader has.

mod again;
mod bases;
mod block;
mod compress;
mod history;
mod reader;
mod rewrite;
mod sampling;
mod scan;
mod sections;
mod similar;
mod writer;

pub(crate) use again::Origin;
pub(crate) use bases::Bases;
pub(crate) use block::{Bounds, Source, take_ranges};
pub(crate) use compress::decompress;
pub(crate) use reader::{Payload, Reading};
pub(crate) use scan::Scan;
pub(crate) use sections::Input;
pub(crate) use writer::{HashedOutput, PayloadWriter, Writing, reach};
