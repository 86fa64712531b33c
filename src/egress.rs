//! From fragments to upstream requests: the lanes of the tenants that are at home on this core.
//!
//! ```text
//! fragment ─► writer ─► lane (what goes next?) ─► pool (over which connection?) ─► client (POST, reply)
//!                                                                                     │
//! outcome, one for each fragment, to the core that its request came in on ◄───────────┘
//! ```
//!
//! Every fragment that comes in gets exactly one outcome: delivered, refused, or why not. There is no path on
//! which it is forgotten, as a request waits for all of its outcomes.

mod attempt;
pub mod delivery;
mod failure;
mod flights;
pub mod lane;
mod pieces;
pub mod receipts;
pub mod sizes;
mod written;
