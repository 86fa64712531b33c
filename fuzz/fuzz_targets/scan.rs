#![no_main]

#[path = "../checks/scan.rs"]
mod scan;

libfuzzer_sys::fuzz_target!(|request: &[u8]| scan::check(request));
