//! TLS towards targets.

use std::time::Duration;

use testkit::pki::{Authority, Usage, Wanted};

use crate::peers::start;
use crate::relay::{Relay, relay_config, relay_config_mutual};
use crate::support::client::Response;
use crate::support::server::{Server, on_both, send_together};
use crate::support::tls::{Folder, localhost};
use crate::support::{Driver, Reply, Upstream, body, eventually, one, series};

fn target(relay: &Relay) -> String {
    format!("localhost:{}", relay.address.port())
}

fn sending(driver: Driver, folder: &Folder, relay: &Relay, settings: &[(&str, &str)], extra: &str) -> Server {
    start(driver, "https", target(relay), &folder.egress(settings), extra)
}

#[test]
fn requests_share_a_connection_and_connections_a_session() {
    let folder = Folder::new();
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let relay = Relay::start(relay_config(&folder, "server"), upstream.address);
        let server = sending(driver, &folder, &relay, &[], "cores: 1\n");
        for round in 1..4 {
            for _ in 0..5 {
                assert_eq!(server.client().push(&one("a")).status, 200);
            }
            assert_eq!((relay.connections(), relay.resumed()), (round, round - 1));
            relay.close_all();
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(upstream.of("a").len(), 15);
        assert_eq!(relay.names(), vec![Some("localhost".to_owned()); 3]);
        assert_eq!(server.metric("tenantry_replies_total", "code=\"5"), 0.0, "no idle connection was used");
    });
}

#[test]
fn an_idle_connection_that_the_upstream_closes_is_replaced() {
    let folder = Folder::new();
    on_both(|driver| {
        for rude in [false, true] {
            let upstream = Upstream::start(|_| Reply::from(crate::support::Close::AfterReplyUnannounced));
            let relay = Relay::start(relay_config(&folder, "server"), upstream.address);
            if rude {
                relay.end_rudely();
            }
            let server = sending(driver, &folder, &relay, &[], "cores: 1\n");
            let mut client = server.client();
            for _ in 0..20 {
                assert_eq!(client.push(&one("a")).status, 200);
            }
            assert_eq!(upstream.of("a").len(), 20);
        }
    });
}

/// What a push gets whose target shows the certificate `name`, or none. Nothing may reach the upstream.
fn refused(driver: Driver, folder: &Folder, name: &str, settings: &[(&str, &str)]) -> Response {
    let upstream = Upstream::start(|_| Reply::ok());
    let relay = Relay::start(relay_config(folder, name), upstream.address);
    let server = sending(driver, folder, &relay, settings, "");
    let response = server.client().push(&one("a"));
    assert_eq!(upstream.connections(), 0);
    assert!(relay.connections() > 0 && !relay.heard_plain_bytes());
    response
}

#[test]
fn a_certificate_that_is_not_accepted_is_a_502_that_says_why() {
    let folder = Folder::new();
    folder.put_pair("stranger", &Authority::new("other").unwrap().issue(&localhost()).unwrap());
    let expired = localhost().valid((2020, 1, 1), (2021, 1, 1));
    folder.put_pair("expired", &folder.authority.issue(&expired).unwrap());
    folder.put_pair("other", &folder.authority.issue(&Wanted::server(&["other.example"])).unwrap());
    let client = localhost().with_usages(&[Usage::ClientAuth]);
    folder.put_pair("client", &folder.authority.issue(&client).unwrap());
    on_both(|driver| {
        for (name, why) in [
            ("stranger", "none of the trusted authorities has issued it"),
            ("expired", "it has expired"),
            ("other", "it is not for localhost, but for"),
            ("client", "its extended key usage is for another purpose"),
        ] {
            let response = refused(driver, &folder, name, &[]);
            assert_eq!(response.status, 502, "{name}");
            let text = response.text();
            assert!(text.contains("the peer's certificate is not accepted") && text.contains(why), "{text}");
        }
        let response = refused(driver, &folder, "server", &[("server_name", "elsewhere.example")]);
        assert!(response.text().contains("it is not for elsewhere.example"), "{}", response.text());
    });
}

#[test]
fn an_upstream_without_tls_gets_no_request() {
    let folder = Folder::new();
    on_both(|driver| {
        let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = upstream.local_addr().unwrap().port();
        let heard = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut tcp, _) = upstream.accept().unwrap();
            let mut heard = vec![0; 4_096];
            let read = tcp.read(&mut heard).unwrap();
            heard.truncate(read);
            tcp.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
            heard
        });
        let server = start(driver, "https", format!("localhost:{port}"), &folder.egress(&[]), "");
        let response = server.client().push(&one("a"));
        assert_eq!(response.status, 502);
        assert!(response.text().contains("plain HTTP where TLS was expected"), "{}", response.text());
        let heard = heard.join().unwrap();
        assert_eq!(heard[0], 22);
        assert!(!heard.windows(4).any(|window| window == b"POST"));
    });
}

#[test]
fn a_name_of_the_settings_stands_for_that_of_the_target() {
    let folder = Folder::new();
    folder.put_pair("other", &folder.authority.issue(&Wanted::server(&["other.example"])).unwrap());
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let relay = Relay::start(relay_config(&folder, "other"), upstream.address);
        let server = sending(driver, &folder, &relay, &[("server_name", "other.example")], "");
        assert_eq!(server.client().push(&one("a")).status, 200);
        assert_eq!(relay.names(), [Some("other.example".to_owned())]);
    });
}

#[test]
fn a_target_may_be_an_address() {
    let folder = Folder::new();
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let relay = Relay::start(relay_config(&folder, "server"), upstream.address);
        let server = start(driver, "https", relay.address, &folder.egress(&[]), "");
        assert_eq!(server.client().push(&one("a")).status, 200);
        assert_eq!(relay.names(), [None], "an address is no name to ask for");
    });
}

#[test]
fn our_own_certificate_is_shown_where_the_upstream_asks_for_one() {
    let folder = Folder::new();
    folder.put_client("tenantry");
    let (cert, key) = (folder.text("tenantry.pem"), folder.text("tenantry.key"));
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let relay = Relay::start(relay_config_mutual(&folder, "server"), upstream.address);
        let server =
            sending(driver, &folder, &relay, &[("cert_file", cert.as_str()), ("key_file", key.as_str())], "");
        assert_eq!(server.client().push(&one("a")).status, 200);
        assert!(server.metric("tenantry_tls_certificate_days_left", "direction=\"out\"") > 1_000.0);
        let bare = sending(driver, &folder, &relay, &[], "");
        let response = bare.client().push(&one("a"));
        assert_eq!(response.status, 502);
        assert!(response.text().contains("the peer refused: certificate_required"), "{}", response.text());
        assert_eq!(upstream.received().len(), 1);
    });
}

#[test]
fn a_certificate_goes_unverified_only_with_a_warning() {
    let folder = Folder::new();
    folder.put_pair("stranger", &Authority::new("other").unwrap().issue(&localhost()).unwrap());
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let relay = Relay::start(relay_config(&folder, "stranger"), upstream.address);
        let server = sending(driver, &folder, &relay, &[("insecure_skip_verify", "true")], "");
        assert_eq!(server.client().push(&one("a")).status, 200);
        assert!(
            server.log().iter().any(|line| line.contains("WARN") && line.contains("insecure_skip_verify"))
        );
    });
}

#[test]
fn connections_that_are_handed_between_cores_keep_working() {
    let folder = Folder::new();
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply { delay: Duration::from_millis(2), ..Reply::ok() });
        let relay = Relay::start(relay_config(&folder, "server"), upstream.address);
        let extra = "cores: 2\nmax_conns_per_host: 1\nmerge: {inflight_max: 1}\n";
        let server = sending(driver, &folder, &relay, &[], extra);
        for _ in 0..5 {
            let bodies = (0..20).map(|i| one(&format!("t{i}")));
            for client in &mut send_together(&server, bodies) {
                assert_eq!(client.response().status, 200);
            }
        }
        assert_eq!(upstream.received().len(), 100);
        // Permits are one, so with no handover each change of the core would have opened a connection.
        assert!(relay.connections() < 20, "{}", relay.connections());
    });
}

#[test]
fn an_upstream_is_told_when_a_connection_ends() {
    let folder = Folder::new();
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let relay = Relay::start(relay_config(&folder, "server"), upstream.address);
        let extra = "cores: 1\nmax_connection_duration: 100ms\ntimeout_shutdown: 0s\n";
        let mut server = sending(driver, &folder, &relay, &[], extra);
        for _ in 0..3 {
            assert_eq!(server.client().push(&one("a")).status, 200);
            std::thread::sleep(Duration::from_millis(150));
        }
        server.signal("TERM");
        assert!(server.wait(Duration::from_secs(5)).success());
        eventually("all have ended", || relay.open() == 0);
        assert!(relay.connections() >= 2, "{}", relay.connections());
        assert_eq!(relay.truncated(), 0);
    });
}

/// A request of several MB.
fn large() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (state >> 58) as u8)
    };
    let mut text = || (0..100).map(|_| next()).collect::<String>();
    body((0..20_000).map(|i| series("big", &format!("{i}{}", text()), i.into())).collect())
}

#[test]
fn the_reason_for_a_refusal_is_told_although_writing_fails_first() {
    let folder = Folder::new();
    let large = large();
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let relay = Relay::start(relay_config_mutual(&folder, "server"), upstream.address);
        relay.end_rudely();
        let server = sending(driver, &folder, &relay, &[], "");
        for _ in 0..5 {
            let response = server.client().push(&large);
            assert_eq!(response.status, 502);
            assert!(
                response.text().contains("the peer refused: certificate_required"),
                "{}",
                response.text()
            );
        }
    });
}

#[test]
fn large_requests_and_large_replies_pass() {
    let folder = Folder::new();
    let large = large();
    on_both(|driver| {
        let upstream = Upstream::start(|request| match request.tenant() {
            "wordy" => Reply::with(400, "", &"no ".repeat(200_000)),
            _ => Reply::ok(),
        });
        let relay = Relay::start(relay_config(&folder, "server"), upstream.address);
        let server = sending(driver, &folder, &relay, &[], "cores: 1\n");
        let mut client = server.client();
        assert_eq!(client.push(&large).status, 200);
        let names: usize = upstream.of("big").iter().map(|request| request.names().len()).sum();
        assert_eq!(names, 20_000);
        for _ in 0..3 {
            let response = client.push(&one("wordy"));
            assert!(response.status == 400 && response.text().contains("no no no"), "{}", response.status);
            assert_eq!(client.push(&one("a")).status, 200);
        }
    });
}

#[test]
fn an_answer_that_lasts_until_the_end_counts_without_a_close_notify() {
    let folder = Folder::new();
    on_both(|driver| {
        let upstream = Upstream::start(|_| {
            let raw = Reply::raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nstored");
            Reply { close: crate::support::Close::AfterReply, ..raw }
        });
        let relay = Relay::start(relay_config(&folder, "server"), upstream.address);
        relay.end_rudely();
        let server = sending(driver, &folder, &relay, &[], "");
        let response = server.client().push(&one("a"));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(upstream.received().len(), 1);
    });
}

#[test]
fn an_upstream_may_change_its_keys_at_any_time() {
    let folder = Folder::new();
    let large = large();
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let relay = Relay::start(relay_config(&folder, "server"), upstream.address);
        relay.update_keys();
        let server = sending(driver, &folder, &relay, &[], "cores: 1\n");
        for request in [&one("a"), &large, &one("a"), &large] {
            let response = server.client().push(request);
            assert_eq!(response.status, 200, "{}", response.text());
        }
        assert_eq!((upstream.received().len(), relay.connections()), (4, 1));
    });
}
