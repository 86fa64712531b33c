#![no_main]

#[path = "../checks/spool_segment.rs"]
mod spool_segment;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spool_segment::check(bytes));
