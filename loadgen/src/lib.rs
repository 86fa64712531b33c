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
//! Where sums don't tell enough, samples bear stamps, and what went wrong is told sample by sample:
//!
//! ```text
//! stamped ──► (the server) ──► sink
//!    │                          │
//! journal ───────► audit ◄── full account
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
pub mod floor;
pub mod full_account;
pub mod http;
pub mod journal;
pub mod ledger;
pub mod port;
pub mod process;
pub mod proto;
pub mod proto_loki;
pub mod proto_v2;
mod random;
mod retry;
pub mod runs;
pub mod send;
pub mod sink;
pub mod stamp;
pub mod stamped;
pub mod words;
