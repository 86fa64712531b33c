#![no_main]

#[path = "../checks/loki_json.rs"]
mod loki_json;

libfuzzer_sys::fuzz_target!(|json: &[u8]| loki_json::check(json));
