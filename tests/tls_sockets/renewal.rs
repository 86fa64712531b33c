//! Certificates and authorities that change while the server runs.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use testkit::pki::{Authority, Wanted};

use crate::peers::{curl, start};
use crate::relay::{Relay, relay_config};
use crate::support::tls::{Folder, chain, client_config, localhost};
use crate::support::{Client, Driver, Ends, Reply, Server, Upstream, on_both, on_both_at_once, one};

/// Puts a version of the certificate into the folder `..NAME`, and lets `..data` point to it at once, as Kubernetes
/// does.
fn swap_in(folder: &Folder, name: &str, certificate: &str, key: &str) {
    let version = format!("..{name}");
    std::fs::create_dir(folder.path(&version)).unwrap();
    folder.put(&format!("{version}/tls.crt"), certificate);
    folder.put(&format!("{version}/tls.key"), key);
    symlink(&version, folder.path("..data_new")).unwrap();
    std::fs::rename(folder.path("..data_new"), folder.path("..data")).unwrap();
}

/// A mounted secret: links to files below a link to a folder.
fn mount(folder: &Folder) {
    let first = folder.authority.issue(&localhost()).unwrap();
    swap_in(folder, "first", &first.certificate, &first.key);
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), folder.path(name)).unwrap();
    }
}

/// The settings of a server whose certificate is such a secret.
fn mounted(folder: &Folder) -> String {
    let at = |text: &str| folder.text(text);
    folder.ingress(&[]).replace(&at("server.pem"), &at("tls.crt")).replace(&at("server.key"), &at("tls.key"))
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_500 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not within thirty seconds: {what}");
}

fn reloads(server: &Server, result: &str) -> f64 {
    server.metric("tenantry_tls_reloads_total", &format!("result=\"{result}\""))
}

fn shows(server: &Server, folder: &Folder, version: &str) -> bool {
    let mut client = Client::connect_tls(server.address, &client_config(folder));
    client.send(b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.server_certificate() == chain(&folder.path(&format!("..{version}/tls.crt")))[0]
}

/// Pushes over one connection that stays, and over new ones, until `stop`. Returns the number of pushes.
fn push_continually(server: &Server, folder: &Folder, stop: &AtomicBool) -> usize {
    let config = client_config(folder);
    let mut kept = Client::connect_tls(server.address, &config);
    let mut pushed = 0;
    while !stop.load(Ordering::SeqCst) {
        assert_eq!(kept.push(&one("kept")).status, 200);
        assert_eq!(Client::connect_tls(server.address, &config).push(&one("new")).status, 200);
        pushed += 2;
        std::thread::sleep(Duration::from_millis(5));
    }
    pushed
}

#[test]
fn a_renewed_certificate_is_served_without_a_failed_request() {
    on_both_at_once(|driver| {
        let folder = Folder::new();
        mount(&folder);
        let upstream = Upstream::start(|_| Reply::ok());
        let relay = Relay::start(relay_config(&folder, "server"), upstream.address);
        let auth = mounted(&folder) + &folder.egress(&[]);
        let server = start(driver, "https", relay.address, &auth, "");
        assert!(shows(&server, &folder, "first"));
        let (stop, pushed) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let _ends = Ends(&stop);
            scope.spawn(|| pushed.store(push_continually(&server, &folder, &stop), Ordering::SeqCst));
            renew(&server, &folder);
        });
        let pushed = pushed.load(Ordering::SeqCst);
        assert!(pushed > 100, "{pushed}");
        assert_eq!(upstream.received().len(), pushed);
        assert_eq!(server.metric("tenantry_tls_handshakes_total", "result=\"failed\""), 0.0);
    });
}

/// Renews the certificate twice: the second time with a key that does not belong to it.
fn renew(server: &Server, folder: &Folder) {
    let second = folder.authority.issue(&localhost().valid((2020, 1, 1), (2050, 1, 1))).unwrap();
    swap_in(folder, "second", &second.certificate, &second.key);
    wait_for("the renewed certificate is served", || shows(server, folder, "second"));
    assert_eq!((reloads(server, "done"), reloads(server, "refused")), (1.0, 0.0));
    let third = folder.authority.issue(&localhost()).unwrap();
    swap_in(folder, "third", &third.certificate, &second.key);
    wait_for("the broken renewal is refused", || reloads(server, "refused") > 0.0);
    assert!(shows(server, folder, "second"));
    assert_eq!(reloads(server, "done"), 1.0);
    let log = server.log();
    let told = |line: &&String| line.contains("tls.key: its key does not belong to the certificate in");
    assert!(log.iter().any(|line| told(&line)), "{log:#?}");
}

#[test]
fn a_signal_brings_other_authorities_for_clients() {
    let other = Authority::new("other").unwrap();
    on_both(|driver| {
        let folder = Folder::new();
        folder.put("clients.pem", &folder.authority.certificate());
        folder.put_client("old");
        folder.put_pair("new", &other.issue(&Wanted::client("new")).unwrap());
        let ca = folder.text("clients.pem");
        let auth = folder.ingress(&[("client_auth", "require"), ("client_ca_file", ca.as_str())]);
        let upstream = Upstream::start(|_| Reply::ok());
        let server = start(driver, "http", upstream.address, &auth, "");
        let admits = |name: &str| {
            let (cert, key) = (folder.text(&format!("{name}.pem")), folder.text(&format!("{name}.key")));
            Some(curl(&folder, server.address, &["--cert", &cert, "--key", &key])? == Ok(200))
        };
        let Some(admits_old) = admits("old") else { return };
        assert_eq!((admits_old, admits("new")), (true, Some(false)));
        folder.put("clients.pem", &other.certificate());
        let said = server.reload();
        let told =
            |line: &String| line.contains("was read again") && line.contains("auth.ingress.tls_config");
        assert!(said.iter().any(told), "{said:#?}");
        assert_eq!((admits("old"), admits("new")), (Some(false), Some(true)));
    });
}

#[test]
fn a_signal_turns_a_target_from_http_to_https() {
    let folder = Folder::new();
    on_both(|driver: Driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let relay = Relay::start(relay_config(&folder, "server"), upstream.address);
        let server = start(driver, "http", relay.address, &folder.egress(&[]), "");
        assert_eq!(server.client().push(&one("a")).status, 502, "it speaks TLS only");
        server.reload_with("target: http://", "target: https://");
        assert_eq!(server.client().push(&one("a")).status, 200);
        server.reload_with("target: https://", "target: http://");
        assert_eq!(server.client().push(&one("a")).status, 502);
    });
}

#[test]
fn the_days_until_a_certificate_expires_are_a_metric() {
    let folder = Folder::new();
    on_both(|driver: Driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = start(driver, "http", upstream.address, &folder.ingress(&[]), "");
        let days = server.metric("tenantry_tls_certificate_days_left", "direction=\"in\"");
        // The certificate is valid until 2100.
        assert!((10_000.0..40_000.0).contains(&days), "{days}");
        assert_eq!(server.metric("tenantry_tls_certificate_days_left", "direction=\"out\""), 0.0);
    });
}
