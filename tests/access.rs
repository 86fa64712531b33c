//! Authentication and access rules, with the real binary: what each credential may write, and what happens to the rest.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

#[path = "access/admin.rs"]
mod admin;
#[path = "access/crowd.rs"]
mod crowd;
#[path = "access/grants.rs"]
mod grants;
#[path = "access/rig.rs"]
mod rig;
#[path = "access/rules.rs"]
mod rules;
#[path = "access/secrets.rs"]
mod secrets;
#[path = "access/web.rs"]
mod web;
