//! cargo-fuzz's entry: see `src/reviews.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidelight_fuzz::reviews(data));
