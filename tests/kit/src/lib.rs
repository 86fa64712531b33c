//! What the tests, the benches, the fuzz targets and loadgen share.
//!
//! This crate knows neither Tenantry nor loadgen, so that what it expects of a server does not come from that server.
//! Both may depend on it, and neither needs the other for its tests.

pub mod client;
pub mod fields;
pub mod http;
pub mod oracle;
pub mod pki;
pub mod port;
pub mod proto;
pub mod proto_loki;
pub mod proto_otlp;
pub mod proto_profile;
pub mod proto_v2;
pub mod stream;
pub mod upstream;
