//! Tests of the spool: its bytes, and stores on a disk in memory that fails and crashes.
#![allow(clippy::cast_possible_truncation, reason = "a test: its records are small")]

mod bytes;
mod crashes;
mod mended;
mod model;
mod steps;
mod view;
mod worker;
