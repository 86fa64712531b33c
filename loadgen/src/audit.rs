//! What was acknowledged against what was stored, on both levels of an account.
//!
//! - [`Comparison`]: a tenant's sums on both sides, and a verdict for each tenant.
//! - [`Audit`]: sample by sample, and a name for each thing that went wrong.

mod samples;
mod sums;

pub use samples::{Audit, EXAMPLES_MAX, Example, Finding};
pub use sums::{Comparison, Line, Verdict};
