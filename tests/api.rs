//! The JSON API and the status page of the admin port, over sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use serde_json::Value;
use support::{
    Client, Reply, Response, Server, Upstream, body, eventually, on_both, on_both_at_once, series,
};

/// The answer to a request for a page.
fn get_as(server: &Server, target: &str, fields: &str) -> Response {
    let mut client = Client::connect(server.metrics);
    client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n").as_bytes());
    client.response()
}

/// A part of the API, and its status.
fn api(server: &Server, part: &str) -> (u16, Value) {
    let response = get_as(server, &format!("/api/v1/{part}"), "");
    assert_eq!(response.headers.get("content-type"), Some("application/json"), "{part}");
    assert_eq!(response.headers.get("x-content-type-options"), Some("nosniff"), "{part}");
    (response.status, serde_json::from_str(&response.text()).expect(part))
}

fn good(server: &Server, part: &str) -> Value {
    let (status, value) = api(server, part);
    assert_eq!(status, 200, "{part}: {value}");
    value
}

fn push(server: &Server, tenant: &str) -> u16 {
    server.client().push(&body(vec![series(tenant, "up", 1.0)])).status
}

/// An upstream that answers by the tenant's name.
fn moody(received: &support::upstream::Received) -> Reply {
    match received.tenant() {
        "limited" => Reply::new(429, "slow down"),
        "rejected" => Reply::new(400, "<script>alert(1)</script>\u{202e}\u{7}"),
        "failed" => Reply::new(500, "on fire"),
        _ => Reply::ok(),
    }
}

#[test]
fn what_became_of_each_sample_is_told_by_tenant_and_in_sum() {
    on_both(|driver| {
        let upstream = Upstream::start(moody);
        let server = Server::start(driver, upstream.address, "tenant: {label: tenant, on_missing: drop}\n");
        for (tenant, status) in [("well", 200), ("limited", 429), ("rejected", 400), ("failed", 500)] {
            assert_eq!(push(&server, tenant), status, "{tenant}");
        }
        let two =
            [series("well", "a", 1.0), testkit::proto::TimeSeries::new(&[("__name__", "b")], &[(1, 1.0)])];
        server.client().push(&body(two.into()));
        let ledger = &good(&server, "status")["ledger"];
        assert_eq!(
            (&ledger["received"], &ledger["stored"], &ledger["in_flight"]),
            (&6.into(), &2.into(), &0.into())
        );
        let refused = [("limited", 1), ("rejected", 1), ("failed", 1), ("no_tenant", 1)];
        assert_eq!(ledger["refused"], Value::from_iter(refused.map(|(reason, n)| (reason, Value::from(n)))));
        let tenant = good(&server, "tenants/rejected");
        assert_eq!(tenant["ledger"]["refused"]["rejected"], 1);
        let error = &tenant["errors"][0];
        assert_eq!((&error["status"], &tenant["last_error"]["status"]), (&400.into(), &400.into()));
        assert!(error["reason"].as_str().unwrap().starts_with("<script>alert(1)</script>"));
        assert_eq!(error["upstream"], upstream.address.to_string());
        let sent = upstream.received();
        let of_tenant = sent.iter().find(|received| received.tenant() == "rejected").unwrap();
        assert_eq!(
            of_tenant.header("x-cortex-tenant-reqid"),
            error["request_id"].as_str(),
            "the upstream has the same ID"
        );
        assert_eq!(tenant["senders"][0]["sender"], "127.0.0.1");
        // Two audits have to agree before anything is unaccounted.
        std::thread::sleep(std::time::Duration::from_secs(5));
        assert_eq!(good(&server, "status")["ledger"]["unaccounted"], 0);
    });
}

#[test]
fn tenants_are_sorted_filtered_and_come_in_pages() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        let tenants = (0..120).map(|n| series(&format!("Team-{n:03}"), "up", 1.0)).collect();
        assert_eq!(server.client().push(&body(tenants)).status, 200);
        push(&server, "other");
        let ids = |part: &str| {
            let list = good(&server, part);
            let ids = list["tenants"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["tenant"].as_str().unwrap().to_owned());
            (list["matched"].as_u64().unwrap(), ids.collect::<Vec<_>>())
        };
        let (matched, page) = ids("tenants?sort=tenant&q=tEAM&offset=10&limit=3");
        assert_eq!((matched, page), (120, ["Team-010", "Team-011", "Team-012"].map(String::from).into()));
        assert_eq!(ids("tenants?sort=tenant&order=desc&limit=1").1, ["other"]);
        assert_eq!(ids("tenants?q=no%20such").0, 0);
        assert_eq!(ids("tenants?offset=500").1.len(), 0);
        assert_eq!(ids("tenants").1.len(), 50);
        assert_eq!(ids("tenants?destination=logs").0, 0);
        assert_eq!(good(&server, "status")["tenants"], 121);
        for sort in ["samples", "bytes", "requests", "errors", "waiting", "oldest", "merges", "in_flight"] {
            assert_eq!(ids(&format!("tenants?sort={sort}")).0, 121);
        }
    });
}

#[test]
fn bad_requests_are_told_what_is_wrong() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        for (part, expected) in [
            ("tenants?sort=size", 400),
            ("tenants?order=up", 400),
            ("tenants?limit=0", 400),
            ("tenants?limit=501", 400),
            ("tenants?limit=x", 400),
            ("tenants?offset=-1", 400),
            ("tenants?offset=99999999999999999999999", 400),
            ("tenants?destination=traces", 400),
            ("tenants/unknown", 404),
            ("tenants/%ff", 400),
            ("tenants/", 404),
            ("nothing", 404),
            ("", 404),
        ] {
            let (status, value) = api(&server, part);
            assert_eq!(status, expected, "{part}");
            assert!(!value["error"].as_str().unwrap().is_empty(), "{part}");
        }
        let mut client = Client::connect(server.metrics);
        client.send(b"POST /api/v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.response().status, 405);
    });
}

#[test]
fn upstream_addresses_are_as_the_cores_see_them() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        let address = || good(&server, "upstreams")["upstreams"][0]["addresses"][0].clone();
        assert_eq!(
            (address()["state"].as_str(), &address()["last_answer_at"]),
            (Some("unused"), &Value::Null)
        );
        assert_eq!(push(&server, "a"), 200);
        eventually("its connection is idle", || address()["connections_idle"] == 1);
        let used = address();
        assert_eq!(used["address"], upstream.address.to_string());
        assert_eq!((used["state"].as_str(), used["connections_in_use"].as_u64()), (Some("up"), Some(0)));
        assert!(used["usual_seconds"].as_f64().unwrap() > 0.0);
    });
}

#[test]
fn settings_are_masked() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let secret = "auth: {egress: {username: me, password: hunter2}}\n";
        let server = Server::start(driver, upstream.address, secret);
        let text = good(&server, "config").to_string();
        assert!(text.contains("concurrency") && !text.contains("hunter2"), "{text}");
    });
}

#[test]
fn browsers_get_the_page_and_others_get_text() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        let page = get_as(&server, "/", "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n");
        assert_eq!(page.headers.get("content-type"), Some("text/html; charset=utf-8"));
        let policy = page.headers.get("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        for fields in ["", "Accept: */*\r\n"] {
            let text = get_as(&server, "/", fields);
            assert_eq!(text.headers.get("content-type"), Some("text/plain; charset=utf-8"));
            assert!(text.text().starts_with("Tenantry "));
        }
        let description: Value =
            serde_json::from_str(&get_as(&server, "/api/v1/openapi.json", "").text()).unwrap();
        assert!(description["paths"]["/api/v1/tenants"].is_object());
    });
}

/// The lines of a tap, once it has ended.
fn tap(server: &Server, parameters: &str, during: impl FnOnce()) -> Vec<Value> {
    let mut client = Client::connect(server.metrics);
    let request = format!("GET /api/v1/tap?{parameters} HTTP/1.1\r\nHost: x\r\n\r\n");
    client.send(request.as_bytes());
    eventually("it is open", || good(server, "status")["taps"] == 1);
    during();
    let text = client.response().text();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn a_tap_shows_what_happens_to_matching_series() {
    on_both(|driver| {
        let upstream = Upstream::start(moody);
        let server = Server::start(driver, upstream.address, "");
        let three = || {
            let both = [series("well", "up", 1.0), series("limited", "up", 1.0), series("well", "down", 1.0)];
            assert_eq!(server.client().push(&body(both.into())).status, 429);
            // Refused as a whole.
            assert_eq!(server.client().push(&body(vec![series("", "up", 1.0)])).status, 400);
        };
        let lines = tap(&server, "match=%7B__name__%3D%22up%22%2Cjob%3D~%22t.*%22%7D&limit=3", three);
        let [stored, limited, refused, end] = &lines[..] else { panic!("{lines:#?}") };
        assert_eq!((&stored["tenant"], &stored["result"]), (&"well".into(), &"stored".into()));
        assert_eq!(stored["series"], r#"{__name__="up",job="test",tenant="well"}"#);
        assert_eq!((&stored["rule"]["kind"], &stored["status"]), (&"label".into(), &200.into()));
        assert_eq!(
            (&stored["address"], &stored["merged_with"]),
            (&upstream.address.to_string().into(), &0.into())
        );
        assert_eq!((&limited["result"], &limited["reason"]), (&"failed".into(), &"slow down".into()));
        assert_eq!(limited["request_id"], stored["request_id"]);
        assert_eq!((&refused["tenant"], &refused["result"]), (&Value::Null, &"refused".into()));
        assert_eq!((&end["end"], &end["events"], &end["dropped"]), (&"limit".into(), &3.into(), &0.into()));
        eventually("it is closed", || good(&server, "status")["taps"] == 0);
    });
}

#[test]
fn a_tap_ends_with_its_time_with_its_client_and_with_the_server() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let mut server = Server::start(driver, upstream.address, "");
        let lines = tap(&server, "match=up&seconds=1", || assert_eq!(push(&server, "a"), 200));
        assert_eq!((lines.len(), &lines[1]["end"]), (2, &"seconds".into()));
        for bad in
            ["", "match=", "match=%7B", "match=up&seconds=61", "match=up&limit=0", "match=a%3D~%22(%22"]
        {
            let (status, value) = api(&server, &format!("tap?{bad}"));
            assert_eq!(status, 400, "{bad}");
            assert!(!value["error"].as_str().unwrap().is_empty());
        }
        // Clients that never read: they are not waited for, and only so many are let in.
        let open = || {
            let mut client = Client::connect(server.metrics);
            client.send(b"GET /api/v1/tap?match=up&seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n");
            client
        };
        let clients: Vec<_> = (0..20).map(|_| open()).collect();
        eventually("many are open", || good(&server, "status")["taps"].as_u64() > Some(5));
        (0..50).for_each(|_| assert_eq!(push(&server, "a"), 200));
        assert_eq!(api(&server, "tap?match=up").0, 503);
        server.signal("TERM");
        assert!(server.wait(std::time::Duration::from_secs(10)).success());
        drop(clients);
    });
}

#[test]
fn the_rule_that_names_a_tenant_is_found_when_its_series_come() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        assert_eq!(push(&server, "a"), 200);
        let tenant = good(&server, "tenants/a");
        assert_eq!((&tenant["rule"], &tenant["upstream"]), (&Value::Null, &"main".into()));
        assert_eq!(tenant["header"]["value"], "a");
        assert_eq!(push(&server, "a"), 200);
        eventually("the rule is known", || good(&server, "tenants/a")["rule"]["kind"] == "label");
        let explained = good(&server, "explain?series=%7Bjob%3D%22x%22%2Ctenant%3D%22b%22%7D");
        assert_eq!((&explained["decision"], &explained["tenant"]), (&"tenant".into(), &"b".into()));
        assert_eq!(api(&server, "explain?series=%7Bx").0, 400);
    });
}

#[test]
fn a_quiet_tap_stays_open_and_one_whose_client_has_left_does_not() {
    on_both_at_once(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        // Longer than the admin port gives a client to read an answer.
        let lines = tap(&server, "match=up&seconds=4", || ());
        assert_eq!((lines.len(), &lines[0]["end"]), (1, &"seconds".into()));
        let mut client = Client::connect(server.metrics);
        client.send(b"GET /api/v1/tap?match=up&seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n");
        eventually("it is open", || good(&server, "status")["taps"] == 1);
        drop(client);
        eventually("it is closed", || good(&server, "status")["taps"] == 0);
        let mut client = Client::connect(server.metrics);
        client.send(b"HEAD /api/v1/tap?match=up HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response_to(true).headers.get("content-type"), Some("application/x-ndjson"));
    });
}

#[test]
fn a_tap_shows_long_series_cut_short_and_only_so_many_of_a_request() {
    on_both_at_once(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "");
        let long = "x".repeat(100_000);
        let labels = [("__name__", "up"), ("tenant", "a"), ("x", &long)];
        let mut all = vec![testkit::proto::TimeSeries::new(&labels, &[(1, 1.0)])];
        all.extend((0..300).map(|n| series("a", &format!("up_{n}"), 1.0)));
        let lines = tap(&server, "match=%7Btenant%3D%22a%22%7D&seconds=2", || {
            assert_eq!(server.client().push(&body(all)).status, 200);
        });
        let first = lines[0]["series"].as_str().unwrap();
        assert!(first.len() < 10_000 && first.ends_with('…'), "{first}");
        let end = lines.last().unwrap();
        assert_eq!((&end["events"], &end["dropped"]), (&200.into(), &1.into()));
    });
}
