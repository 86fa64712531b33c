//! Prometheus' web configuration file, and what happens when files change or are wrong.

use std::io::Read as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::pki::Wanted;

use crate::rig::{Credentials, basic, bearer, connect, hash, token_of};
use crate::support::server::{configuration, free_port, on_both, on_both_at_once};
use crate::support::tls::Folder;
use crate::support::{Client, Driver, Ends, Reply, Server, Upstream, eventually, one};

/// Starts a server with this web configuration, which may be plain HTTP.
fn start(driver: Driver, folder: &Folder, web: &str) -> (Server, Upstream) {
    folder.put("web.yml", web);
    let upstream = Upstream::start(|_| Reply::ok());
    let extra = format!("auth: {{ingress: {{web_config_file: '{}'}}}}\n", folder.text("web.yml"));
    (Server::start(driver, upstream.address, &extra), upstream)
}

#[test]
fn users_are_checked_before_the_body_is_read() {
    let folder = Folder::new();
    on_both(|driver| {
        let (server, upstream) =
            start(driver, &folder, &format!("basic_auth_users: {{alice: {}}}\n", hash("secret")));
        let mut client = server.client();
        client.send(b"POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
        let refused = client.response();
        assert_eq!(refused.status, 401);
        assert_eq!(refused.header("WWW-Authenticate"), Some("Basic realm=\"Tenantry\", charset=\"UTF-8\""));
        assert_eq!(refused.text().trim(), "unauthorized: credentials are required");
        assert!(client.is_closed());
        // A right password is checked once, and then known.
        let mut client = server.client();
        for _ in 0..3 {
            assert_eq!(client.push_with(&one("a"), &basic("alice", "secret")).status, 200);
        }
        assert_eq!(client.push_with(&one("a"), &basic("alice", "Secret")).status, 401);
        assert_eq!(upstream.received().len(), 3);
        // Probes of load balancers have no credentials.
        let mut client = server.client();
        client.send(b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response().status, 200);
        let two = format!("{0}{0}", basic("alice", "secret"));
        assert_eq!(server.client().push_with(&one("a"), &two).status, 400);
    });
}

#[test]
fn a_file_of_prometheus_gives_tls_users_and_headers() {
    let folder = Folder::new();
    folder.put_client("agent");
    on_both(|driver| {
        let web = format!(
            "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_ca_file: ca.pem\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [agent.example.com]\n  \
             min_version: TLS13\nbasic_auth_users: {{alice: {}}}\n\
             http_server_config: {{headers: {{X-Frame-Options: deny}}}}\n",
            hash("secret")
        );
        let (server, _upstream) = start(driver, &folder, &web);
        let rig = Credentials { folder: Folder::new(), issuer: crate::rig::Issuer::new() };
        let config = |san: &str| {
            let wanted = Wanted { dns_names: vec![san.into()], ..Wanted::client("agent") };
            folder.put_pair("client", &folder.authority.issue(&wanted).unwrap());
            for name in ["ca.pem", "client.pem", "client.key"] {
                std::fs::copy(folder.path(name), rig.folder.path(name)).unwrap();
            }
            rig.shows_client_certificate()
        };
        let mut client = connect(&server, &config("agent.example.com"));
        let response = client.push_with(&one("a"), &basic("alice", "secret"));
        assert_eq!((response.status, response.header("X-Frame-Options")), (200, Some("deny")));
        assert_eq!(client.push(&one("a")).status, 401);
        let tcp = std::net::TcpStream::connect(server.address).unwrap();
        let session = crate::support::tls::session(&config("other.example.com"));
        // In TLS 1.3 the client learns of it when it reads.
        let refused = Client::secure(tcp, session).map(|mut client| {
            client.try_send(b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n");
            let read = client.tls().read(&mut [0]);
            read.is_err()
        });
        assert!(!matches!(refused, Ok(false)));
        eventually("it is counted", || {
            server.metric("tenantry_tls_handshakes_total", "result=\"failed\"") == 1.0
        });
    });
}

#[test]
fn credentials_are_rotated_under_load_without_a_failed_request() {
    let rig = Credentials::new(&["alice"], &["agent"]);
    let rules = "- {for: [{user: alice}, {token: agent}], tenants: [a]}\n";
    on_both_at_once(|driver| {
        let (server, _upstream) = rig.start(driver, rules, "");
        let config = rig.without_certificate();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = connect(&server, &config);
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.push_with(&one("a"), &bearer(&token_of("agent"))).status, 200);
                }
            });
            let _end = Ends(&done);
            // Both tokens are accepted, then the new one only. The files change without a signal.
            let new = "another-bearer-token-0123456789abcdef";
            let works = |token: &str| connect(&server, &config).push_with(&one("a"), &bearer(token)).status;
            assert_eq!(works(new), 401);
            rig.folder.put(&format!("new-{}.token", driver.name()), new);
            let list = format!(
                "- {{name: agent, token_file: agent.token}}\n- {{name: agent, token_file: new-{}.token}}\n",
                driver.name()
            );
            rig.folder.put("tokens.yml", &list);
            let until = std::time::Instant::now() + Duration::from_secs(40);
            while works(new) != 200 {
                assert!(std::time::Instant::now() < until, "the new token is not accepted");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    });
}

#[test]
fn a_password_that_is_revoked_is_refused_at_once() {
    let folder = Folder::new();
    on_both(|driver| {
        let users = |password: &str| format!("basic_auth_users: {{alice: {}}}\n", hash(password));
        let (server, _upstream) = start(driver, &folder, &users("old"));
        let mut client = server.client();
        let mut status = |password: &str| client.push_with(&one("a"), &basic("alice", password)).status;
        assert_eq!(status("old"), 200);
        folder.put("web.yml", &users("new"));
        let log = server.reload().join("\n");
        assert!(log.contains("auth.ingress.web_config_file"), "{log}");
        assert_eq!(status("new"), 200);
        assert_eq!(status("old"), 401);
        // A file with mistakes changes nothing.
        folder.put("web.yml", "basic_auth_users: {alice: canary}\n");
        let log = server.reload().join("\n");
        assert!(log.contains("is not a bcrypt hash") && !log.contains("canary"), "{log}");
        assert_eq!(server.client().push_with(&one("a"), &basic("alice", "new")).status, 200);
    });
}

#[test]
fn an_emptied_file_lets_nobody_in() {
    let folder = Folder::new();
    on_both(|driver| {
        let web = format!("basic_auth_users: {{alice: {}}}\n", hash("secret"));
        let (server, _upstream) = start(driver, &folder, &web);
        assert_eq!(server.client().push(&one("a")).status, 401);
        folder.put("web.yml", "");
        let log = server.reload().join("\n");
        assert!(log.contains("web.yml has neither users nor TLS nor headers"), "{log}");
        assert_eq!(server.client().push(&one("a")).status, 401);
        assert_eq!(server.client().push_with(&one("a"), &basic("alice", "secret")).status, 200);
    });
}

#[test]
fn an_open_connection_ends_when_other_certificates_are_demanded() {
    let rig = Credentials::new(&["alice"], &["agent"]);
    let other = Folder::new();
    on_both(|driver| {
        rig.folder.put("ca.pem", &rig.folder.authority.certificate());
        let rules = "- {for: {certificate_cn: agent}, tenants: [a]}\n";
        let (server, _upstream) = rig.start(driver, rules, "");
        let mut agent = connect(&server, &rig.with_certificate(&Wanted::client("agent")));
        assert_eq!(agent.push(&one("a")).status, 200);
        server.reload();
        assert_eq!(agent.push(&one("a")).status, 200, "nothing has changed");
        // The authority that has issued its certificate is no longer trusted.
        rig.folder.put("ca.pem", &other.authority.certificate());
        server.reload();
        let ended = agent.push(&one("a"));
        assert_eq!(ended.status, 503);
        assert!(ended.text().contains("the demands of TLS have changed"), "{}", ended.text());
        assert!(agent.is_closed());
    });
}

#[test]
fn every_mistake_is_reported_at_once_and_nothing_listens() {
    let folder = Folder::new();
    folder.put("web.yml", "basic_auth_users: {alice: canary}\n");
    folder.put("tokens.yml", "");
    folder.put("jwks.json", "{\"keys\": []}");
    folder.put("access.yml", "- {for: {user: alice}, tenants: [a]}\n");
    folder.put("admin.yml", "tls_server_config: {cert_file: server.pem, key_file: missing.key}\n");
    let at = |name: &str| folder.text(name);
    let config = format!(
        "{}auth:\n  ingress:\n    web_config_file: '{}'\n    tokens_file: '{}'\n    jwt: {{jwks_file: '{}'}}\n  \
         admin: {{web_config_file: '{}', tokens_file: '{}'}}\naccess: '{}'\n",
        configuration(
            Driver::Epoll,
            "127.0.0.1:1",
            "tenant: {prefix_prefer_source: true}\ntarget_loki: 'http://'\n",
            free_port()
        ),
        at("web.yml"),
        at("tokens.yml"),
        at("jwks.json"),
        at("admin.yml"),
        at("missing.yml"),
        at("access.yml"),
    );
    folder.put("tenantry.yml", &config);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    let output =
        command.arg("--check-config").arg("--config").arg(folder.path("tenantry.yml")).output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(64), "{told}");
    for expected in [
        "web.yml:1: basic_auth_users.alice: is not a bcrypt hash",
        "tokens.yml:1: has no tokens",
        "jwks.json:1: has no key that can verify a signature",
        "missing.key can't be read",
        "missing.yml cannot be read",
        "target_loki: the host is missing",
        "tenant.prefix_prefer_source: lets a sender choose the prefix",
    ] {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
    assert!(!told.contains("canary"), "{told}");
}
