//! What the tests over sockets share: the real server, a scripted upstream, and a client that sends raw bytes.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods
)]

pub mod client;
pub mod load;
pub mod remote_write;
pub mod server;
pub mod tls;
pub mod upstream;

pub use client::{Client, Response};
pub use remote_write::{body, one, series};
pub use server::{Driver, Server, Transport, on_all, on_both, on_both_at_once, post, send_together};
pub use upstream::{Close, Reply, Upstream};

/// A server and the scripted upstream that it sends to.
pub fn start(
    driver: Driver,
    script: impl Fn(&upstream::Received) -> Reply + Send + Sync + 'static,
) -> (Server, Upstream) {
    let upstream = Upstream::start(script);
    (Server::start(driver, upstream.address, ""), upstream)
}

/// Waits until `what` holds, for at most ten seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("not within ten seconds: {what}");
}
