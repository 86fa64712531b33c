//! Load, sink and proof for Tenantry.
//!
//! A sender sends bodies that were built beforehand, so that the server is measured and not its load; a sink at
//! the other end counts what arrives, tenant by tenant; and because both keep the same sums, the two can be
//! compared: what was acknowledged must be what was stored. Where sums don't tell enough, the same sender sends samples
//! that bear stamps, and what went wrong is told sample by sample.
//!
//! ```text
//! catalogue ─► fleet ──┐
//!                      ├─► send ──► (the server) ──► sink
//!    stamp ─► stamped ─┘     │                         │
//!                         journal ─────► audit ◄─── account    sums, or every sample
//! ```
//!
//! [`chaos`] plans the bad days on which that has to hold.
//!
//! Threads and blocking sockets are right here: a thread per connection costs the server nothing, and its
//! latency figures hold no queue of ours.

pub mod account;
pub mod audit;
mod catalogue;
pub mod chaos;
pub mod child;
pub mod client;
pub mod compare;
pub mod duration;
pub mod fleet;
pub mod journal;
pub mod process;
mod random;
mod retry;
pub mod runs;
pub mod send;
pub mod sink;
pub mod stamp;
pub mod stamped;
pub mod translate;
pub mod typed;

pub use testkit::{http, port, proto, proto_loki, proto_v2};
