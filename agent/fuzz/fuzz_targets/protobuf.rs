//! cargo-fuzz's entry: see `src/protobuf.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidelight_fuzz::protobuf(data));
