//! What reaches the upstream, over which connections, and what its answers become: the real server between a raw
//! client and a scripted upstream, on both rings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::client::push_head;
use support::remote_write::{Label, TimeSeries, label, names};
use support::server::free_port;
use support::{Client, Close, Driver, Reply, Server, Upstream, body, eventually, on_both, series};

fn one(tenant: &str) -> Vec<u8> {
    body(vec![series(tenant, "up", 1.0)])
}

fn start(
    driver: Driver,
    script: impl Fn(&support::upstream::Received) -> Reply + Send + Sync + 'static,
) -> (Server, Upstream) {
    let upstream = Upstream::start(script);
    (Server::start(driver, upstream.address, ""), upstream)
}

/// Sends requests for one tenant over connections of their own, so that they are under way together.
fn send_together(server: &Server, bodies: &[Vec<u8>]) -> Vec<Client> {
    bodies
        .iter()
        .map(|body| {
            let mut client = server.client();
            client.send(&[push_head(body.len(), "").as_bytes(), body].concat());
            client
        })
        .collect()
}

#[test]
fn the_upstream_gets_the_headers_it_knows_from_cortex_tenant() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let extra = "auth:\n  egress:\n    username: tenantry\n    password: secret\n";
        let server = Server::start(driver, upstream.address, extra);
        let mut client = server.client();
        assert_eq!(client.push(&one("a")).status, 200);
        let received = &upstream.received()[0];
        assert_eq!(received.path, "/api/v1/push");
        assert_eq!(received.header("host"), Some(upstream.address.to_string().as_str()));
        assert_eq!(received.header("x-scope-orgid"), Some("a"));
        assert_eq!(received.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(received.header("content-encoding"), Some("snappy"));
        assert_eq!(received.header("x-prometheus-remote-write-version"), Some("0.1.0"));
        assert_eq!(received.header("x-cortex-tenant-client"), Some(client.local().to_string().as_str()));
        assert_eq!(received.header("authorization"), Some("Basic dGVuYW50cnk6c2VjcmV0"));
        assert!(received.header("user-agent").unwrap().starts_with("tenantry/"));
        let id = received.header("x-cortex-tenant-reqid").unwrap();
        assert_eq!((id.len(), id.matches('-').count(), &id[14..15]), (36, 4, "4"), "a random UUID: {id}");
        assert!(!server.log().join("\n").contains("secret"), "the password is in the log");
    });
}

#[test]
fn a_request_of_one_tenant_goes_on_as_the_bytes_that_came_in() {
    on_both(|driver| {
        let (server, upstream) = start(driver, |_| Reply::ok());
        let request = body((0..50).map(|i| series("a", &format!("m{i}"), f64::from(i))).collect());
        assert_eq!(server.client().push(&request).status, 200);
        assert_eq!(upstream.received()[0].body, request);
        assert_eq!(server.metric("tenantry_passthrough_requests_total", ""), 1.0);
    });
}

#[test]
fn the_tenant_may_stand_in_the_path() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let target = format!("http://{}/insert/{{tenant}}/prometheus/api/v1/write", upstream.address);
        let metrics = free_port();
        let config = format!(
            "listen: 127.0.0.1:0\nlisten_metrics_address: {metrics}\ntarget: {target}\ntenant:\n  label: tenant\n\
             driver: {}\n",
            if driver == Driver::Epoll { "epoll" } else { "io_uring" }
        );
        let server = Server::start_with(&config, metrics, &[]);
        assert_eq!(server.client().push(&one("team(1)*")).status, 200);
        let path = &upstream.received()[0].path;
        assert!(path.starts_with("/insert/team") && path.ends_with("/prometheus/api/v1/write"), "{path}");
    });
}

#[test]
fn the_senders_answer_is_the_truth_about_all_parts() {
    on_both(|driver| {
        let (server, _upstream) = start(driver, |r| match r.tenant() {
            "ok" => Reply::ok(),
            "accepted" => Reply::new(202, "queued"),
            "bad" => Reply::new(400, "out of order sample"),
            "limited" => Reply::with(429, "Retry-After: 7\r\n", "slow down"),
            "down" => Reply::with(503, "Retry-After: 3\r\n", "no ingesters"),
            "moved" => Reply::with(307, "Location: /elsewhere\r\n", ""),
            _ => Reply::from(Close::BeforeReply),
        });
        let mut client = server.client();
        let mut push =
            |tenants: &[&str]| client.push(&body(tenants.iter().map(|t| series(t, "up", 1.0)).collect()));
        assert_eq!(push(&["ok"]).status, 200);
        let accepted = push(&["ok", "accepted"]);
        assert_eq!((accepted.status, accepted.text().as_str()), (202, "queued"));
        let bad = push(&["bad"]);
        assert_eq!((bad.status, bad.text().as_str()), (400, "out of order sample"));
        let limited = push(&["limited"]);
        assert_eq!((limited.status, limited.header("retry-after")), (429, Some("7")));
        let mixed = push(&["ok", "bad", "limited", "down"]);
        assert_eq!((mixed.status, mixed.header("retry-after")), (503, Some("7")), "{mixed:?}");
        assert!(mixed.text().contains("no ingesters") && mixed.text().contains("slow down"), "{mixed:?}");
        assert!(!mixed.text().contains("ok:"), "names only who failed: {mixed:?}");
        assert_eq!(push(&["ok", "bad"]).status, 400);
        assert_eq!(push(&["moved"]).status, 502, "nobody followed the redirect");
        assert_eq!(push(&["gone", "bad", "ok"]).status, 502, "a retry may help");
    });
}

#[test]
fn accept_all_answers_204_whatever_the_upstream_says() {
    on_both(|driver| {
        let upstream =
            Upstream::start(|r| if r.tenant() == "bad" { Reply::new(500, "") } else { Reply::ok() });
        let server =
            Server::start(driver, upstream.address, "tenant:\n  label: tenant\n  accept_all: true\n");
        let request = body(vec![series("bad", "up", 1.0), series("ok", "up", 1.0)]);
        let response = server.client().push(&request);
        assert_eq!((response.status, response.body.len()), (204, 0));
        assert_eq!(upstream.received().len(), 2, "it is sent all the same");
        assert_eq!(server.client().push(b"no snappy").status, 400, "but what can't be read was not accepted");
    });
}

#[test]
fn one_failing_tenant_neither_fails_nor_delays_another() {
    on_both(|driver| {
        let delay = Duration::from_secs(3);
        let (server, upstream) = start(driver, move |r| match r.tenant() {
            "slow" => Reply::ok().after(delay),
            _ => Reply::ok(),
        });
        let begun = Instant::now();
        let mut slow = send_together(&server, &[one("slow")]);
        eventually("the slow tenant is under way", || upstream.of("slow").len() == 1);
        // And with more of it waiting behind.
        slow.extend(send_together(&server, &[one("slow"), one("slow"), one("slow"), one("slow")]));
        (0..20).for_each(|_| assert_eq!(server.client().push(&one("quick")).status, 200));
        assert!(begun.elapsed() < delay, "{:?}", begun.elapsed());
        assert_eq!(upstream.of("quick").len(), 20);
        slow.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    });
}

#[test]
fn connections_are_used_again() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "cores: 1\n");
        let mut client = server.client();
        (0..50).for_each(|_| assert_eq!(client.push(&one("a")).status, 200));
        assert_eq!(upstream.connections(), 1);
        assert_eq!(server.metric("tenantry_upstream_connections_reused_total", ""), 49.0);
    });
}

#[test]
fn a_connection_that_went_stale_is_no_error() {
    on_both(|driver| {
        // The upstream closes each connection behind the answer without saying so, as after an idle timeout.
        let (server, upstream) = start(driver, |_| {
            Reply::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").close(Close::AfterReplyUnannounced)
        });
        let mut client = server.client();
        for _ in 0..20 {
            assert_eq!(client.push(&one("a")).status, 200);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(upstream.received().len(), 20, "and nothing is sent twice");
    });
}

#[test]
fn a_stale_connection_that_dies_under_the_request_is_tried_once_more_on_a_fresh_one() {
    on_both(|driver| {
        // Dies with the second request already read: the probe before its use can't have seen it.
        let (server, upstream) =
            start(driver, |r| if r.nth == 1 { Reply::from(Close::BeforeReply) } else { Reply::ok() });
        let mut client = server.client();
        assert_eq!(client.push(&one("a")).status, 200);
        assert_eq!(client.push(&one("a")).status, 200);
        assert_eq!(upstream.connections(), 2);
        assert_eq!(server.metric("tenantry_upstream_retries_total", ""), 1.0);
    });
}

#[test]
fn a_connection_that_dies_behind_an_interim_answer_is_not_tried_again() {
    on_both(|driver| {
        // A 100 says that the upstream has the request: what it did with it can't be known.
        let interim = || Reply::raw(b"HTTP/1.1 100 Continue\r\n\r\n").close(Close::AfterReplyUnannounced);
        let (server, upstream) = start(driver, move |r| if r.nth == 1 { interim() } else { Reply::ok() });
        let mut client = server.client();
        assert_eq!(client.push(&one("a")).status, 200);
        assert_eq!(client.push(&one("a")).status, 502);
        assert_eq!(upstream.received().len(), 2, "nothing is sent twice");
    });
}

#[test]
fn a_fresh_connection_that_dies_is_not_tried_again_and_says_502() {
    on_both(|driver| {
        let (server, upstream) = start(driver, |_| Reply::from(Close::BeforeReply));
        let response = server.client().push(&one("a"));
        assert_eq!(response.status, 502, "{response:?}");
        assert_eq!(upstream.received().len(), 1, "it may have been stored: only its sender may repeat it");
        assert_eq!(server.metric("cortex_tenant_timeseries_request_errors", ""), 1.0);
    });
}

#[test]
fn an_upstream_that_is_not_there_is_502_and_comes_back() {
    on_both(|driver| {
        let address = free_port();
        let server = Server::start(driver, address, "");
        let mut client = server.client();
        let response = client.push(&one("a"));
        assert_eq!(response.status, 502, "{response:?}");
        let _upstream = Upstream::start_on(TcpListener::bind(address).unwrap(), |_| Reply::ok());
        assert_eq!(client.push(&one("a")).status, 200);
    });
}

#[test]
fn a_name_that_does_not_resolve_is_502_and_no_failure_to_start() {
    on_both(|driver| {
        let server = Server::start(driver, "upstream.invalid:9009", "resolve_interval: 1s\n");
        let response = server.client().push(&one("a"));
        assert_eq!(response.status, 502, "{response:?}");
        assert!(response.text().contains("resolve"), "{response:?}");
    });
}

#[test]
fn an_upstream_that_does_not_answer_is_504_after_the_timeout() {
    on_both(|driver| {
        let upstream =
            Upstream::start(|r| if r.tenant() == "sick" { Reply::from(Close::Stall) } else { Reply::ok() });
        let server = Server::start(driver, upstream.address, "timeout: 400ms\n");
        let begun = Instant::now();
        let response = server.client().push(&body(vec![series("sick", "up", 1.0), series("ok", "up", 1.0)]));
        let took = begun.elapsed();
        assert_eq!(response.status, 504, "{response:?}");
        assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(2), "{took:?}");
        assert_eq!(upstream.of("ok").len(), 1);
        assert_eq!(server.client().push(&one("ok")).status, 200);
    });
}

#[test]
fn what_waits_for_a_connection_for_too_long_is_not_sent_and_says_503() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::from(Close::Stall));
        let server = Server::start(driver, upstream.address, "timeout: 400ms\nmax_conns_per_host: 1\n");
        let mut clients =
            send_together(&server, &[one("a"), one("b"), one("c"), one("d"), one("e"), one("f")]);
        let mut statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
        statuses.sort_unstable();
        assert!(statuses.iter().all(|s| [503, 504].contains(s)) && statuses.contains(&503), "{statuses:?}");
        assert_eq!(upstream.open_most(), 1);
        let sent = statuses.iter().filter(|&&s| s == 504).count();
        assert_eq!(upstream.received().len(), sent, "what says 503 was never sent: {statuses:?}");
    });
}

#[test]
fn max_conns_per_host_holds_for_the_whole_process_and_nobody_starves() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(5)));
        let server = Server::start(driver, upstream.address, "max_conns_per_host: 3\ncores: 2\n");
        let bodies: Vec<_> = (0..40).map(|i| one(&format!("t{i}"))).collect();
        for _ in 0..5 {
            let mut clients = send_together(&server, &bodies);
            clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        }
        assert_eq!(upstream.open_most(), 3);
        assert_eq!(upstream.received().len(), 200);
    });
}

/// However much two cores want of them, connections stay: each that moves to the other core is closed, and one is opened.
#[test]
fn cores_that_want_more_connections_than_there_are_keep_those_they_have() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(2)));
        let server = Server::start(driver, upstream.address, "max_conns_per_host: 6\ncores: 2\n");
        let bodies: Vec<_> = (0..40).map(|i| one(&format!("t{i}"))).collect();
        for _ in 0..25 {
            let mut clients = send_together(&server, &bodies);
            clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        }
        let sent = upstream.received().len();
        assert_eq!((sent, upstream.open_most()), (1_000, 6));
        let opened = upstream.connections();
        eprintln!("{opened} connections");
        assert!(opened < 100, "{opened} connections for {sent} requests");
    });
}

#[test]
fn a_connection_is_not_used_past_max_connection_duration() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "max_connection_duration: 200ms\n");
        let mut client = server.client();
        for _ in 0..4 {
            assert_eq!(client.push(&one("a")).status, 200);
            std::thread::sleep(Duration::from_millis(110));
        }
        assert!(upstream.connections() >= 2, "{}", upstream.connections());
    });
}

#[test]
fn under_load_fragments_merge_and_every_sender_gets_its_answer() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(50)));
        let server = Server::start(driver, upstream.address, "merge:\n  inflight_max: 1\n");
        // Two tenants each, so that what is merged are parts that were split and deflated here.
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
fn what_comes_while_a_tenant_waits_for_a_connection_goes_with_it() {
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
        assert_eq!(received.len(), 1, "the first of them did not leave the others behind");
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

/// One at a time they would not all be on their way before their time is up.
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
fn a_retry_sends_only_what_is_missing_over_whatever_connection_it_comes() {
    on_both(|driver| {
        let healed = Arc::new(AtomicBool::new(false));
        let heals = Arc::clone(&healed);
        let upstream = Upstream::start(move |r| match r.tenant() {
            "sick" if !heals.load(Ordering::SeqCst) => Reply::new(503, "sick"),
            _ => Reply::new(202, "stored"),
        });
        let server = Server::start(driver, upstream.address, "cores: 2\n");
        let tenants = ["a", "sick", "b", "c"];
        let request = body(tenants.map(|tenant| series(tenant, "up", 1.0)).to_vec());
        // Each over a connection of its own, and these are spread over the cores.
        let push = || server.client().push(&request).status;
        for _ in 0..6 {
            assert_eq!(push(), 503);
        }
        healed.store(true, Ordering::SeqCst);
        assert_eq!(push(), 202);
        for tenant in ["a", "b", "c"] {
            assert_eq!(upstream.of(tenant).len(), 1, "{tenant} was sent once");
        }
        assert_eq!(upstream.of("sick").len(), 7);
        assert_eq!(server.metric("tenantry_receipts_used_total", ""), 18.0);
        // What is not the same is sent.
        let other = body(tenants.map(|tenant| series(tenant, "up", 2.0)).to_vec());
        assert_eq!(server.client().push(&other).status, 202);
        assert_eq!(upstream.of("a").len(), 2);
    });
}

#[test]
fn a_request_that_will_not_come_again_leaves_no_receipts() {
    on_both(|driver| {
        let upstream = Upstream::start(|r| match r.tenant() {
            "bad" => Reply::new(400, "out of order"),
            _ => Reply::ok(),
        });
        let server = Server::start(driver, upstream.address, "");
        let request = body(vec![series("a", "up", 1.0), series("bad", "up", 1.0)]);
        assert_eq!(server.client().push(&request).status, 400);
        let good = body(vec![series("a", "up", 1.0), series("b", "up", 1.0)]);
        assert_eq!(server.client().push(&good).status, 200);
        assert_eq!(server.metric("tenantry_receipts", ""), 0.0);
    });
}

#[test]
fn a_tenant_past_its_share_fails_alone_and_at_once() {
    on_both(|driver| {
        let upstream = Upstream::start(|r| match r.tenant() {
            "slow" => Reply::from(Close::Stall),
            _ => Reply::ok(),
        });
        let settings =
            "timeout: 2s\nconcurrency: 10\nlimits: {tenant_share_percent: 40}\nmerge: {inflight_max: 4}\n";
        let server = Server::start(driver, upstream.address, settings);
        let mut waiting = send_together(&server, &vec![one("slow"); 4]);
        std::thread::sleep(Duration::from_millis(200));
        let begin = Instant::now();
        let over = server.client().push(&one("slow"));
        assert_eq!(over.status, 503);
        assert_eq!(over.header("retry-after"), Some("1"));
        assert_eq!(
            over.text(),
            "overloaded: this tenant has its share in flight (limits.tenant_share_percent)"
        );
        assert_eq!(server.client().push(&one("healthy")).status, 200);
        assert!(begin.elapsed() < Duration::from_secs(1), "nobody waited for the slow one");
        waiting.iter_mut().for_each(|client| assert_eq!(client.response().status, 504));
        // Its share is free again.
        assert_eq!(server.client().push(&one("slow")).status, 504);
    });
}

#[test]
fn a_stalling_tenant_leaves_the_others_their_connections() {
    // A request of one fragment is a full batch, of which more than `inflight_max` may be on their way.
    for (settings, held) in [
        ("max_conns_per_host: 4\nmerge: {inflight_max: 100, fragments_max: 1}\n", 2),
        (
            "max_conns_per_host: 16\nlimits: {tenant_share_percent: 10}\n\
             merge: {inflight_max: 1, fragments_max: 1}\n",
            1,
        ),
    ] {
        on_both(|driver| {
            let upstream = Upstream::start(|r| match r.tenant() {
                "slow" => Reply::from(Close::Stall),
                _ => Reply::ok(),
            });
            let server = Server::start(driver, upstream.address, &format!("timeout: 3s\n{settings}"));
            let mut waiting = send_together(&server, &vec![one("slow"); 8]);
            eventually("it holds what it may", || upstream.of("slow").len() == held);
            let begin = Instant::now();
            for _ in 0..20 {
                assert_eq!(server.client().push(&one("healthy")).status, 200);
            }
            assert!(begin.elapsed() < Duration::from_secs(1), "nobody waited for the slow one");
            assert_eq!(upstream.of("slow").len(), held, "its share of the connections");
            waiting.iter_mut().for_each(|client| assert!(client.response().status >= 503));
        });
    }
}

/// A request of one tenant with so many series, `s00`, `s01` and so on.
fn numbered(tenant: &str, count: usize) -> Vec<u8> {
    body((0..count).map(|number| series(tenant, &format!("s{number:02}"), 1.0)).collect())
}

/// What an upstream has stored, by its own script: everything that `taken` lets pass.
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
            assert!(requests > 8, "it was sent whole first, then halved");
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

#[test]
fn linger_waits_for_company() {
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

#[test]
fn odd_but_valid_answers_of_the_upstream_are_understood() {
    on_both(|driver| {
        let replies: Vec<&[u8]> = vec![
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ];
        let (nth, count) = (Arc::new(AtomicUsize::new(0)), replies.len());
        let (server, upstream) =
            start(driver, move |_| Reply::raw(replies[nth.fetch_add(1, Ordering::SeqCst) % count]));
        let mut client = server.client();
        let statuses: Vec<_> = (0..8).map(|_| client.push(&one("a")).status).collect();
        assert_eq!(statuses, [200, 204, 200, 200, 200, 204, 200, 200]);
        assert_eq!(upstream.connections(), 1, "each was read to its end, so that the connection could go on");
    });
}

#[test]
fn answers_that_end_with_the_connection_or_are_huge_are_understood() {
    on_both(|driver| {
        let (server, upstream) = start(driver, |r| match r.tenant() {
            "close" => Reply::raw(b"HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\nuntil the end")
                .close(Close::AfterReplyUnannounced),
            "old" => Reply::raw(b"HTTP/1.0 200 OK\r\n\r\n").close(Close::AfterReplyUnannounced),
            "huge" => Reply::new(400, &"x".repeat(300_000)),
            _ => Reply::raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        });
        let mut client = server.client();
        let closed = client.push(&one("close"));
        assert_eq!((closed.status, closed.text().as_str()), (400, "until the end"));
        assert_eq!(client.push(&one("old")).status, 200);
        let huge = client.push(&one("huge"));
        assert_eq!((huge.status, huge.body.len()), (400, 1_024));
        assert_eq!(client.push(&one("ssh")).status, 502);
        assert_eq!(upstream.received().len(), 4);
    });
}

#[test]
fn an_answer_that_comes_before_the_request_was_read_is_taken() {
    on_both(|driver| {
        // An upstream that refuses by the head alone, and closes with the body unread.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = [0u8; 1_000];
                let _ = stream.read(&mut head);
                let _ = stream.write_all(
                    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad",
                );
                let _ = stream.shutdown(std::net::Shutdown::Write);
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let server = Server::start(driver, address, "timeout: 3s\n");
        let noise: Vec<_> =
            (0..2_000).map(|i| series("a", &format!("{:x}", i * 7_919 + i * i), f64::from(i))).collect();
        assert_eq!(server.client().push(&body(noise)).status, 403);
    });
}

#[test]
fn counts_and_milliseconds_under_the_old_names_are_right() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok().after(Duration::from_millis(30)));
        let server = Server::start(driver, upstream.address, "metrics_include_tenant: true\n");
        let request = body(vec![series("a", "m1", 1.0), series("a", "m2", 1.0), series("b", "m3", 1.0)]);
        let mut client = server.client();
        (0..3).for_each(|_| assert_eq!(client.push(&request).status, 200));
        assert_eq!(server.metric("cortex_tenant_timeseries_batches_received", ""), 3.0);
        assert_eq!(server.metric("cortex_tenant_timeseries_batches_received_bytes_count", ""), 3.0);
        let bytes = server.metric("cortex_tenant_timeseries_batches_received_bytes_sum", "");
        assert_eq!(bytes, 3.0 * request.len() as f64);
        assert_eq!(server.metric("cortex_tenant_timeseries_received", "tenant=\"a\""), 6.0);
        assert_eq!(server.metric("cortex_tenant_timeseries_requests", "tenant=\"b\""), 3.0);
        let millis =
            server.metric("cortex_tenant_timeseries_request_duration_milliseconds_sum", "tenant=\"a\"");
        assert!((90.0..1_000.0).contains(&millis), "three requests of 30 ms: {millis}");
        assert_eq!(
            server.metric("cortex_tenant_timeseries_request_duration_milliseconds_count", "code=\"200\""),
            6.0
        );
        assert_eq!(server.metric("tenantry_in_flight_bytes", ""), 0.0);
    });
}

#[test]
fn all_addresses_of_a_name_are_used_evenly() {
    // `localhost` is both 127.0.0.1 and ::1 here, or the test has nothing to show.
    let Ok(v6) = TcpListener::bind("[::1]:0") else { return eprintln!("no IPv6 here") };
    let port = v6.local_addr().unwrap().port();
    let Ok(v4) = TcpListener::bind(("127.0.0.1", port)) else { return eprintln!("the port is taken") };
    use std::net::ToSocketAddrs;
    if ("localhost", port).to_socket_addrs().map_or(0, Iterator::count) < 2 {
        return eprintln!("localhost has one address here");
    }
    let (four, six) = (Upstream::start_on(v4, |_| Reply::ok()), Upstream::start_on(v6, |_| Reply::ok()));
    let server = Server::start(Driver::Epoll, format!("localhost:{port}"), "enable_ipv6: true\ncores: 1\n");
    let mut client = server.client();
    (0..40).for_each(|_| assert_eq!(client.push(&one("a")).status, 200));
    assert_eq!((four.received().len(), six.received().len()), (20, 20));
}

#[test]
fn a_cortex_tenant_configuration_that_is_in_use_starts_unchanged_and_forwards() {
    let upstream = Upstream::start(|_| Reply::ok());
    let (metrics, pprof) = (free_port().to_string(), free_port().to_string());
    let target = format!("http://{}/api/v1/receive", upstream.address);
    // Only the addresses are this machine's: the environment wins over the file.
    let environment = [
        ("CT_LISTEN", "127.0.0.1:0"),
        ("CT_LISTEN_METRICS_ADDRESS", metrics.as_str()),
        ("CT_LISTEN_PPROF", pprof.as_str()),
        ("CT_TARGET", target.as_str()),
        ("CT_TIMEOUT_SHUTDOWN", "0s"),
    ];
    let config = include_str!("fixtures/seed-cortex-tenant.yml");
    let mut server = Server::start_with(config, metrics.parse().unwrap(), &environment);
    assert_eq!(
        server.client().push(&body(vec![series("grafana", "up", 1.0), series("", "up", 1.0)])).status,
        200
    );
    let mut tenants: Vec<_> =
        upstream.received().iter().map(|r| r.header("THANOS-TENANT").unwrap().to_owned()).collect();
    tenants.sort();
    assert_eq!(tenants, ["cortex-tenant-default", "grafana"]);
    assert_eq!(upstream.received()[0].path, "/api/v1/receive");
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn many_senders_and_tenants_lose_and_misplace_nothing() {
    on_both(|driver| {
        let stored = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&stored);
        let upstream = Upstream::start(move |r| {
            let request = r.request();
            let mut sink = sink.lock().unwrap();
            for series in &request.timeseries {
                let tenant = label(series, "tenant").unwrap();
                assert_eq!(tenant, r.tenant(), "misplaced");
                sink.push((tenant, series.samples[0].value as u64));
            }
            Reply::ok()
        });
        let server = Server::start(driver, upstream.address, "");
        let address = server.address;
        let senders: Vec<_> = (0..8u64)
            .map(|sender| {
                std::thread::spawn(move || {
                    let mut client = Client::connect(address);
                    for request in 0..30 {
                        let series = (0..40).map(|i| {
                            let id = sender * 100_000 + request * 100 + i;
                            series(&format!("t{}", id % 13), "m", id as f64)
                        });
                        assert_eq!(client.push(&body(series.collect())).status, 200);
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|s| s.join().unwrap());
        let mut stored = stored.lock().unwrap();
        assert_eq!(stored.len(), 8 * 30 * 40);
        stored.sort();
        stored.dedup();
        assert_eq!(stored.len(), 8 * 30 * 40, "each sample once");
    });
}
