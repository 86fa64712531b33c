#![no_main]

#[path = "../checks/tls.rs"]
mod tls;

libfuzzer_sys::fuzz_target!(|input: &[u8]| tls::check(input));
