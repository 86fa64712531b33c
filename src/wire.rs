//! Bytes ⇄ ranges: the formats that come in and go out, read without copying and without modelling them.
//!
//! Everything here is pure: it takes slices and returns lengths, ranges and slices.
#![forbid(unsafe_code)]

pub mod remote_write_v1;
pub mod snappy;
pub mod varint;
