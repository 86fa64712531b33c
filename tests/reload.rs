//! SIGHUP: which settings change, which stay, and that each request sees one whole configuration.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, clippy::cast_possible_truncation)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use support::remote_write::TimeSeries;
use support::{Driver, Ends, Reply, Server, Upstream, body, on_both, series};

fn labelled(labels: &[(&str, &str)]) -> TimeSeries {
    TimeSeries::new(labels, &[(1_700_000_000_000, 0.0)])
}

fn any(lines: &[String], parts: &[&str]) -> bool {
    lines.iter().any(|line| parts.iter().all(|part| line.contains(part)))
}

/// Sends one series of tenant `a`. Returns the tenant and the Authorization header of the upstream request.
fn one(server: &Server, upstream: &Upstream, header: &str) -> (String, Option<String>) {
    let before = upstream.received().len();
    let request = body(vec![labelled(&[("__name__", "up"), ("tenant", "a"), ("team", "b")])]);
    assert_eq!(server.client().push(&request).status, 200);
    let received = upstream.received();
    let request = &received[before];
    let field = |name: &str| request.header(name).map(str::to_owned);
    (field(header).unwrap_or_default(), field("Authorization"))
}

#[test]
fn credentials_and_tenant_rules_hold_from_the_next_request_on() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let extra = "auth: {egress: {username: bob, password: one}}\ntenant: {label: tenant}\n";
        let server = Server::start(driver, upstream.address, extra);
        let (tenant, old) = one(&server, &upstream, "X-Scope-OrgID");
        assert_eq!(tenant, "a");

        let lines = server.reload_with("password: one", "password: two");
        assert!(any(&lines, &["read again", "auth.egress.password"]), "{lines:#?}");
        assert!(!any(&lines, &["two"]), "a secret in the log: {lines:#?}");
        let (tenant, new) = one(&server, &upstream, "X-Scope-OrgID");
        assert_eq!(tenant, "a");
        assert!(old.is_some() && new.is_some() && old != new);

        server.reload_with("tenant: {label: tenant}", "tenant: {label: team, prefix: x-, header: X-Team}");
        assert_eq!(one(&server, &upstream, "X-Team").0, "x-b");
        assert_eq!(server.metric("tenantry_config_reloads_total", "done"), 2.0);
        assert!(server.metric("tenantry_config_last_reload_success_timestamp_seconds", "") > 1.7e9);
    });
}

#[test]
fn the_tenants_map_is_read_again() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let map = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(map.path(), "- {exact: a, tenant: first}\n").unwrap();
        let extra = format!("tenant: {{label: tenant, map: {}}}\n", map.path().display());
        let server = Server::start(driver, upstream.address, &extra);
        assert_eq!(one(&server, &upstream, "X-Scope-OrgID").0, "first");
        std::fs::write(map.path(), "- {exact: a, tenant: second}\n").unwrap();
        let lines = server.reload();
        assert!(any(&lines, &["read again", "tenant.map"]), "{lines:#?}");
        assert_eq!(one(&server, &upstream, "X-Scope-OrgID").0, "second");

        std::fs::write(map.path(), "- {exact: a, tenant: third}\n- {regex: '(', tenant: c}\n").unwrap();
        let lines = server.reload();
        assert!(any(&lines, &[&format!("{}:2", map.path().display())]), "{lines:#?}");
        assert_eq!(one(&server, &upstream, "X-Scope-OrgID").0, "second");
    });
}

#[test]
fn a_bad_file_changes_nothing_and_every_mistake_is_told() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "timeout: 7s\n");
        let lines =
            server.reload_with("timeout: 7s", "timeout: 7 parsecs\ntimeouts: 3s\ntenants: {prefix: x-}");
        for parts in [&["timeout", "parsecs"][..], &["timeouts"], &["tenants"], &["nothing changes"]] {
            assert!(any(&lines, parts), "{parts:?}: {lines:#?}");
        }
        assert_eq!(one(&server, &upstream, "X-Scope-OrgID").0, "a");
        assert_eq!(server.metric("tenantry_config_reloads_total", "refused"), 1.0);
        assert_eq!(server.metric("tenantry_config_last_reload_successful", ""), 0.0);

        // A file that is written in place is empty for a moment.
        for bare in ["", "\n  # timeout: 3s\n---\n"] {
            std::fs::write(server.file(), bare).unwrap();
            let lines = server.reload();
            assert!(any(&lines, &["no longer has any settings"]), "{lines:#?}");
            assert_eq!(one(&server, &upstream, "X-Scope-OrgID").0, "a");
        }

        std::fs::remove_file(server.file()).unwrap();
        let lines = server.reload();
        assert!(any(&lines, &["cannot be read"]), "{lines:#?}");
        assert_eq!(one(&server, &upstream, "X-Scope-OrgID").0, "a");
    });
}

#[test]
fn settings_that_need_a_restart_are_named_and_stay_as_they_are() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start(driver, upstream.address, "concurrency: 40\nmerge: {linger: 1ms}\n");
        let to = "concurrency: 50\ncores: 1\nmerge: {linger: 2ms}";
        let lines = server.reload_with("concurrency: 40\nmerge: {linger: 1ms}", to);
        assert!(any(&lines, &["read again", "merge.linger"]), "{lines:#?}");
        assert!(any(&lines, &["next start", "concurrency", "cores"]), "{lines:#?}");
        assert!(any(&lines, &["concurrency=40", "merge.linger=2ms"]), "what runs is shown: {lines:#?}");
        assert_eq!(one(&server, &upstream, "X-Scope-OrgID").0, "a");
    });
}

#[test]
fn sigterm_is_not_lost_behind_many_sighups() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        // Reading this map takes a while.
        let map = tempfile::NamedTempFile::new().unwrap();
        let rule = |n| format!("- {{regex: '(a|b)+x{n}(c|d)*', tenant: t{n}}}\n");
        std::fs::write(map.path(), (0..400).map(rule).collect::<String>()).unwrap();
        let extra = format!("tenant: {{label: tenant, map: {}}}\n", map.path().display());
        let mut server = Server::start(driver, upstream.address, &extra);
        for _ in 0..8 {
            server.signal("HUP");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        server.signal("TERM");
        assert_eq!(server.wait(std::time::Duration::from_secs(30)).code(), Some(0));
    });
}

/// The two configurations differ in three settings. Each upstream request must follow one of them in all three.
#[test]
fn under_load_every_request_is_of_one_configuration_and_none_fails() {
    on_both(|driver: Driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let (old, new) = (
            "tenant: {label: tenant, prefix: old-, header: X-Old}\nauth: {egress: {username: u, password: old}}",
            "tenant: {label: team, prefix: new-, header: X-New}\nauth: {egress: {username: u, password: new}}",
        );
        let server = Server::start(driver, upstream.address, &format!("{old}\n"));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = Ends(&over);
            for sender in 0..4 {
                let (server, over) = (&server, &over);
                scope.spawn(move || {
                    let mut client = server.client();
                    while !over.load(Ordering::Relaxed) {
                        let all: Vec<_> = (0..8)
                            .map(|n| {
                                let (tenant, team) = (format!("t{n}"), format!("g{n}-{sender}"));
                                labelled(&[("__name__", "up"), ("tenant", &tenant), ("team", &team)])
                            })
                            .collect();
                        assert_eq!(client.push(&body(all)).status, 200);
                    }
                });
            }
            for round in 0..10 {
                let (from, to) = if round % 2 == 0 { (old, new) } else { (new, old) };
                server.reload_with(from, to);
            }
        });
        let [mut of_old, mut of_new] = [0, 0];
        let authorization = |password: &str| match password {
            "old" => "Basic dTpvbGQ=",
            _ => "Basic dTpuZXc=",
        };
        for request in upstream.received() {
            let is_old = request.header("X-Old").is_some();
            let (header, prefix, password) =
                if is_old { ("X-Old", "old-t", "old") } else { ("X-New", "new-g", "new") };
            let tenant = request.header(header).unwrap();
            assert!(tenant.starts_with(prefix), "{header}: {tenant}");
            assert_eq!(request.header("Authorization"), Some(authorization(password)));
            *(if is_old { &mut of_old } else { &mut of_new }) += 1;
        }
        eprintln!("{of_old} requests by the old configuration, {of_new} by the new one");
        assert!(of_old > 20 && of_new > 20);
    });
}

#[test]
fn what_was_delivered_before_a_reload_is_not_sent_again_after_it() {
    on_both(|driver| {
        let well = std::sync::Arc::new(AtomicBool::new(false));
        let answers = std::sync::Arc::clone(&well);
        let upstream = Upstream::start(move |request| {
            let sick = request.tenant() == "sick" && !answers.load(Ordering::Relaxed);
            if sick { Reply::new(503, "not now") } else { Reply::ok() }
        });
        let extra = "auth: {egress: {username: u, password: old}}\n";
        let server = Server::start(driver, upstream.address, extra);
        let both = body(vec![series("sick", "up", 1.0), series("well", "up", 1.0)]);
        let mut client = server.client();
        assert_eq!(client.push(&both).status, 503);
        well.store(true, Ordering::Relaxed);
        server.reload_with("password: old", "password: new");
        assert_eq!(client.push(&both).status, 200);
        assert_eq!((upstream.of("well").len(), upstream.of("sick").len()), (1, 2));
    });
}
