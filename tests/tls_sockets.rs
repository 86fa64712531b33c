//! TLS over real sockets, with the real binary: senders are OpenSSL, curl, Prometheus and rustls, and the upstream
//! speaks TLS by a relay or by stunnel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

#[path = "tls_sockets/cells.rs"]
mod cells;
#[path = "tls_sockets/chaos.rs"]
mod chaos;
#[path = "tls_sockets/inbound.rs"]
mod inbound;
#[path = "tls_sockets/outbound.rs"]
mod outbound;
#[path = "tls_sockets/peers.rs"]
mod peers;
#[path = "tls_sockets/prometheus.rs"]
mod prometheus;
#[path = "tls_sockets/records.rs"]
mod records;
#[path = "tls_sockets/relay.rs"]
mod relay;
#[path = "tls_sockets/renewal.rs"]
mod renewal;
#[path = "tls_sockets/stunnel.rs"]
mod stunnel;
