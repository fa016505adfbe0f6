//! A recorded evaluation.

#![no_main]

use ferry_fuzz::trace;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| trace(data));
