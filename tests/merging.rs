//! Merged requests: which parts merge, up to which limits, and what the senders hear when a merged request is refused.
//! The real server between a raw client and a scripted upstream, on both rings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::time::{Duration, Instant};

use support::remote_write::{Label, TimeSeries, names};
use support::{Client, Reply, Server, Upstream, body, eventually, on_both, one, send_together, series};

#[test]
fn under_load_fragments_merge_and_every_sender_gets_its_answer() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(50)));
        let server = Server::start(driver, upstream.address, "merge:\n  inflight_max: 1\n");
        // Two tenants in each request, so that its parts are split and deflated before they merge.
        let bodies: Vec<_> = (0..30)
            .map(|i| body(vec![series("a", &format!("a{i}"), 1.0), series("b", &format!("b{i}"), 1.0)]))
            .collect();
        let mut clients = send_together(&server, &bodies);
        clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        for tenant in ["a", "b"] {
            let received = upstream.of(tenant);
            assert!(received.len() < 15, "{} requests for 30 fragments", received.len());
            let mut seen: Vec<_> = received.iter().flat_map(|r| names(&r.request())).collect();
            seen.sort();
            let mut sent: Vec<_> = (0..30).map(|i| format!("{tenant}{i}")).collect();
            sent.sort();
            assert_eq!(seen, sent, "each series once");
        }
        assert!(server.metric("tenantry_merges_total", "") >= 2.0);
    });
}

#[test]
fn requests_that_come_while_their_tenant_waits_for_a_connection_are_merged() {
    on_both(|driver| {
        let upstream = Upstream::start(|request| match request.tenant() {
            "slow" => Reply::ok().after(Duration::from_millis(500)),
            _ => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "max_conns_per_host: 1\n");
        let mut slow = send_together(&server, &[one("slow")]);
        eventually("it has the connection", || upstream.received().len() == 1);
        let bodies: Vec<_> = (0..10).map(|i| body(vec![series("a", &format!("m{i}"), 1.0)])).collect();
        let mut clients = send_together(&server, &bodies);
        clients.iter_mut().chain(&mut slow).for_each(|client| assert_eq!(client.response().status, 200));
        let received = upstream.of("a");
        assert_eq!(received.len(), 1, "all requests that waited are in one");
        assert_eq!(received[0].names().len(), 10);
    });
}

#[test]
fn merging_stops_at_its_limits() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(50)));
        let server =
            Server::start(driver, upstream.address, "merge:\n  inflight_max: 1\n  fragments_max: 4\n");
        let bodies: Vec<_> = (0..21).map(|i| body(vec![series("a", &format!("m{i}"), 1.0)])).collect();
        let mut clients = send_together(&server, &bodies);
        clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        let sizes: Vec<_> = upstream.received().iter().map(|r| r.names().len()).collect();
        assert!(sizes.iter().all(|&n| n <= 4) && sizes.contains(&4), "{sizes:?}");
    });
}

#[test]
fn replicas_never_share_a_request() {
    fn replica_series(replica: &str, name: &str) -> TimeSeries {
        let mut series = series("a", name, 1.0);
        series.labels.insert(0, Label::new("__replica__", replica));
        series.labels.insert(1, Label::new("cluster", "c"));
        series
    }
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(50)));
        let server = Server::start(driver, upstream.address, "merge:\n  inflight_max: 1\n");
        let bodies: Vec<_> = (0..20)
            .map(|i| body(vec![replica_series(if i % 2 == 0 { "r1" } else { "r2" }, &format!("m{i}"))]))
            .collect();
        let mut clients = send_together(&server, &bodies);
        clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        let mut merged = false;
        for received in upstream.received() {
            let request = received.request();
            let replicas: Vec<_> = request.timeseries.iter().map(|s| s.labels[0].value.clone()).collect();
            assert!(replicas.windows(2).all(|w| w[0] == w[1]), "{replicas:?}");
            merged |= replicas.len() > 1;
        }
        assert!(merged, "equal replicas do merge");
    });
}

#[test]
fn a_merged_request_that_is_refused_is_sent_again_part_by_part() {
    on_both(|driver| {
        let upstream = Upstream::start(|r| {
            let bad = r.names().iter().any(|name| name == "bad");
            let reply = if bad { Reply::new(400, "bad is out of order") } else { Reply::ok() };
            reply.after(Duration::from_millis(60))
        });
        let server = Server::start(driver, upstream.address, "merge:\n  inflight_max: 1\n");
        let bodies: Vec<_> =
            ["first", "m1", "bad", "m2"].iter().map(|name| body(vec![series("a", name, 1.0)])).collect();
        let mut clients = send_together(&server, &bodies);
        let responses: Vec<_> = clients.iter_mut().map(Client::response).collect();
        assert_eq!(responses.iter().map(|r| r.status).collect::<Vec<_>>(), [200, 200, 400, 200]);
        assert_eq!(responses[2].text(), "bad is out of order");
        let received = upstream.received();
        assert!(received.iter().any(|r| r.names().len() > 1), "they were merged at first");
        for name in ["first", "m1", "m2"] {
            let accepted = received.iter().map(|r| r.names()).filter(|n| !n.iter().any(|n| n == "bad"));
            let stored = accepted.filter(|names| names.iter().any(|n| n == name)).count();
            assert_eq!(stored, 1, "{name} was stored once");
        }
    });
}

/// One after another, they would run out of time.
#[test]
fn the_parts_of_a_large_merged_request_go_again_beside_each_other() {
    on_both(|driver| {
        let upstream = Upstream::start(|r| {
            let bad = r.names().iter().any(|name| name == "bad");
            let reply = if bad { Reply::new(400, "bad is out of order") } else { Reply::ok() };
            reply.after(Duration::from_millis(150))
        });
        let server = Server::start(driver, upstream.address, "timeout: 2s\n");
        let mut first = send_together(&server, &[one("a")]);
        eventually("the first is under way", || upstream.received().len() == 1);
        let names = (0..50).map(|n| if n == 25 { "bad".to_owned() } else { format!("m{n}") });
        let bodies: Vec<_> = names.map(|name| body(vec![series("a", &name, 1.0)])).collect();
        let mut clients = send_together(&server, &bodies);
        assert_eq!(first[0].response().status, 200);
        let mut statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
        assert_eq!(statuses.remove(25), 400);
        assert!(statuses.iter().all(|&status| status == 200), "{statuses:?}");
    });
}

#[test]
fn a_merged_request_that_is_limited_is_not_sent_again_and_all_its_senders_hear_when_to_come_back() {
    on_both(|driver| {
        let upstream = Upstream::start(|r| {
            let limited = r.names().iter().any(|name| name != "first");
            let reply = if limited {
                Reply::with(429, "Retry-After: 7\r\n", "ingestion rate limit exceeded")
            } else {
                Reply::ok()
            };
            reply.after(Duration::from_millis(60))
        });
        let server = Server::start(driver, upstream.address, "merge:\n  inflight_max: 1\n");
        let send = |names: &[&str]| {
            let bodies: Vec<_> = names.iter().map(|name| body(vec![series("a", name, 1.0)])).collect();
            send_together(&server, &bodies)
        };
        let mut first = send(&["first"]);
        eventually("the first is under way", || upstream.received().len() == 1);
        let mut merged = send(&["m1", "m2", "m3"]);
        assert_eq!(first[0].response().status, 200);
        for limited in merged.iter_mut().map(Client::response) {
            assert_eq!(limited.status, 429);
            assert_eq!(limited.header("retry-after"), Some("7"));
            assert_eq!(limited.text(), "ingestion rate limit exceeded");
        }
        assert_eq!(upstream.received().len(), 2, "one request for the three");
    });
}

#[test]
fn data_waits_behind_a_request_for_a_fraction_of_the_time_that_an_answer_takes() {
    on_both(|driver| {
        let upstream = Upstream::start(|r| {
            let is_ill = r.names().iter().any(|name| name == "ill");
            let reply = if is_ill { Reply::new(500, "ill") } else { Reply::ok() };
            reply.after(Duration::from_millis(600))
        });
        let server = Server::start(driver, upstream.address, "");
        let send = |names: &[&str]| {
            let bodies: Vec<_> = names.iter().map(|name| body(vec![series("a", name, 1.0)])).collect();
            send_together(&server, &bodies)
        };
        let arrived = |requests| eventually("it arrives", || upstream.received().len() == requests);
        assert_eq!(send(&["known"])[0].response().status, 200);
        let mut first = send(&["first"]);
        arrived(2);
        let begun = Instant::now();
        let mut others = send(&["m1", "m2"]);
        arrived(3);
        assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
        assert_eq!(upstream.received()[2].names().len(), 2, "they waited for each other");
        first.iter_mut().chain(&mut others).for_each(|client| assert_eq!(client.response().status, 200));

        assert_eq!(send(&["ill"])[0].response().status, 500);
        let mut first = send(&["first"]);
        arrived(5);
        let mut second = send(&["second"]);
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(upstream.received().len(), 5, "an upstream that is ill gets one request at a time");
        first.iter_mut().chain(&mut second).for_each(|client| assert_eq!(client.response().status, 200));
    });
}

#[test]
fn early_requests_leave_a_quarter_of_the_connections_to_others() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(600)));
        let server = Server::start(driver, upstream.address, "cores: 1\nmax_conns_per_host: 8\n");
        let bodies: Vec<_> = ["a", "b", "c", "d"].map(one).into();
        let all_ok = |clients: &mut [Client]| {
            clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        };
        all_ok(&mut send_together(&server, &bodies));
        let mut first = send_together(&server, &bodies);
        eventually("they are under way", || upstream.received().len() == 8);
        let mut second = send_together(&server, &bodies);
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(upstream.received().len(), 10, "two of the four that wait have left");
        all_ok(&mut first);
        all_ok(&mut second);
    });
}

#[test]
fn replicas_that_wait_behind_a_request_leave_early_side_by_side() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(600)));
        let server = Server::start(driver, upstream.address, "");
        let of = |replica: &str| {
            let mut series = series("a", "m", 1.0);
            series.labels.insert(0, Label::new("__replica__", replica));
            series.labels.insert(1, Label::new("cluster", "c"));
            body(vec![series])
        };
        assert_eq!(send_together(&server, &[one("a")])[0].response().status, 200);
        let mut clients = send_together(&server, &[one("a")]);
        eventually("it is under way", || upstream.received().len() == 2);
        clients.extend(send_together(&server, &[of("r1"), of("r2")]));
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(upstream.received().len(), 4, "neither waits for the other");
        clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    });
}

#[test]
fn linger_waits_for_more_requests() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "merge:\n  linger: 300ms\n");
        let bodies: Vec<_> = (0..5).map(|i| body(vec![series("a", &format!("m{i}"), 1.0)])).collect();
        let begun = Instant::now();
        let mut clients = send_together(&server, &bodies);
        clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
        assert_eq!(upstream.received().len(), 1);
    });
}
