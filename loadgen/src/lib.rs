//! Load, sink and proof for Tenantry.
//!
//! Senders send bodies that were built beforehand, so that encoding them does not count. A sink at the other end counts
//! what arrives, by tenant. Both keep the same sums, which must be equal: what was acknowledged is what was stored.
//! Where sums are not enough, senders send stamped samples, and an audit reports each sample that went wrong.
//!
//! ```text
//! catalogue ─► fleet ──┐
//!                      ├─► send ──► (the server) ──► sink
//!    stamp ─► stamped ─┘     │                         │
//!                         journal ─────► audit ◄─── account    sums, or every sample
//! ```
//!
//! [`chaos`] plans the faults under which that has to hold. [`simulation`] has them happen under a clock of its own.
//! [`capture`] records the pushes of real senders.
//!
//! Senders and sinks use threads and blocking sockets: so latencies include no queue of this program.

pub mod account;
pub mod audit;
pub mod capture;
mod catalogue;
pub mod chaos;
pub mod child;
pub mod client;
pub mod compare;
pub mod destination;
pub mod duration;
pub mod fleet;
pub mod journal;
pub mod process;
mod random;
mod retry;
pub mod runs;
pub mod send;
pub mod simulation;
pub mod sink;
pub mod stamp;
pub mod stamped;
pub mod tls;
pub mod translate;
pub mod typed;

pub use testkit::{http, port, proto, proto_loki, proto_v2};
