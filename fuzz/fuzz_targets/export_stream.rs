//! What `nix-store --export` writes.

#![no_main]

use ferry_fuzz::export_stream;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| export_stream(data));
