//! What an evaluator and a daemon say to each other, with the recorder between them.

#![no_main]

use ferry_fuzz::dialogue::dialogue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| dialogue(data));
