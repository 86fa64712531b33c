//! What a request holds, and what a sink has stored: an account of two levels.
//!
//! - [`Tally`]: sums over series, cheap enough to be kept while a server is measured. They prove that something went
//!   wrong.
//! - [`FullAccount`]: every stamped sample, for proofs. It tells what went wrong.
//!
//! [`crate::journal`] is the same on the senders' side, and [`crate::audit`] holds the one against the other.

mod samples;
mod sums;

pub use samples::{FullAccount, Path, Track};
pub use sums::{Malformed, SeriesSeen, Tally, walk};
