//! One NAR, and one block of a payload.

#![no_main]

use ferry_fuzz::{RUNTIME, list, one_nar, read_all, with};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let listed = list(data).is_ok();
    assert_eq!(read_all(&one_nar(data)), listed, "what can be listed is what can be loaded");
    read_all(&with(RUNTIME, b"BLCK", data));
});
