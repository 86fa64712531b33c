//! Requests that are too large for an upstream: how many pieces they become, and that it is nobody else's trouble.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use support::remote_write::inflated;
use support::upstream::Received;
use support::{Reply, Server, Upstream, body, on_both, series};

/// A request of one tenant with so many series of some 120 bytes each.
fn large(tenant: &str, count: usize) -> Vec<u8> {
    let padding = "x".repeat(80);
    body((0..count).map(|number| series(tenant, &format!("s{number}_{padding}"), 1.0)).collect())
}

fn one(tenant: &str) -> Vec<u8> {
    body(vec![series(tenant, "up", 1.0)])
}

/// An upstream that answers 413 to requests of `tenant` (of all, if it is empty) that inflate to more than `limit`.
fn upstream_with_limit(tenant: &'static str, limit: usize) -> Upstream {
    Upstream::start(move |received: &Received| {
        let concerned = tenant.is_empty() || received.tenant() == tenant;
        match concerned && inflated(&received.body).len() > limit {
            true => Reply::new(413, "too large"),
            false => Reply::ok(),
        }
    })
}

#[test]
fn a_large_request_becomes_few_pieces_while_others_push_small_ones() {
    on_both(|driver| {
        let upstream = upstream_with_limit("", 200_000);
        let server = Server::start(driver, upstream.address, "cores: 1\n");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let small = scope.spawn(|| {
                let mut client = server.client();
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(client.push(&one("b")).status, 200);
                }
            });
            let mut client = server.client();
            for _ in 0..3 {
                let before = upstream.of("a").len();
                assert_eq!(client.push(&large("a", 4_000)).status, 200);
                let attempts = upstream.of("a").len() - before;
                assert!(attempts <= 16, "{attempts} attempts");
            }
            stop.store(true, Ordering::SeqCst);
            small.join().unwrap();
        });
    });
}

#[test]
fn a_tenants_own_limit_is_no_other_tenants() {
    on_both(|driver| {
        let upstream = upstream_with_limit("a", 2_000);
        let server = Server::start(driver, upstream.address, "cores: 1\n");
        let mut client = server.client();
        for _ in 0..2 {
            assert_eq!(client.push(&large("a", 100)).status, 200);
            assert_eq!(client.push(&one("a")).status, 200);
            assert_eq!(client.push(&large("b", 2_000)).status, 200);
        }
        assert_eq!(upstream.of("b").len(), 2, "whole");
    });
}

#[test]
fn a_value_that_quotes_mimirs_words_makes_nothing_smaller() {
    on_both(|driver| {
        let upstream = Upstream::start(|received: &Received| match received.names().first() {
            Some(name) if name.contains("quoted") => {
                Reply::new(400, "invalid label value 'err-mimir-distributor-max-write-message-size'")
            }
            _ => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "cores: 1\n");
        let mut client = server.client();
        let quoted = body((0..50).map(|number| series("a", &format!("quoted{number}"), 1.0)).collect());
        assert_eq!(client.push(&quoted).status, 400);
        assert_eq!(upstream.of("a").len(), 1, "it is refused for its content, and not sent in pieces");
        assert_eq!(client.push(&large("a", 1_000)).status, 200);
        assert_eq!(upstream.of("a").len(), 2);
    });
}

#[test]
fn a_part_larger_than_receivers_take_is_sent_in_pieces() {
    on_both(|driver| {
        let upstream = upstream_with_limit("", 32 << 20);
        let settings = "cores: 1\nlimits: {body_bytes_max: 32Mi, inflated_bytes_max: 128Mi}\n";
        let server = Server::start(driver, upstream.address, settings);
        assert_eq!(server.client().push(&large("a", 330_000)).status, 200);
        let sizes: Vec<_> = upstream.of("a").iter().map(|received| inflated(&received.body).len()).collect();
        assert!(sizes.len() == 2 && sizes.iter().all(|&size| size <= 32_000_000), "{sizes:?}");
    });
}
