//! The spool: a tenant whose upstream fails holds up nobody else's data, and nothing that was acknowledged is lost,
//! reordered or given to another tenant.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, clippy::cast_possible_truncation)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use support::server::{configuration, free_port};
use support::upstream::Received;
use support::{
    Close, Driver, Reply, Server, Upstream, body, eventually, on_both, on_both_at_once, one, series,
};

/// The status that an upstream answers to the tenant `ill`; 0 closes the connection.
#[derive(Clone)]
struct Health(Arc<AtomicU16>);

impl Health {
    fn of(status: u16) -> Self {
        Self(Arc::new(AtomicU16::new(status)))
    }

    fn set(&self, status: u16) {
        self.0.store(status, Ordering::SeqCst);
    }

    fn upstream(&self) -> Upstream {
        let health = self.clone();
        Upstream::start(move |received: &Received| {
            match (received.tenant(), health.0.load(Ordering::SeqCst)) {
                ("ill", 0) => Reply::from(Close::BeforeReply),
                ("ill", status) => Reply::new(status, "as it is"),
                _ => Reply::ok(),
            }
        })
    }
}

fn start(driver: Driver, upstream: &Upstream, folder: &Path, more: &str) -> Server {
    let extra = format!("timeout: 2s\nspool: {{dir: {}{more}}}\n", folder.display());
    Server::start(driver, upstream.address, &extra)
}

/// A request with a series of `ill` and one of `well`, both with this value.
fn both(value: f64) -> Vec<u8> {
    body(vec![series("ill", "up", value), series("well", "up", value)])
}

/// The values that a tenant's requests with 2xx had, in the order in which they came.
fn values(upstream: &Upstream, tenant: &str) -> Vec<f64> {
    let all = upstream.of(tenant);
    all.iter().flat_map(|received| received.request().timeseries).map(|one| one.samples[0].value).collect()
}

/// Waits until the spool has nothing more to send.
fn until_empty(server: &Server) {
    eventually("the spool is empty", || server.metric("tenantry_spool_parts", "") == 0.0);
}

#[test]
fn one_tenants_outage_holds_up_no_other_tenant_and_loses_nothing() {
    on_both_at_once(|driver| {
        for ill in [500, 503, 0] {
            let folder = tempfile::tempdir().unwrap();
            let health = Health::of(ill);
            let upstream = health.upstream();
            let server = start(driver, &upstream, folder.path(), "");
            let mut client = server.client();
            for value in 0..20 {
                assert_eq!(client.push(&both(f64::from(value))).status, 200, "{ill}");
            }
            let expected: Vec<_> = (0..20).map(f64::from).collect();
            assert_eq!(values(&upstream, "well"), expected);
            assert_eq!(server.metric("tenantry_spooled_parts_total", ""), 20.0);
            health.set(200);
            until_empty(&server);
            // What was refused before came several times; what was stored came in order, and each value at least once.
            let stored = values(&upstream, "ill");
            let from = stored.len() - 20;
            assert_eq!(stored[from..], expected, "{ill}: {stored:?}");
            eventually("the tenant is back on the direct way", || {
                let before = server.metric("tenantry_spooled_parts_total", "");
                assert_eq!(client.push(&both(20.0)).status, 200);
                server.metric("tenantry_spooled_parts_total", "") == before
            });
            assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
        }
    });
}

#[test]
fn what_was_acknowledged_outlives_a_crash() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let health = Health::of(500);
        let upstream = health.upstream();
        let server = start(driver, &upstream, folder.path(), "");
        let mut client = server.client();
        for value in 0..10 {
            assert_eq!(client.push(&both(f64::from(value))).status, 200);
        }
        // It is killed: nothing is written at the end.
        drop(server);
        let before = upstream.of("ill").len();
        health.set(200);
        let server = start(driver, &upstream, folder.path(), "");
        until_empty(&server);
        let stored = values(&upstream, "ill");
        assert_eq!(stored[before..], (0..10).map(f64::from).collect::<Vec<_>>());
        // It was removed durably enough for an orderly end.
        server.signal("TERM");
        let mut server = server;
        assert_eq!(server.wait(Duration::from_secs(20)).code(), Some(0));
        let again = start(driver, &upstream, folder.path(), "");
        assert_eq!(again.metric("tenantry_spool_parts", ""), 0.0);
    });
}

#[test]
fn replayed_parts_are_merged_in_their_order_while_new_ones_go_behind() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let health = Health::of(503);
        let upstream = health.upstream();
        let server = start(driver, &upstream, folder.path(), "");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ends = support::Ends(&over);
            let pushed = scope.spawn(|| {
                let (mut client, mut value) = (server.client(), 0);
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(client.push(&both(f64::from(value))).status, 200);
                    value += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
                value
            });
            std::thread::sleep(Duration::from_millis(500));
            let before = upstream.of("ill").len();
            health.set(200);
            eventually("it is caught up", || {
                let replayed = server.metric("tenantry_spool_replayed_parts_total", "");
                replayed > 100.0 && server.metric("tenantry_spool_parts", "") == 0.0
            });
            drop(ends);
            let pushed: i32 = pushed.join().unwrap();
            let stored = values(&upstream, "ill");
            let expected: Vec<_> = (0..pushed).map(f64::from).collect();
            assert_eq!(stored[stored.len() - expected.len()..], expected);
            let requests = upstream.of("ill").len() - before;
            assert!(requests < expected.len() / 2, "{requests} requests with {} parts", expected.len());
        });
    });
}

/// What waits after an outage is data that nobody sees, though the upstream is well.
#[test]
fn the_end_of_an_outage_is_noticed_soon() {
    on_both_at_once(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let health = Health::of(503);
        let upstream = health.upstream();
        let server = start(driver, &upstream, folder.path(), "");
        assert_eq!(server.client().push(&both(1.0)).status, 200);
        // Pauses that double would end after 1, 2, 4 and 8 seconds.
        std::thread::sleep(Duration::from_millis(4_400));
        health.set(200);
        let begun = Instant::now();
        until_empty(&server);
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(2_500), "{took:?}");
    });
}

/// Many tenants whose requests hang must not take the turns of one whose upstream is well again.
#[test]
fn tenants_that_stall_hold_up_no_other_tenants_replay() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let (stalls, recovers) = (Arc::new(AtomicBool::new(false)), Health::of(500));
        let (stalling, health) = (Arc::clone(&stalls), recovers.clone());
        let upstream = Upstream::start(move |received: &Received| match received.tenant() {
            "ill" => Reply::new(health.0.load(Ordering::SeqCst), ""),
            _ if stalling.load(Ordering::SeqCst) => Reply::from(Close::Stall),
            _ => Reply::new(500, ""),
        });
        let server = start(driver, &upstream, folder.path(), "}\ncores: 1\nmax_conns_per_host: 8\nlimits: {");
        let mut client = server.client();
        for number in 0..80 {
            assert_eq!(client.push(&one(&format!("s{number}"))).status, 200);
        }
        for value in 0..1_000 {
            assert_eq!(client.push(&body(vec![series("ill", "up", f64::from(value))])).status, 200);
        }
        stalls.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_secs(3));
        let begun = Instant::now();
        recovers.set(200);
        eventually("it is caught up", || server.metric("tenantry_spool_replayed_parts_total", "") == 1_000.0);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(15), "{took:?}");
        assert!(server.metric("tenantry_spool_parts", "") > 0.0, "the others' parts are there");
    });
}

#[test]
fn a_full_spool_refuses_and_keeps_what_it_has() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let health = Health::of(500);
        let upstream = health.upstream();
        let server = start(driver, &upstream, folder.path(), ", tenant_bytes_max: 4Ki");
        let mut client = server.client();
        let mut taken = 0;
        let refused = loop {
            let response = client.push(&both(f64::from(taken)));
            if response.status != 200 {
                break response;
            }
            taken += 1;
            assert!(taken < 1_000);
        };
        assert!(taken > 5, "{taken}");
        assert_eq!(refused.status, 503);
        assert!(refused.header("Retry-After").is_some());
        assert!(refused.text().contains("spool"), "{}", refused.text());
        assert_eq!(server.metric("tenantry_spool_refused_parts_total", "reason=\"tenant_full\""), 1.0);
        // Another tenant has room.
        assert_eq!(client.push(&one("well")).status, 200);
        health.set(200);
        until_empty(&server);
        let stored = values(&upstream, "ill");
        assert_eq!(stored[stored.len() - taken as usize..], (0..taken).map(f64::from).collect::<Vec<_>>());
        assert_eq!(client.push(&both(1.0)).status, 200);
    });
}

#[test]
fn a_full_disk_loses_nothing_and_works_again_when_there_is_room() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        let mount = "mount -t tmpfs -o size=256k tmpfs \"$0\" && exec \"$@\"";
        command.args(["-r", "-m", "sh", "-c", mount]).arg(folder.path());
        let mut tried = Command::new("unshare");
        tried.args(["-r", "-m", "sh", "-c", mount]).arg(folder.path()).arg("true");
        if !tried.status().is_ok_and(|status| status.success()) {
            eprintln!("no mount namespace here, so no small disk");
            return;
        }
        let health = Health::of(500);
        let upstream = health.upstream();
        let metrics = free_port();
        let extra = format!("timeout: 2s\nspool: {{dir: {}}}\n", folder.path().display());
        command.arg(env!("CARGO_BIN_EXE_tenantry"));
        let server =
            Server::start_by(command, &configuration(driver, upstream.address, &extra, metrics), metrics);
        let mut client = server.client();
        let mut taken = Vec::new();
        for value in (0..).map(f64::from).take(5_000) {
            match client.push(&both(value)).status {
                200 => taken.push(value),
                status => assert!(matches!(status, 500 | 503), "{status}"),
            }
            if server_has_failed(&server, value) {
                break;
            }
        }
        assert!(server.metric("tenantry_spool_errors_total", "operation=\"commit\"") > 0.0);
        assert!(server.metric("tenantry_spool_refused_parts_total", "reason=\"failed\"") > 0.0);
        assert_eq!(client.push(&one("well")).status, 200);
        assert!(taken.len() > 100, "{}", taken.len());
        health.set(200);
        until_empty(&server);
        let stored = values(&upstream, "ill");
        let mut last: Vec<f64> = stored[stored.len() - taken.len()..].to_vec();
        last.dedup();
        assert_eq!(last, taken, "what was acknowledged came in order, after what was refused");
        health.set(500);
        eventually("there is room again", || client.push(&both(-1.0)).status == 200);
        assert_eq!(server.metric("tenantry_unaccounted_samples", ""), 0.0);
    });
}

/// Looks now and then whether the disk has failed.
fn server_has_failed(server: &Server, value: f64) -> bool {
    value % 100.0 == 0.0 && server.metric("tenantry_spool_errors_total", "operation=\"commit\"") > 1.0
}

#[test]
fn spooled_data_that_is_refused_for_good_is_counted_kept_and_passed_over() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let refuses = Arc::new(AtomicU16::new(500));
        let script = Arc::clone(&refuses);
        let upstream = Upstream::start(move |received: &Received| {
            let has_bad = || received.names().iter().any(|name| name == "bad");
            match script.load(Ordering::SeqCst) {
                200 if has_bad() => Reply::new(400, "out of order"),
                status => Reply::new(status, ""),
            }
        });
        let letters = folder.path().join("dead");
        let more = format!(", dead_letter: {}", letters.display());
        let server = start(driver, &upstream, &folder.path().join("spool"), &more);
        let mut client = server.client();
        for name in ["a", "b", "bad", "c"] {
            assert_eq!(client.push(&body(vec![series("t", name, 1.0)])).status, 200);
        }
        refuses.store(200, Ordering::SeqCst);
        until_empty(&server);
        assert_eq!(server.metric("tenantry_spool_rejected_parts_total", ""), 1.0);
        assert_eq!(server.metric("tenantry_spool_replayed_parts_total", ""), 3.0);
        let log = server.log().join("\n");
        assert!(log.contains("spooled data was refused with 400: out of order"), "{log}");
        eventually("the dead letter is written", || {
            std::fs::metadata(&letters).is_ok_and(|file| file.len() > 20)
        });
        let last: Vec<_> = upstream.received().iter().rev().take(3).rev().map(Received::names).collect();
        assert_eq!(last, [["b"], ["bad"], ["c"]], "each alone, in order");
    });
}

#[test]
fn without_a_spool_senders_hear_of_the_failure() {
    on_both(|driver| {
        let upstream = Health::of(500).upstream();
        let server = Server::start(driver, upstream.address, "");
        assert_eq!(server.client().push(&both(1.0)).status, 500);
        assert!(!server.metrics_text().contains("tenantry_spool_parts "));
    });
}

#[test]
fn a_rate_limit_is_spooled_only_if_that_is_set() {
    on_both(|driver| {
        for (more, status) in [("", 429), (", on_429: true", 200)] {
            let folder = tempfile::tempdir().unwrap();
            let upstream = Health::of(429).upstream();
            let server = start(driver, &upstream, folder.path(), more);
            assert_eq!(server.client().push(&both(1.0)).status, status);
        }
    });
}

#[test]
fn with_always_every_part_goes_through_the_spool() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let upstream = Health::of(200).upstream();
        let server = start(driver, &upstream, folder.path(), ", when: always");
        let mut client = server.client();
        for value in 0..10 {
            assert_eq!(client.push(&both(f64::from(value))).status, 200);
        }
        until_empty(&server);
        assert_eq!(values(&upstream, "well"), (0..10).map(f64::from).collect::<Vec<_>>());
        assert_eq!(server.metric("tenantry_spooled_parts_total", ""), 20.0);
    });
}

#[test]
fn a_spool_in_use_or_for_another_upstream_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Health::of(500).upstream();
    let server = start(Driver::Epoll, &upstream, folder.path(), "");
    let config = std::fs::read_to_string(server.file()).unwrap().replace("listen_metrics", "#listen_metrics");
    let second = folder.path().join("second.yml");
    std::fs::write(&second, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    let output = command.arg("-config").arg(&second).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("another process"), "{text}");
}
