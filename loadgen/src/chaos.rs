//! What a bad day is made of: a plan of troubles, drawn from a seed, and an upstream that has them.
//!
//! Constraints that shaped it:
//! - A failure must be found again: the plan is a function of the seed and nothing else. (When which request meets
//!   which trouble is up to the clock and the scheduler; a seed does not repeat that.)
//! - All of it must be lawful. An upstream may be slow, refuse, break down, and store without being able to say so; it
//!   never says that it stored what it did not. So whatever is acknowledged and missing is the server's fault.
//! - Progress must always be possible: troubles come in storms of a few seconds, only so many at a time, and between
//!   storms it is calm for longer than a sender's pause and the server's timeout take together.
//!   Whether each tenant makes it, [`Liveness`] tells.

mod liveness;
mod plan;
mod upstream;

pub use liveness::{AllBeats, Beats, Excuse, Liveness, Pulse, Starved, excuses};
pub use plan::{Event, Plan, Planned, Tuning};
pub use upstream::FaultyUpstream;
