//! Derivations in coded form: what can be computed is left out.
//!
//! A `.drv` is mostly store paths, and those follow from the rest: the path of the file from its
//! text, the paths of its outputs from the text and the inputs. So a derivation is taken apart
//! into strings ([`split`](ferry_formats::derivation_parts)), what a string mentions is replaced by references ([`tokens`]), the
//! strings are sorted into columns ([`columns`]), and a reader puts the text together again and
//! computes every path on the way ([`settle`]).

mod amounts;
mod base;
mod coder;
mod columns;
mod counterparts;
mod differences;
mod encode;
mod form;
mod given;
mod likeness;
mod lots;
mod mentions;
mod model;
mod read;
mod render;
mod resolve;
mod settle;
mod sheet;
mod side_by_side;
mod slots;
mod tokens;

pub(crate) use amounts::Amounts;
pub use base::DerivationBase;
pub(crate) use coder::{Checked, Coded, Coder};
pub(crate) use encode::Encoder;
pub(crate) use given::Given;
pub(crate) use read::{Derivations, Failure, decode};
