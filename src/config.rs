//! The configuration: settings as written in YAML and in `CT_` variables, and the checked [`Plan`] built from them.
//!
//! Design constraints:
//!
//! * Setups that run under cortex-tenant start unchanged: same keys, variables and defaults, same reading of 0 and of
//!   empty values.
//! * All mistakes are reported at once, each with its line, its key and the remedy. Reading therefore never stops at
//!   the first one. The file becomes a tree with lines (`yaml`). The tree and the environment become one value per key
//!   (`source`). An unreadable value is replaced by its default, so that the remaining checks still run.
//! * A key appears in many places: the file, the environment, the output of `--print-default-config`, the hints for
//!   typos, the log. One table in `keys` feeds them all. A new key needs one entry there, and its use in [`plan`].
//!
//! ```text
//! file ──► yaml ──┐
//!                 ├─► source ─► Config (as written, by key) ─► plan ─► Plan (checked, resolved)
//! environment ────┘       └────────── mistakes ───────────────┘
//! ```
#![forbid(unsafe_code)]

mod access;
mod address;
mod again;
pub mod auth;
mod bounds;
mod credentials;
mod docs;
mod excerpt;
mod file;
mod forbidden;
mod header;
mod jwks;
mod key;
mod keys;
mod load;
mod mistake;
pub mod observe;
pub mod plan;
pub mod reload;
mod security;
mod setting;
mod source;
mod spool;
mod static_headers;
mod suggest;
mod target;
mod tenant_map;
mod terms;
pub mod tls;
mod tokens;
pub mod upstreams;
mod value;
pub mod web;
mod yaml;

pub use self::access::{Credentials, read_access};
pub use self::again::Again;
pub use self::docs::{Documented, documented, print_defaults, settings_tables};
pub use self::header::TenantHeader;
pub use self::jwks::read_jwks;
pub use self::key::Key;
pub use self::keys::KEYS;
pub use self::load::{has_settings, load, load_again, parse};
pub use self::mistake::ConfigMistakes;
pub use self::plan::{Limits, Merge, Plan};
pub use self::target::Target;
pub use self::tenant_map::read_tenant_map;
pub use self::tokens::{TokensFile, read_tokens};
pub use self::value::DriverChoice;
pub use self::web::{WebConfig, read_web_config};
