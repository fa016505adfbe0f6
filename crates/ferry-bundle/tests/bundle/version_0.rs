//! Bundles of version 0 stay readable.

use ferry_bundle::Bundle;
use ferry_store::Store as _;

use crate::receiver::{Receiver, open, verify};

/// Made by a writer of that version from the example store: `hello`, its recipe, and what both
/// need.
const GOLDEN: &[u8] = include_bytes!("../golden/version-0.ferry");

#[test]
fn a_bundle_of_version_0_is_read_verified_and_loaded() {
    let bundle: Bundle = open(GOLDEN).unwrap();
    assert_eq!(bundle.format_version(), 0);
    assert_eq!(
        bundle.head_digest().to_string(),
        "sha256:012gfdn9a46mz7kq562q0bcklmqbrcd5mi6dr65a3ki5n5w2zxw7"
    );
    let names: Vec<&str> = bundle.path_infos().iter().map(|info| info.path.name()).collect();
    assert_eq!(
        names,
        [
            "build.sh",
            "greeting.txt",
            "greeting-1.0.drv",
            "hello.sh",
            "hello-1.0.drv",
            "greeting-1.0",
            "hello-1.0"
        ]
    );
    let output = &bundle.path_infos()[6].path;
    let recipe = &bundle.path_infos()[4].path;
    assert_eq!(bundle.derivers(output).unwrap(), std::slice::from_ref(recipe));

    assert_eq!(verify(GOLDEN).unwrap().copied.added, 7);
    let receiver = Receiver::new();
    assert_eq!(receiver.load(GOLDEN).unwrap().added, 7);
}
