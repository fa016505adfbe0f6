//! Sees which files evaluators read, whatever their logs say.
//!
//! The kernel stops a command, and all that it starts, where they name files in system calls, and
//! tells the thread that follows them (`traced`). Where a system does not allow that, the command
//! runs all the same, and [`Running::wait`] says that nobody has looked.

mod run;
mod seen;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod traced;

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub use self::run::become_watched;
pub use self::run::{Ended, Interest, Running, Watch, is_nix};
pub use self::seen::{Entries, Seen};
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use self::traced::become_watched;
