//! Tenantry: one Prometheus in, its tenants out.

pub mod http;
pub mod limits;
pub mod split;
pub mod tenant;
pub mod verdict;
pub mod wire;
