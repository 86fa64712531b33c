//! TLS towards senders.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testkit::pki::{Authority, Usage, Wanted};

use crate::peers::{curl, openssl, start};
use crate::support::client::push_head;
use crate::support::tls::{Folder, client_config, client_config_of, hello};
use crate::support::{
    Client, Driver, Reply, Server, Upstream, body, eventually, on_both, on_both_at_once, one, series,
};

fn serving(driver: Driver, folder: &Folder, settings: &[(&str, &str)], extra: &str) -> (Server, Upstream) {
    let upstream = Upstream::start(|_| Reply::ok());
    let server = start(driver, "http", upstream.address, &folder.ingress(settings), extra);
    (server, upstream)
}

#[test]
fn openssl_and_curl_agree_with_it_on_either_version() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[], "");
        for (option, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let arguments = [option, "-servername", "localhost", "-alpn", "h2,http/1.1"];
            let Some(said) = openssl(&folder, server.address, &arguments) else { return };
            assert!(said.contains(&format!("New, {name}")), "{said}");
            assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
            assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
            assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
        }
        for arguments in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--http2"]] {
            let Some(got) = curl(&folder, server.address, arguments) else { return };
            assert_eq!(got, Ok(200), "{arguments:?}");
        }
    });
}

#[test]
fn openssl_agrees_with_it_on_each_cipher_suite() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[], "");
        for (option, suites) in [
            (
                ["-tls1_2", "-cipher"],
                [
                    "ECDHE-ECDSA-AES128-GCM-SHA256",
                    "ECDHE-ECDSA-AES256-GCM-SHA384",
                    "ECDHE-ECDSA-CHACHA20-POLY1305",
                ],
            ),
            (
                ["-tls1_3", "-ciphersuites"],
                ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"],
            ),
        ] {
            for suite in suites {
                let arguments = [&option[..], &[suite]].concat();
                let Some(said) = openssl(&folder, server.address, &arguments) else { return };
                assert!(said.contains(&format!("Cipher is {suite}")), "{said}");
                assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
            }
        }
        // One that is not forward secret, which is left to the oldest of clients.
        let said = openssl(&folder, server.address, &["-tls1_2", "-cipher", "AES128-GCM-SHA256"]).unwrap();
        assert!(said.contains("handshake failure") && !said.contains("200 OK"), "{said}");
    });
}

#[test]
fn an_older_version_than_the_oldest_allowed_is_refused() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[("min_version", "TLS13")], "");
        let Some(said) = openssl(&folder, server.address, &["-tls1_2"]) else { return };
        assert!(said.contains("alert protocol version"), "{said}");
        let said = openssl(&folder, server.address, &["-tls1_3"]).unwrap();
        assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
        eventually("it is counted", || {
            server.metric("tenantry_tls_handshakes_total", "result=\"failed\"") == 1.0
        });
    });
}

#[test]
fn a_sender_gets_the_certificate_of_the_name_that_it_asks_for() {
    let folder = Folder::new();
    for name in ["one", "two"] {
        let host = format!("{name}.example");
        folder.put_pair(name, &folder.authority.issue(&Wanted::server(&[&host])).unwrap());
    }
    let pair = |name: &str| {
        format!("'{}:{}'", folder.text(&format!("{name}.pem")), folder.text(&format!("{name}.key")))
    };
    let more = format!("[{}, {}]", pair("one"), pair("two"));
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[("more_certificates", &more)], "");
        for (name, shown) in [
            ("one.example", "one.example"),
            ("two.example", "two.example"),
            ("localhost", "localhost"),
            ("other.example", "localhost"),
        ] {
            let Some(said) = openssl(&folder, server.address, &["-servername", name]) else { return };
            assert!(said.contains(&format!("subject=CN = {shown}\n")), "{name}: {said}");
        }
        let said = openssl(&folder, server.address, &["-noservername"]).unwrap();
        assert!(said.contains("subject=CN = localhost\n"), "{said}");
    });
}

/// Whether curl gets an answer without a certificate, with one of an unknown authority, and with a good one.
fn admitted(folder: &Folder, server: &Server) -> Option<[bool; 3]> {
    let with = |name: &str| {
        let (cert, key) = (folder.text(&format!("{name}.pem")), folder.text(&format!("{name}.key")));
        curl(folder, server.address, &["--cert", &cert, "--key", &key])
    };
    let admitted = |got: Result<u16, String>| got == Ok(200);
    Some([curl(folder, server.address, &[])?, with("stranger")?, with("known")?].map(admitted))
}

#[test]
fn clients_show_a_certificate_where_they_have_to() {
    let folder = Folder::new();
    folder.put_client("known");
    let stranger = Authority::new("other").unwrap().issue(&Wanted::client("stranger")).unwrap();
    folder.put_pair("stranger", &stranger);
    let ca = folder.text("ca.pem");
    on_both(|driver| {
        for (auth, expected) in [
            ("none", [true, true, true]),
            ("verify_if_given", [true, false, true]),
            ("require", [false, false, true]),
        ] {
            let settings = [("client_auth", auth), ("client_ca_file", ca.as_str())];
            let settings = if auth == "none" { &settings[..1] } else { &settings[..] };
            let (server, _upstream) = serving(driver, &folder, settings, "");
            let Some(admitted) = admitted(&folder, &server) else { return };
            assert_eq!(admitted, expected, "{auth}");
        }
    });
}

#[test]
fn a_certificate_of_a_client_that_is_not_valid_is_refused() {
    let folder = Folder::new();
    let expired = Wanted::client("expired").valid((2020, 1, 1), (2021, 1, 1));
    folder.put_pair("expired", &folder.authority.issue(&expired).unwrap());
    let server = Wanted::client("purpose").with_usages(&[Usage::ServerAuth]);
    folder.put_pair("purpose", &folder.authority.issue(&server).unwrap());
    let ca = folder.text("ca.pem");
    on_both(|driver| {
        for auth in ["verify_if_given", "require"] {
            let settings = [("client_auth", auth), ("client_ca_file", ca.as_str())];
            let (server, _upstream) = serving(driver, &folder, &settings, "");
            for name in ["expired", "purpose"] {
                let (cert, key) = (folder.text(&format!("{name}.pem")), folder.text(&format!("{name}.key")));
                let Some(got) = curl(&folder, server.address, &["--cert", &cert, "--key", &key]) else {
                    return;
                };
                assert_ne!(got, Ok(200), "{auth}: {name}");
            }
            let failed = server.metric("tenantry_tls_handshakes_total", "result=\"failed\"");
            assert_eq!(failed, 2.0);
        }
    });
}

#[test]
fn sessions_are_resumed_in_either_version() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[], "cores: 2\n");
        let resumed = || server.metric("tenantry_tls_handshakes_total", "result=\"resumed\"");
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (config, before) = (client_config_of(&folder, &[version]), resumed());
            for round in 0..5 {
                let mut client = Client::connect_tls(server.address, &config);
                assert_eq!(client.push(&one("a")).status, 200);
                assert_eq!(client.is_resumed(), round > 0, "{version:?}, {round}");
            }
            assert_eq!(resumed() - before, 4.0);
        }
        for (option, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let session = folder.text(&format!("{}{option}", driver.name()));
            let first = [option, "-sess_out", &session];
            if openssl(&folder, server.address, &first).is_none() {
                return;
            }
            let said = openssl(&folder, server.address, &[option, "-sess_in", &session]).unwrap();
            assert!(said.contains(&format!("Reused, {name}")) && said.contains("HTTP/1.1 200 OK"), "{said}");
        }
    });
}

#[test]
fn plain_http_gets_one_line_that_says_so() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, upstream) = serving(driver, &folder, &[], "");
        let mut client = server.client();
        let response = client.push(&one("a"));
        assert_eq!(response.status, 400);
        assert_eq!(response.text(), "bad request: this port speaks TLS, use https\n");
        assert!(client.is_closed());
        // A large body still leaves the answer readable.
        let body = vec![b'x'; 200_000];
        let mut client = server.client();
        client.try_send(&[push_head(body.len(), "").as_bytes(), &body].concat());
        assert_eq!(client.response().status, 400);
        assert_eq!(upstream.received().len(), 0);
    });
}

/// How long the server leaves a connection open on which `bytes` come and nothing after them.
fn closed_after(server: &Server, bytes: &[u8]) -> Duration {
    let (mut tcp, begun) = (TcpStream::connect(server.address).unwrap(), Instant::now());
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    tcp.write_all(bytes).unwrap();
    let _ = tcp.read_to_end(&mut Vec::new());
    begun.elapsed()
}

fn is_about_a_second(after: Duration) -> bool {
    (Duration::from_millis(800)..Duration::from_secs(4)).contains(&after)
}

#[test]
fn a_client_that_stalls_is_closed_after_the_timeout() {
    let folder = Folder::new();
    let hello = hello(&client_config(&folder));
    on_both_at_once(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[], "timeout: 1s\n");
        for bytes in [&b""[..], &hello[..1], &hello[..100], &hello] {
            let after = closed_after(&server, bytes);
            assert!(is_about_a_second(after), "{} bytes: {after:?}", bytes.len());
        }
    });
}

#[test]
fn a_client_that_stops_in_a_record_is_closed_after_the_timeout() {
    let folder = Folder::new();
    on_both_at_once(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[], "timeout: 1s\n");
        for before in [0, 1] {
            let mut client = Client::connect_tls(server.address, &client_config(&folder));
            (0..before).for_each(|_| assert_eq!(client.push(&one("a")).status, 200));
            // The head of a record of 256 bytes, and a few of them.
            client.send_raw(&[23, 3, 3, 1, 0, 1, 2, 3]);
            let begun = Instant::now();
            assert!(client.ends());
            assert!(is_about_a_second(begun.elapsed()), "{before}: {:?}", begun.elapsed());
        }
    });
}

#[test]
fn a_client_that_stops_in_a_record_does_not_delay_the_shutdown() {
    let folder = Folder::new();
    on_both_at_once(|driver| {
        let (mut server, _upstream) = serving(driver, &folder, &[], "timeout: 1s\ntimeout_shutdown: 0s\n");
        let mut client = Client::connect_tls(server.address, &client_config(&folder));
        assert_eq!(client.push(&one("a")).status, 200);
        client.send_raw(&[23, 3, 3, 1, 0, 1, 2, 3]);
        std::thread::sleep(Duration::from_millis(100));
        let silent = TcpStream::connect(server.address).unwrap();
        server.signal("TERM");
        assert!(server.wait(Duration::from_secs(5)).success());
        drop((client, silent));
    });
}

#[test]
fn a_handshake_that_began_before_the_shutdown_is_completed() {
    let folder = Folder::new();
    on_both_at_once(|driver| {
        let (mut server, upstream) = serving(driver, &folder, &[], "timeout_shutdown: 0s\n");
        let tcp = TcpStream::connect(server.address).unwrap();
        eventually("it is accepted", || server.metric("tenantry_connections_accepted_total", "") == 1.0);
        server.signal("TERM");
        std::thread::sleep(Duration::from_millis(300));
        let pause = Duration::from_millis(600);
        let mut client = Client::connect_tls_slowly(tcp, &client_config(&folder), pause);
        assert_eq!(client.push(&one("a")).status, 200);
        assert!(server.wait(Duration::from_secs(5)).success());
        assert_eq!(upstream.received().len(), 1);
    });
}

#[test]
fn a_client_that_asks_for_keys_and_reads_nothing_is_closed() {
    let folder = Folder::new();
    on_both_at_once(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[], "timeout: 3s\n");
        let mut client = Client::connect_tls_with_little_room(server.address, &client_config(&folder));
        client.send(push_head(5 << 20, "").as_bytes());
        let until = Instant::now() + Duration::from_secs(60);
        let mut ask = || {
            (0..30).try_for_each(|_| client.update_keys())?;
            client.attempt(b"x")
        };
        while ask().is_ok() {
            assert!(Instant::now() < until, "it goes on to take them");
        }
        eventually("it is closed", || server.metric("tenantry_connections_open", "") == 0.0);
    });
}

#[test]
fn an_idle_connection_outlives_the_timeout_of_a_request() {
    let folder = Folder::new();
    on_both_at_once(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[], "timeout: 1s\n");
        let mut client = Client::connect_tls(server.address, &client_config(&folder));
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(1_500));
            assert_eq!(client.push(&one("a")).status, 200);
        }
    });
}

#[test]
fn requests_follow_each_other_and_are_pipelined() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, upstream) = serving(driver, &folder, &[], "");
        let mut client = Client::connect_tls(server.address, &client_config(&folder));
        for _ in 0..3 {
            assert_eq!(client.push(&one("kept")).status, 200);
        }
        let push = [push_head(one("piped").len(), "").as_bytes(), &one("piped")].concat();
        client.send(&push.repeat(50));
        (0..50).for_each(|_| assert_eq!(client.response().status, 200));
        assert_eq!(
            (upstream.of("kept").len(), server.metric("tenantry_connections_accepted_total", "")),
            (3, 1.0)
        );
        // In pieces of a byte, each in a record of its own.
        push.chunks(1).for_each(|byte| client.send(byte));
        assert_eq!(client.response().status, 200);
    });
}

#[test]
fn every_end_of_a_connection_is_announced() {
    let folder = Folder::new();
    on_both_at_once(|driver| {
        let extra = "idle_timeout: 1s\ntimeout_shutdown: 0s\n";
        let (mut server, _upstream) = serving(driver, &folder, &[], extra);
        let connect = || Client::connect_tls(server.address, &client_config(&folder));
        let idle = || {
            let mut client = connect();
            assert_eq!(client.push(&one("a")).status, 200);
            client
        };
        for request in
            ["GET /alive HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET /alive HTTP/1.0\r\n\r\n"]
        {
            let mut client = connect();
            client.send(request.as_bytes());
            assert_eq!(client.response().status, 200);
            assert!(client.is_closed(), "{request}");
        }
        for mut client in [idle(), connect()] {
            assert!(client.is_closed(), "it was idle for too long");
        }
        let mut last = idle();
        server.signal("TERM");
        assert!(last.is_closed(), "the server ends");
        assert!(server.wait(Duration::from_secs(5)).success());
    });
}

/// A body of several MB, which compression makes no shorter.
fn large() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (state >> 58) as u8)
    };
    let mut text = || (0..500).map(|_| next()).collect::<String>();
    body((0..10_000).map(|i| series("big", &format!("{i}{}", text()), 1.0)).collect())
}

#[test]
fn large_bodies_arrive_and_too_large_ones_are_refused() {
    let folder = Folder::new();
    let large = large();
    assert!(large.len() > 2 << 20, "{}", large.len());
    on_both(|driver| {
        let (server, upstream) = serving(driver, &folder, &[], "limits: {body_bytes_max: 7Mi}\n");
        let mut client = Client::connect_tls(server.address, &client_config(&folder));
        assert_eq!(client.push(&large).status, 200);
        assert_eq!(client.push(&one("small")).status, 200);
        let names: usize = upstream.of("big").iter().map(|request| request.names().len()).sum();
        assert_eq!(names, 10_000);
        // It is refused before it is read, and the answer can be read all the same.
        let head = push_head(8 << 20, "");
        client.try_send(head.as_bytes());
        client.try_send(&vec![0; 300_000]);
        assert_eq!(client.response().status, 413);
    });
}

#[test]
fn a_client_that_has_said_its_last_word_gets_its_answer() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[], "");
        let mut client = Client::connect_tls(server.address, &client_config(&folder));
        client.send(&[push_head(one("a").len(), "").as_bytes(), &one("a")].concat());
        client.close_notify();
        assert_eq!(client.response().status, 200);
        assert!(client.ends());
    });
}

#[test]
fn a_client_may_change_its_keys_at_any_time() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, &[], "");
        let mut client = Client::connect_tls(server.address, &client_config(&folder));
        let push = [push_head(one("a").len(), "").as_bytes(), &one("a")].concat();
        for _ in 0..3 {
            client.send(&push[..50]);
            client.update_keys().unwrap();
            client.send(&push[50..]);
            assert_eq!(client.response().status, 200);
        }
    });
}
