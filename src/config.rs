//! The configuration: keys as written in YAML and in `CT_` variables, and the one checked [`Plan`] made of
//! them.
//!
//! Constraints that shaped it:
//!
//! * What runs under cortex-tenant today has to start unchanged: its keys, its variables, its defaults, its
//!   reading of 0 and of empty values.
//! * An operator wants to hear of every mistake at once, each with its line, its key and what to do. So
//!   nothing stops at the first one: the file becomes a tree with lines (`yaml`), the tree and the
//!   environment become one value for each key (`source`), and a value that cannot be read gives way to its
//!   default, so that the rest is checked all the same.
//! * A key is known in many places: in the file, in the environment, in what `--print-default-config` prints,
//!   in the hints for typos, in the log. All of these come from one table, in [`keys`]; a new key is one entry
//!   there, and its use in [`plan`].
//!
//! ```text
//! file ──► yaml ──┐
//!                 ├─► source ─► Config (as written, by key) ─► plan ─► Plan (checked, resolved)
//! environment ────┘       └────────── mistakes ───────────────┘
//! ```
#![forbid(unsafe_code)]

mod address;
mod bounds;
mod docs;
mod header;
mod keys;
mod load;
mod mistake;
pub mod plan;
pub mod reload;
mod source;
mod target;
mod tenant_map;
mod value;
mod yaml;

pub use self::docs::{print_defaults, settings_tables};
pub use self::header::TenantHeader;
pub use self::keys::{KEYS, Key};
pub use self::load::{has_settings, load, load_again, parse};
pub use self::mistake::ConfigMistakes;
pub use self::plan::{Limits, Merge, Plan, Secret};
pub use self::target::Target;
pub use self::tenant_map::read_tenant_map;
pub use self::value::DriverChoice;
