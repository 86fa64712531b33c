#![no_main]

#[path = "../checks/selector.rs"]
mod selector;

libfuzzer_sys::fuzz_target!(|text: &[u8]| selector::check(text));
