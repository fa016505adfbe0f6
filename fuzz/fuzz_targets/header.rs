//! A whole file, as it is and with its digests made right.

#![no_main]

use ferry_fuzz::{BEGINNING, read_all, seal, sections};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    read_all(data);
    if data.starts_with(BEGINNING) {
        read_all(&seal(&sections(data)));
    }
});
