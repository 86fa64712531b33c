#![no_main]

#[path = "../checks/scan_v2.rs"]
mod scan_v2;

libfuzzer_sys::fuzz_target!(|request: &[u8]| scan_v2::check(request));
