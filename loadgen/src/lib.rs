//! Load, sink and proof for Tenantry.
//!
//! A sender sends bodies that were built beforehand, so that the server is measured and not its load; a sink at
//! the other end counts what arrives, tenant by tenant; and because both keep the same sums, the two can be
//! compared: what was acknowledged must be what was stored.
//!
//! ```text
//! catalogue ─► fleet ─► send ──► (the server) ──► sink
//!                         │                         │
//!                         └──────► ledger ◄─────────┘   sums of account, tenant by tenant
//! ```
//!
//! Threads and blocking sockets are right here: a thread per connection costs the server nothing, and its
//! latency figures hold no queue of ours.

pub mod account;
mod catalogue;
pub mod client;
pub mod fleet;
pub mod http;
pub mod ledger;
pub mod process;
pub mod proto;
pub mod proto_loki;
mod random;
pub mod send;
pub mod sink;
