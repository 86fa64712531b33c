#![no_main]

#[path = "../checks/snappy.rs"]
mod snappy;

libfuzzer_sys::fuzz_target!(|block: &[u8]| snappy::check(block));
