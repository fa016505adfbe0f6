//! Names of paths, and what is asked of sources; the tests of binary caches have it as well.

use std::collections::BTreeSet;
use std::time::Duration;

use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Explorer, Facts, Kind, NodeSet};
use ferry_store::http::HttpOptions;

/// A store path with this name, below `/nix/store`.
pub(crate) fn path(name: &str) -> StorePath {
    let mut digest = [0; 20];
    for (place, byte) in digest.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    StorePath::from_parts(digest, name).unwrap()
}

/// The same written out.
pub(crate) fn text(name: &str) -> String {
    StoreDir::default().render_path(&path(name))
}

/// A store path that was written out.
pub(crate) fn parse(text: &str) -> StorePath {
    StoreDir::default().parse_path(text.as_bytes()).unwrap()
}

/// An explorer that knows what one source knows.
pub(crate) fn explorer<'a>(source: impl Facts + 'a) -> Explorer<'a> {
    let mut explorer = Explorer::new(StoreDir::default());
    explorer.add_source(Box::new(source));
    explorer
}

/// The run closure of some paths, written out, and what was missing from it.
pub(crate) fn run_closure(
    explorer: &mut Explorer<'_>,
    roots: &[StorePath],
) -> (BTreeSet<String>, Vec<String>) {
    let roots: NodeSet = roots.iter().map(|root| explorer.node(root)).collect();
    let closure = explorer.closure(&[Kind::Run], &roots, None, None).unwrap();
    let closure = closure.iter().map(|node| explorer.graph().render(node)).collect();
    (closure, missing(explorer))
}

/// What was missing from the answers of an explorer.
pub(crate) fn missing(explorer: &Explorer<'_>) -> Vec<String> {
    explorer.missing().map(|missing| missing.tell("what was asked")).collect()
}

/// HTTP with no patience: no wait between attempts is longer than ten milliseconds.
pub(crate) fn impatient() -> HttpOptions {
    HttpOptions {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(10),
        ..HttpOptions::default()
    }
}
