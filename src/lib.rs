//! Tenantry receives Prometheus remote write and Loki pushes, finds the tenant of each series or stream, and forwards
//! one request per tenant with that tenant's HTTP header.
//!
//! ```text
//!             core k: one thread, one ring
//!   accept ─► http ─► inflate ─► scan ─► split ─► deflate ──┐     one Fragment a tenant
//!   (ingest)                                                ▼
//!                      mailbox of the tenant's home core (lock-free, one doorbell)
//!                                                           ▼
//!   (egress)              lane of the tenant: wait or merge ─► pool ─► POST to the upstream
//!                                                           │
//!   reply ◄── verdict ◄── mailbox back to core k ◄──────────┘     one Outcome a fragment
//! ```
//!
//! ARCHITECTURE.md follows one request through the files. Imports point down only: [`supervisor`] → [`core`] →
//! {[`ingest`], [`egress`] → [`upstream`]} → [`exchange`], [`shared`], [`io`] → the pure modules ([`wire`], [`http`],
//! [`tenant`], [`split`], [`verdict`]), which do no I/O and know neither the runtime nor the clock.

pub mod admin;
pub mod auth;
mod cli;
pub mod config;
pub mod core;
pub mod egress;
pub mod exchange;
pub mod explain;
pub mod format;
pub mod http;
pub mod ingest;
pub mod io;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod model;
pub mod profile;
pub mod selector;
pub mod service;
pub mod shared;
pub mod signal;
pub mod split;
pub mod spool;
pub mod supervisor;
pub mod tenant;
pub mod text;
pub mod tls;
pub mod trace;
pub mod upstream;
pub mod verdict;
pub mod wire;

pub use cli::{Build, run_from_args};
