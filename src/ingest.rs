//! From connections to fragments: accept, read requests, split them, answer when every part has its outcome.

pub mod connection;
pub mod listener;
pub mod pending;
pub mod push;
pub mod routes;
