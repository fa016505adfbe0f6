//! What a bundle does to those who read it when it is damaged, hostile or not trusted: nothing.
//!
//! No Nix and no rights are needed. Bundles come from a writer of their own (`builder`), made from
//! the description of the format, which knows how to tell every lie and still get the digests
//! right; they are verified, and loaded into a chroot store with things around it that must stay
//! as they are (`receiver`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Tests make temporary directories where the environment says, start themselves again, and take
// numbers apart.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_possible_truncation)]

mod based;
mod builder;
mod objects;
mod packed;
mod receiver;
mod wire;

mod conflicts;
mod contents;
mod damage;
mod derivations;
mod example;
mod facts;
mod hostile_derivations;
mod index;
mod inputs_there;
mod memory;
mod nars;
mod order;
mod ranges;
mod real_derivations;
mod salvage;
mod salvage_packed;
mod side_by_side;
mod signatures;
mod structure;
mod thin;
mod unreliable;
mod version_0;
mod version_1;
mod volumes;
