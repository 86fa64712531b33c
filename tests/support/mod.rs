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
pub mod otlp;
pub mod remote_write;
pub mod server;
pub mod tls;
pub mod upstream;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// Ends the threads that run until this flag is set, also when the test fails: they would push for ever otherwise.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until `what` holds, for at most twenty seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "not within twenty seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
