//! Secrets never appear: a run with canaries in every place for a secret, then a search in all that the server emits.

use serde_json::json;

use crate::rig::{Credentials, basic, bearer, connect};
use crate::support::server::on_both;
use crate::support::{Client, body, one, series};

fn page(server: &crate::support::Server, path: &str) -> String {
    let mut client = Client::connect(server.metrics);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
    client.response().text()
}

#[test]
fn no_secret_is_in_a_log_an_answer_a_page_or_a_request_to_the_upstream() {
    let rig = Credentials::new(&["canary-free"], &["agent"]);
    rig.folder
        .put("web.yml", &format!("basic_auth_users: {{alice: {}}}\n", crate::rig::hash("canary-right")));
    rig.folder.put("tokens.yml", "- {name: agent, token_file: agent.token}\n");
    rig.folder.put("agent.token", "canary-token-0123456789abcdef");
    let rules = "- {for: [{user: alice}, {token: agent}], tenants: [a]}\n";
    on_both(|driver| {
        let extra = "log_response_errors: true\n\
                     target_loki: 'http://127.0.0.1:1/?token=canary-query'\n\
                     upstream: {headers: {X-Api-Key: canary-upstream-key}}\n";
        let (server, upstream) = rig.start(driver, rules, extra);
        let config = rig.without_certificate();
        let token = rig.issuer.token(json!({"sub": "canary-subject", "exp": 1_000_000}));
        let cookie = "Cookie: session=canary-cookie\r\nProxy-Authorization: Basic canary-proxy\r\n";
        let mut answers = String::new();
        let mixed = body(vec![series("a", "up", 1.0), series("b", "up", 1.0)]);
        for (header, body) in [
            (basic("alice", "canary-right"), one("a")),
            (basic("alice", "canary-right"), mixed),
            (basic("alice", "canary-wrong"), one("a")),
            (basic("canary-user-by-mistake", "x"), one("a")),
            (bearer("canary-token-0123456789abcdef"), one("a")),
            (bearer("canary-unknown-token-0123456789"), one("a")),
            (bearer(&token), one("a")),
            ("Authorization: Basic canary-not-base64\r\n".into(), one("a")),
            ("Authorization: canary-scheme canary\r\n".into(), one("a")),
            ("Authorization: canary\r\nAuthorization: canary\r\n".into(), one("a")),
        ] {
            let response = connect(&server, &config).push_with(&body, &(header + cookie));
            answers += &format!("{} {:?} {}\n", response.status, response.headers, response.text());
        }
        assert_eq!(upstream.received().len(), 2);
        let own = ["x-api-key"];
        for request in upstream.received() {
            for (name, value) in &request.headers.0 {
                let is_own = own.contains(&name.to_ascii_lowercase().as_str());
                assert!(is_own || !value.contains("canary"), "{name}: {value}");
            }
        }
        let reloaded = server.reload().join("\n");
        let pages: String = ["/", "/metrics", "/debug/threads", "/alive", "/canary-free"]
            .iter()
            .map(|path| page(&server, path))
            .collect();
        let log = server.log().join("\n");
        assert!(log.contains("a request was refused for its credentials"), "{log}");
        let token_parts = token.split('.').map(str::to_owned).collect::<Vec<_>>();
        for (what, text) in [("answers", &answers), ("log", &log), ("reload", &reloaded), ("pages", &pages)] {
            assert!(!text.contains("canary"), "{what}: {text}");
            assert!(!text.contains(&token_parts[2]), "{what}: the signature of a JWT");
            // The values of headers as they were sent.
            for encoded in ["Y2FuYXJ5", "jYW5hcnk", "NhbmFye"] {
                assert!(!text.contains(encoded), "{what}: {encoded}");
            }
        }
    });
}
