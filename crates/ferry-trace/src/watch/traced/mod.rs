//! Following a command with ptrace(2) and seccomp(2).

mod filter;
mod launch;
mod tracee;
mod tracer;

pub use self::launch::become_watched;
pub(super) use self::tracer::{Begun, Tracer};
