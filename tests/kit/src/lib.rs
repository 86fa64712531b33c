//! What the tests, the benches, the fuzz targets and loadgen share.
//!
//! Nothing here knows Tenantry or loadgen: what a server is held against has to come from elsewhere. So both may depend
//! on this crate, and neither on the other for its tests.

pub mod client;
pub mod fields;
pub mod http;
pub mod oracle;
pub mod pki;
pub mod port;
pub mod proto;
pub mod proto_loki;
pub mod proto_v2;
pub mod upstream;
