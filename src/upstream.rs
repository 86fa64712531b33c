//! An upstream as one core sees it: its addresses, its connections, and one POST over one of them.
//!
//! ```text
//! resolve ─► backoff (which addresses are well?) ─► pool (a connection or a place in its queue) ─► client (a POST)
//! ```
//!
//! Nothing here knows lanes or what a batch is made of: [`egress`](crate::egress) decides what goes next.

pub mod backoff;
pub mod client;
pub mod pool;
pub mod request;
pub mod resolve;
mod too_large;
