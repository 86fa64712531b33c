//! What clients may do with records: cut requests into many, stop within one, and end the session or the stream where a
//! request has not ended.

use std::time::{Duration, Instant};

use crate::peers::{run, start};
use crate::support::client::push_head;
use crate::support::tls::{Folder, client_config, client_config_of};
use crate::support::{Client, Driver, Reply, Server, Upstream, eventually, on_both, on_both_at_once, one};

fn serving(driver: Driver, folder: &Folder, extra: &str) -> (Server, Upstream) {
    let upstream = Upstream::start(|_| Reply::ok());
    let server = start(driver, "http", upstream.address, &folder.ingress(&[]), extra);
    (server, upstream)
}

fn whole() -> Vec<u8> {
    [push_head(one("a").len(), "").as_bytes(), &one("a")].concat()
}

#[test]
fn a_client_that_stops_in_a_record_is_counted_as_timed_out() {
    let folder = Folder::new();
    on_both_at_once(|driver| {
        let (server, upstream) = serving(driver, &folder, "timeout: 1s\n");
        let config = client_config(&folder);
        let timed_out = |name: &str, labels: &str| server.metric(name, labels);
        // The head of a record of 256 bytes, and a few of them: alone, and behind the beginning of a request.
        let record = [23, 3, 3, 1, 0, 1, 2, 3];
        let mut client = Client::connect_tls(server.address, &config);
        client.send_raw(&record);
        assert!(client.ends());
        eventually("it is counted", || timed_out("tenantry_connections_timed_out_total", "") == 1.0);
        let mut client = Client::connect_tls(server.address, &config);
        client.send(&whole()[..40]);
        client.send_raw(&record);
        assert_eq!(client.response().status, 503);
        assert!(client.is_closed());
        eventually("it is counted", || timed_out("tenantry_rejections_total", "timeout") == 1.0);
        assert_eq!(upstream.received().len(), 0);
    });
}

#[test]
fn a_record_now_and_then_does_not_extend_the_time() {
    let folder = Folder::new();
    on_both_at_once(|driver| {
        let (server, upstream) = serving(driver, &folder, "timeout: 2s\n");
        let mut client = Client::connect_tls(server.address, &client_config(&folder));
        let begun = Instant::now();
        for part in whole().chunks(10) {
            if client.attempt(part).is_err() || !client.is_quiet_for(500) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        assert_eq!(client.response().status, 503);
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(upstream.received().len(), 0);
    });
}

#[test]
fn many_tiny_records_make_one_request() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, upstream) = serving(driver, &folder, "");
        let before = server.cpu_ticks();
        for versions in [[&rustls::version::TLS12], [&rustls::version::TLS13]] {
            let mut client = Client::connect_tls(server.address, &client_config_of(&folder, &versions));
            let padded = push_head(one("a").len(), &format!("X-Padding: {}\r\n", "y".repeat(10_000)));
            for byte in [padded.as_bytes(), &one("a")].concat().chunks(1) {
                client.send(byte);
            }
            assert_eq!(client.response().status, 200);
        }
        assert_eq!(upstream.of("a").len(), 2);
        let ticks = server.cpu_ticks() - before;
        eprintln!("20,000 records: {ticks} hundredths of a second");
        assert!(ticks < 300, "{ticks} hundredths of a second");
    });
}

/// Bytes of a push of which something is missing at the end.
fn incomplete() -> Vec<Vec<u8>> {
    let (head, body) = (push_head(one("a").len(), ""), one("a"));
    let chunked =
        format!("POST /push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
    let chunk = [chunked.as_bytes(), &body, b"\r\n"].concat();
    vec![
        head.as_bytes()[..head.len() - 2].to_vec(),
        head.as_bytes().to_vec(),
        [head.as_bytes(), &body[..body.len() - 1]].concat(),
        chunk.clone(),
        [&chunk[..], b"0\r\n"].concat(),
    ]
}

#[test]
fn an_end_within_a_request_never_completes_it() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, upstream) = serving(driver, &folder, "timeout: 5s\n");
        for versions in [[&rustls::version::TLS12], [&rustls::version::TLS13]] {
            let config = client_config_of(&folder, &versions);
            for bytes in incomplete() {
                for is_announced in [true, false] {
                    let mut client = Client::connect_tls(server.address, &config);
                    client.send(&bytes);
                    if is_announced {
                        client.close_notify();
                    }
                    client.cut_writing();
                    let begun = Instant::now();
                    let response = client.try_response();
                    let shown = bytes.escape_ascii();
                    assert_eq!(response.map(|r| r.status), None, "{is_announced}: {shown}");
                    assert!(begun.elapsed() < Duration::from_secs(4), "{shown}");
                }
            }
        }
        assert_eq!(upstream.received().len(), 0);
        assert_eq!(server.metric("tenantry_in_flight_bytes", ""), 0.0);
        assert_eq!(server.client_of(&folder).push(&one("a")).status, 200);
    });
}

#[test]
fn what_comes_behind_a_close_notify_is_no_request() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, upstream) = serving(driver, &folder, "");
        let mut client = server.client_of(&folder);
        client.close_notify();
        client.try_send_raw(&whole());
        client.try_send_raw(&[23, 3, 3, 0, 3, 1, 2, 3]);
        assert!(client.ends());
        assert_eq!(upstream.received().len(), 0);
    });
}

#[test]
fn a_flood_of_new_keys_ends_the_connection() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, "");
        let mut client = server.client_of(&folder);
        let before = server.cpu_ticks();
        let asked = (0..100_000).take_while(|_| client.update_keys().is_ok()).count();
        assert!(asked < 100_000);
        assert!(client.ends());
        let ticks = server.cpu_ticks() - before;
        assert!(ticks < 100, "{asked} requests took {ticks} hundredths of a second");
        assert_eq!(server.client_of(&folder).push(&one("a")).status, 200);
    });
}

#[test]
fn a_client_of_tls_1_2_cannot_renegotiate() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, _upstream) = serving(driver, &folder, "timeout: 1s\n");
        let (address, ca) = (server.address.to_string(), folder.text("ca.pem"));
        let arguments = ["s_client", "-tls1_2", "-connect", &address, "-CAfile", &ca];
        // s_client takes a line with an R for the order to do it.
        let Some(output) = run("openssl", &arguments, b"R\n") else { return };
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
        assert_eq!(server.client_of(&folder).push(&one("a")).status, 200);
    });
}
