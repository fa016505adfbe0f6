//! Records what a Nix evaluation asks of its store.
//!
//! [`protocol`] understands what an evaluator and a daemon say to each other, from bytes that are
//! handed in: it opens no socket and waits for nobody. [`proxy`] hands them in, between evaluators
//! and a daemon. [`record`] makes facts of what is heard, of what the evaluator's log says, and of
//! which files it was seen to read. [`watch`] sees that, from below.

pub mod protocol;
pub mod proxy;
pub mod record;
pub mod watch;
