//! What the tests have in common.

use std::time::Duration;

use ferry_store::http::{HttpOptions, HttpTimeouts};

pub(crate) use crate::asking::{explorer, impatient, missing, parse, path, run_closure, text};

/// The same, giving up on a server that says nothing after a fifth of a second.
pub(crate) fn hasty() -> HttpOptions {
    let timeouts = HttpTimeouts { read: Duration::from_millis(200), ..impatient().timeouts };
    HttpOptions { timeouts, ..impatient() }
}
