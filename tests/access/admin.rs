//! TLS and credentials of the admin listeners.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::rig::{basic, bearer, hash};
use crate::support::server::{configuration, free_port, on_both};
use crate::support::tls::{Folder, client_config};
use crate::support::{Client, Driver, Response};

/// A running server, whose `/metrics` cannot be read without credentials. Dropping it kills it.
struct Started(std::process::Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(driver: Driver, folder: &Folder, extra: &str) -> (Started, std::net::SocketAddr) {
    let metrics = free_port();
    let config = configuration(driver, "127.0.0.1:1", extra, metrics);
    folder.put("tenantry.yml", &config);
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_tenantry"))
        .arg("--config")
        .arg(folder.path("tenantry.yml"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(metrics).is_err() {
        assert!(Instant::now() < until, "it does not listen");
        std::thread::sleep(Duration::from_micros(100));
    }
    (Started(child), metrics)
}

fn get(client: &mut Client, path: &str, header: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n").as_bytes());
    client.response()
}

#[test]
fn pages_need_credentials_over_tls() {
    let folder = Folder::new();
    folder.put(
        "web.yml",
        &format!(
            "tls_server_config: {{cert_file: server.pem, key_file: server.key}}\nbasic_auth_users: {{ops: {}}}\n\
             http_server_config: {{headers: {{X-Frame-Options: deny}}}}\n",
            hash("secret")
        ),
    );
    folder.put("tokens.yml", "- {name: prometheus, token_file: token}\n");
    folder.put("token", "the-token-of-prometheus-0123456789\n");
    let pprof = free_port();
    let extra = format!(
        "listen_pprof: {pprof}\nauth: {{admin: {{web_config_file: '{}', tokens_file: '{}'}}}}\n",
        folder.text("web.yml"),
        folder.text("tokens.yml")
    );
    let config = client_config(&folder);
    on_both(|driver| {
        let (_server, metrics) = start(driver, &folder, &extra);
        for address in [metrics, pprof] {
            let ask =
                |path: &str, header: &str| get(&mut Client::connect_tls(address, &config), path, header);
            for path in ["/metrics", "/", "/debug/threads", "/nothing"] {
                let refused = ask(path, "");
                assert_eq!(refused.status, 401, "{path}");
                assert!(!refused.text().contains("tenantry_"), "{path}");
                assert_eq!(refused.header("X-Frame-Options"), Some("deny"));
                assert!(refused.header("WWW-Authenticate").is_some());
                assert_eq!(ask(path, &basic("ops", "wrong")).status, 401, "{path}");
            }
            for header in [basic("ops", "secret"), bearer("the-token-of-prometheus-0123456789")] {
                let page = ask("/metrics", &header);
                assert_eq!(page.status, 200);
                let days = "tenantry_tls_certificate_days_left{direction=\"admin\"}";
                assert!(page.text().contains(days), "{}", page.text());
            }
            assert_eq!(ask("/alive", "").status, 200, "probes have no credentials");
            // Plain HTTP gets one line.
            let mut plain = Client::connect(address);
            assert_eq!(get(&mut plain, "/alive", "").status, 400);
        }
    });
}

/// The listener is there before the server is. A client that connects at once is answered when its credentials can be
/// checked.
#[test]
fn the_first_scrape_is_answered_like_any_other() {
    let folder = Folder::new();
    folder.put("web.yml", &format!("basic_auth_users: {{ops: {}}}\n", hash("secret")));
    let extra = format!("auth: {{admin: {{web_config_file: '{}'}}}}\n", folder.text("web.yml"));
    on_both(|driver| {
        for _ in 0..5 {
            let (_server, metrics) = start(driver, &folder, &extra);
            let answer = get(&mut Client::connect(metrics), "/metrics", &basic("ops", "secret"));
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    });
}

#[test]
fn silent_and_wrong_clients_keep_no_scrape_out() {
    let folder = Folder::new();
    folder.put(
        "web.yml",
        &format!(
            "tls_server_config: {{cert_file: server.pem, key_file: server.key}}\nbasic_auth_users: {{ops: {}}}\n",
            bcrypt::hash("secret", 10).unwrap()
        ),
    );
    let extra = format!("auth: {{admin: {{web_config_file: '{}'}}}}\n", folder.text("web.yml"));
    let config = client_config(&folder);
    on_both(|driver| {
        let (_server, metrics) = start(driver, &folder, &extra);
        let scrape = || get(&mut Client::connect_tls(metrics, &config), "/metrics", &basic("ops", "secret"));
        assert_eq!(scrape().status, 200);
        // More than the listener serves at once: silent ones, and some that stop within their first record.
        let crowd: Vec<_> = (0..100)
            .map(|number| {
                let mut client = TcpStream::connect(metrics).unwrap();
                if number % 2 == 0 {
                    client.write_all(&[22, 3, 1, 0]).unwrap();
                }
                client
            })
            .collect();
        let began = Instant::now();
        assert_eq!(scrape().status, 200);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(crowd);
        for number in 0..20 {
            let wrong = basic("ops", &format!("wrong-{number}"));
            let mut client = Client::connect_tls(metrics, &config);
            assert!(matches!(get(&mut client, "/metrics", &wrong).status, 401 | 503));
        }
        assert_eq!(scrape().status, 200, "a right password is remembered");
    });
}
