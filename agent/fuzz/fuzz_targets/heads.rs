//! cargo-fuzz's entry: see `src/heads.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidelight_fuzz::heads(data));
