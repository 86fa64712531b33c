//! Requests that are too large for an upstream: into how many pieces they are split, and that others are not affected.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::remote_write::inflated;
use support::upstream::Received;
use support::{Ends, Reply, Server, Upstream, body, on_both, one, series};

/// A request of one tenant with `count` series of some 120 bytes each.
fn large(tenant: &str, count: usize) -> Vec<u8> {
    let padding = "x".repeat(80);
    body((0..count).map(|number| series(tenant, &format!("s{number}_{padding}"), 1.0)).collect())
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
            let ends = Ends(&stop);
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
            drop(ends);
            small.join().unwrap();
        });
    });
}

#[test]
fn a_size_limit_of_one_tenant_does_not_apply_to_others() {
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
fn a_value_that_quotes_mimirs_error_code_does_not_lower_the_size() {
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
        assert_eq!(
            upstream.of("a").len(),
            1,
            "the request is refused for its content and not sent in pieces"
        );
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

/// A request of one tenant with `count` series: `s00`, `s01` and so on.
fn numbered(tenant: &str, count: usize) -> Vec<u8> {
    body((0..count).map(|number| series(tenant, &format!("s{number:02}"), 1.0)).collect())
}

/// The series that an upstream has stored: those of requests for which `taken` holds.
fn stored(upstream: &Upstream, taken: impl Fn(&[String]) -> bool) -> Vec<String> {
    upstream.received().iter().map(|r| r.names()).filter(|names| taken(names)).flatten().collect()
}

/// What Mimir says of a request that is too large.
const MIMIR_TOO_LARGE: &str = "the incoming push request has been rejected because its message size of 300 bytes is \
    larger than the allowed limit of 200 bytes (err-mimir-distributor-max-write-message-size). To adjust the related \
    limit, configure -distributor.max-recv-msg-size, or contact your service administrator.";

#[test]
fn a_part_that_is_too_large_is_halved_until_it_fits_and_the_next_one_at_once() {
    on_both(|driver| {
        let fits = |names: &[String]| names.len() <= 5;
        for (status, text) in [(413, "too large"), (400, MIMIR_TOO_LARGE)] {
            let upstream =
                Upstream::start(
                    move |r| if fits(&r.names()) { Reply::ok() } else { Reply::new(status, text) },
                );
            let server = Server::start(driver, upstream.address, "cores: 1\n");
            let mut client = server.client();
            assert_eq!(client.push(&numbered("a", 40)).status, 200);
            let all: Vec<_> = (0..40).map(|number| format!("s{number:02}")).collect();
            assert_eq!(stored(&upstream, fits), all, "each once, in order");
            let requests = upstream.received().len();
            assert!(requests > 8, "the request was sent whole, then halved");
            assert_eq!(client.push(&numbered("a", 41)).status, 200);
            let refused = upstream.received()[requests..].iter().filter(|r| !fits(&r.names())).count();
            assert_eq!(refused, 0, "the size is remembered");
            assert_eq!(client.push(&numbered("b", 3)).status, 200);
        }
    });
}

#[test]
fn a_single_series_that_is_too_large_is_413_and_the_others_are_stored() {
    on_both(|driver| {
        let fits = |names: &[String]| !names.iter().any(|name| name == "s03");
        let upstream =
            Upstream::start(
                move |r| if fits(&r.names()) { Reply::ok() } else { Reply::new(413, "s03 is huge") },
            );
        let server = Server::start(driver, upstream.address, "");
        let response = server.client().push(&numbered("a", 10));
        assert_eq!((response.status, &*response.text()), (413, "s03 is huge"));
        let others: Vec<_> = (0..10).filter(|&n| n != 3).map(|number| format!("s{number:02}")).collect();
        assert_eq!(stored(&upstream, fits), others);
    });
}

#[test]
fn a_retry_sends_only_the_pieces_that_are_missing() {
    on_both(|driver| {
        let failing = Arc::new(AtomicBool::new(true));
        let fails = Arc::clone(&failing);
        let taken = |names: &[String]| names.len() <= 3;
        let upstream = Upstream::start(move |r| match r.names() {
            names if !taken(&names) => Reply::new(413, "too large"),
            names if names.iter().any(|name| name == "s09") && fails.load(Ordering::SeqCst) => {
                Reply::new(503, "not now")
            }
            _ => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "");
        assert_eq!(server.client().push(&numbered("a", 12)).status, 503);
        failing.store(false, Ordering::SeqCst);
        assert_eq!(server.client().push(&numbered("a", 12)).status, 200);
        let mut seen = stored(&upstream, taken);
        seen.sort();
        let held_by_the_failed: Vec<_> =
            seen.windows(2).filter(|two| two[0] == two[1]).map(|two| &two[0]).collect();
        assert_eq!(held_by_the_failed, ["s09", "s10", "s11"], "only the piece that failed came twice");
        seen.dedup();
        assert_eq!(seen.len(), 12);
    });
}
