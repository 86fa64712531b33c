//! t
pub mod cli;
pub mod config;
pub mod limits;
pub mod split;
pub mod tenant;
pub mod wire;
