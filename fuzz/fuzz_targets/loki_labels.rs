#![no_main]

#[path = "../checks/loki_labels.rs"]
mod loki_labels;

libfuzzer_sys::fuzz_target!(|text: &[u8]| loki_labels::check(text));
