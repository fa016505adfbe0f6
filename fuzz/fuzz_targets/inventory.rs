//! An inventory, compact or listed.

#![no_main]

use ferry_fuzz::inventory;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| inventory(data));
