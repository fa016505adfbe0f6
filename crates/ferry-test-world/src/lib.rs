//! The test world: computers with a real Nix on them, a small internet, and generated graphs.
//!
//! For ferry's end-to-end tests and its benchmark only. Everything here panics with a message
//! that says what was being done when something goes wrong, as a test wants.
//!
//! * [`World`] finds the Debian roots that hold the three real Nix versions, or makes them.
//! * [`Machine`] is one isolated computer on such a root: its own `/nix`, `/root`, `/data`,
//!   `/tmp` and `/etc/nix`. Its commands see no network unless they ask for it.
//! * [`Daemon`] is a real `nix-daemon` that runs on a machine.
//! * Networks that are not there count [who tries](Machine::network_attempts) to reach them.
//! * [`Origin`] is the internet: an HTTP server on loopback that counts its requests.
//! * [`Nginx`] is a web server that others wrote.
//! * [`S3Server`] is a real server that speaks S3, and [`Relay`] a bad line to it.
//! * [`crossing`], [`big_graph`] and [`trees`] fill a machine with something to carry.
//! * [`real_derivations`] are those of a real small system, where they are at hand.
//!
//! ```no_run
//! use ferry_test_world::{Machine, NixVersion, World};
//!
//! let Some(world) = World::open() else { return };
//! let machine = Machine::new(&world, NixVersion::V2_26);
//! let version = machine.command("nix-store").arg("--version").ok();
//! assert!(version.contains("2.26"));
//! ```
//!
//! Needs root, and Linux with mount, network and process namespaces.

mod attempts;
mod big_graph;
mod command;
pub mod crossing;
mod daemon;
mod files;
mod machine;
mod namespaces;
mod nginx;
mod origin;
mod outcome;
mod real_derivations;
mod relay;
mod running;
mod s3_server;
pub mod trees;
mod version;
mod world;

pub use big_graph::{BigGraph, big_graph};
pub use command::MachineCommand;
pub use daemon::Daemon;
pub use files::files;
pub use machine::Machine;
pub use nginx::Nginx;
pub use origin::{Answer, Origin};
pub use outcome::{Outcome, Usage};
pub use real_derivations::{derivations_in, real_derivations};
pub use relay::{Fault, Relay};
pub use running::Running;
// What Running::signal takes.
pub use rustix::process::Signal;
pub use s3_server::S3Server;
pub use version::NixVersion;
pub use world::World;
