//! Credentials and headers of upstream requests: what a scripted upstream receives, and what changes while the server
//! runs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, clippy::cast_possible_truncation)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::server::{configuration, free_port};
use support::{Driver, Ends, Reply, Server, Upstream, on_both, on_both_at_once, one};

/// Puts a new file in the place of the old one, as tools that renew secrets do.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "not within thirty seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn reloads(server: &Server, result: &str) -> f64 {
    server.metric("tenantry_secret_reloads_total", &format!("result=\"{result}\""))
}

#[test]
fn every_request_carries_the_token_and_the_headers_and_no_page_shows_them() {
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let extra = "auth: {egress: {bearer_token: canary-token}}\n\
                     upstream: {headers: {X-Api-Key: canary-key, x-site: 'eu, 1'}}\n";
        let server = Server::start(driver, upstream.address, extra);
        for tenant in ["a", "b"] {
            assert_eq!(server.client().push(&one(tenant)).status, 200);
        }
        for received in upstream.received() {
            assert_eq!(received.header("Authorization"), Some("Bearer canary-token"));
            assert_eq!(received.header("X-Api-Key"), Some("canary-key"));
            assert_eq!(received.header("X-Site"), Some("eu, 1"));
        }
        assert_eq!(upstream.received().len(), 2);
        let mut client = support::Client::connect(server.metrics);
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let status = client.response().text();
        let log = server.reload().join("\n") + &server.log().join("\n");
        assert!(log.contains("auth.egress.bearer_token=***"), "{log}");
        for text in [log, status, server.metrics_text()] {
            assert!(!text.contains("canary"), "{text}");
        }
    });
}

#[test]
fn checking_a_configuration_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenantry.yml");
    let base = configuration(Driver::Epoll, "127.0.0.1:1", "", free_port());
    let check = |more: &str| {
        std::fs::write(&file, format!("{base}{more}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        let output = command.arg("--check-config").arg("--config").arg(&file).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = check("auth: {egress: {bearer_token: canary}}\nupstream: {headers: {X-A: canary}}\n");
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("canary"), "{text}");
    let secret = folder.path().join("token");
    std::fs::write(&secret, "canary\ncanary\n").unwrap();
    let (code, text) = check(&format!(
        "auth: {{egress: {{bearer_token: 'can ary', bearer_token_file: {0}}}}}\nupstream: {{headers: {{X-A: \"canary\\0\"}}}}\n",
        secret.display()
    ));
    assert_eq!(code, Some(64), "{text}");
    for key in ["auth.egress.bearer_token: ", "auth.egress.bearer_token_file: ", "upstream.headers: "] {
        assert!(text.contains(key), "{key}: {text}");
    }
    assert!(!text.contains("canary") && !text.contains("can ary"), "{text}");
}

/// Pushes over several connections until `over`. Every push has to succeed.
fn push_continually(server: &Server, over: &AtomicBool) -> usize {
    let mut client = server.client();
    let mut pushed = 0;
    while !over.load(Ordering::Relaxed) {
        assert_eq!(client.push(&one(["a", "b", "c"][pushed % 3])).status, 200);
        pushed += 1;
    }
    pushed
}

#[test]
fn a_token_is_renewed_under_load_without_a_failed_request() {
    on_both_at_once(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        // The upstream takes both tokens for a while, as one that renews them does.
        let upstream = Upstream::start(|request| match request.header("Authorization") {
            Some("Bearer first" | "Bearer second" | "Bearer third") => Reply::ok(),
            other => Reply::new(401, &format!("not {other:?}")),
        });
        let extra = format!("auth: {{egress: {{bearer_token_file: {}}}}}\n", path.display());
        let server = Server::start(driver, upstream.address, &extra);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ends = Ends(&over);
            let pushers: Vec<_> = (0..3).map(|_| scope.spawn(|| push_continually(&server, &over))).collect();
            replace(&path, "second\n");
            wait_for("the token is read again", || reloads(&server, "done") == 1.0);
            // An empty file is a mistake. What was read before stays.
            replace(&path, " \n");
            wait_for("the empty file is found", || reloads(&server, "refused") == 1.0);
            // A signal need not wait until the file is looked at. It is refused as long as the file is empty.
            let lines = server.reload().join("\n");
            assert!(lines.contains("token is empty") && lines.contains("nothing changes"), "{lines}");
            // Before the server itself looks at the file again.
            let lines = server.reload_after(|| replace(&path, "third")).join("\n");
            assert!(lines.contains("auth.egress.bearer_token_file"), "{lines}");
            assert!(!lines.contains("third"), "{lines}");
            drop(ends);
            let pushed: usize = pushers.into_iter().map(|pusher| pusher.join().unwrap()).sum();
            assert!(pushed > 100, "{pushed}");
        });
        assert_eq!(server.client().push(&one("a")).status, 200);
        let tokens: Vec<_> = upstream.received();
        let last = tokens.last().unwrap().header("Authorization");
        assert_eq!(last, Some("Bearer third"));
        for token in ["first", "second", "third"] {
            let value = format!("Bearer {token}");
            let count = tokens.iter().filter(|r| r.header("Authorization") == Some(&value)).count();
            assert!(count > 0, "no request with {token}");
        }
        let log = server.log().join("\n");
        assert!(log.contains("the files of secrets have changed and were read again"), "{log}");
        assert!(log.contains("token is empty") && log.contains("the old ones stay in use"), "{log}");
    });
}

#[test]
fn a_password_may_be_in_a_file() {
    on_both_at_once(|driver| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let upstream = Upstream::start(|_| Reply::ok());
        let extra =
            format!("auth: {{egress: {{username: bob, password_file: {}}}}}\n", file.path().display());
        let server = Server::start(driver, upstream.address, &extra);
        assert_eq!(server.client().push(&one("a")).status, 200);
        assert_eq!(upstream.received()[0].header("Authorization"), Some("Basic Ym9iOmh1bnRlcjI="));
    });
}
