#![no_main]

#[path = "../checks/loki_protobuf.rs"]
mod loki_protobuf;

libfuzzer_sys::fuzz_target!(|push: &[u8]| loki_protobuf::check(push));
