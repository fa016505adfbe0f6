//! The index: streams of numbers, texts and digests.

#![no_main]

use ferry_fuzz::{RECIPE, read_all, take_streams, with};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Streams that stand as they are, so that what the fuzzer changes is what is read.
    read_all(&with(RECIPE, b"INDX", &take_streams(data)));
    read_all(&with(RECIPE, b"INDX", data));
});
