//! Authentication and authorization of inbound requests. No sockets, no configuration keys.
//!
//! [`identity`] is what is known about a sender, and [`access`] has the rules about tenants.
#![forbid(unsafe_code)]

pub mod access;
pub mod identity;

pub use self::access::{Access, Demand, Denied, Grant};
pub use self::identity::{Identity, JwtIdentity, Login, PeerCertificate};
