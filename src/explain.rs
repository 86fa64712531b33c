//! Where a series goes, and why: what `tenantry explain` and `tenantry plan` tell.
//!
//! Design constraints:
//!
//! * An explanation must never differ from what the server does. So tenants are decided by [`tenant`](crate::tenant),
//!   bodies are split by [`split`](crate::split), and answers are those of [`verdict`](crate::verdict); nothing is
//!   decided here.
//! * Everything is pure: a plan and bytes in, data out. Nothing opens a socket. `cli/` reads the files.
//! * Secrets stay out: a target is shown without credentials and without the values of its query.
#![forbid(unsafe_code)]

mod body;
mod moves;
mod place;
mod sender;
mod series;
mod told;

pub use self::body::{Hints, Left, PartSummary, Summary, format_name, summarize};
pub use self::moves::{Comparison, Goes, Move, Reload};
pub use self::place::Place;
pub use self::sender::Sender;
pub use self::series::{Explained, explain, explain_json};
pub use self::told::Told;
