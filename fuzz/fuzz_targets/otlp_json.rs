#![no_main]

#[path = "../checks/otlp.rs"]
mod otlp;

libfuzzer_sys::fuzz_target!(|export: &[u8]| otlp::check_json(export));
