//! A real Prometheus writes over mutual TLS and with a password, through the server, to an upstream that demands mutual
//! TLS: stunnel.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::peers::start;
use crate::stunnel::Stunnel;
use crate::support::server::{free_port, on_both};
use crate::support::tls::Folder;
use crate::support::{Reply, Upstream};

/// A running Prometheus. Dropping it kills it.
struct Prometheus {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts one that scrapes itself. `None` where it is not installed, which it must be under CI.
    fn start(push: &str, tls_config: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (file, data, address) =
            (directory.path().join("p.yml"), directory.path().join("data"), free_port());
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
             remote_write:\n- url: {push}\n  queue_config: {{ batch_send_deadline: 1s }}\n  tls_config: {tls_config}\n  \
             basic_auth: {{ username: prometheus, password: secret }}\n\
             scrape_configs:\n- job_name: self\n  static_configs:\n  \
             - {{ targets: ['{address}'], labels: {{ tenant: payments }} }}\n"
        );
        std::fs::write(&file, config).unwrap();
        let spawned = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            assert!(std::env::var("CI").is_err(), "under CI, Debian's package prometheus must be installed");
            eprintln!("SKIPPED: there is no `prometheus` here (apt-get install prometheus)");
            return None;
        };
        Some(Self { child, _directory: directory })
    }
}

#[test]
fn prometheus_writes_over_mutual_tls_with_a_password() {
    let folder = Folder::new();
    folder.put_client("prometheus");
    folder.put_client("tenantry");
    let at = |name: &str| folder.text(name);
    let (ca, cert, key) = (at("ca.pem"), at("tenantry.pem"), at("tenantry.key"));
    folder.put(
        "web.yml",
        &format!("basic_auth_users: {{prometheus: {}}}\n", bcrypt::hash("secret", 4).unwrap()),
    );
    folder.put("access.yml", "- {for: {user: prometheus}, tenants: [payments]}\n");
    let ingress = folder.ingress(&[("client_auth", "require"), ("client_ca_file", ca.as_str())])
        + &format!("    web_config_file: '{}'\n", at("web.yml"));
    let access = format!("access: '{}'\n", at("access.yml"));
    let egress = folder.egress(&[("cert_file", cert.as_str()), ("key_file", key.as_str())]);
    let tls_config = format!(
        "{{ ca_file: '{ca}', cert_file: '{}', key_file: '{}' }}",
        at("prometheus.pem"),
        at("prometheus.key")
    );
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let Some(stunnel) = Stunnel::start(&folder, upstream.address, "") else { return };
        let target = format!("localhost:{}", stunnel.address.port());
        let server = start(driver, "https", target, &(ingress.clone() + &egress), &access);
        let push = format!("https://localhost:{}/push", server.address.port());
        let Some(_prometheus) = Prometheus::start(&push, &tls_config) else { return };
        let until = Instant::now() + Duration::from_secs(30);
        let scrapes =
            || upstream.of("payments").iter().filter(|r| r.names().contains(&"up".to_owned())).count();
        while scrapes() < 2 {
            assert!(Instant::now() < until, "nothing has come: {:?}", upstream.received().len());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(upstream.received().len(), upstream.of("payments").len());
        let counted =
            server.metric("tenantry_credential_requests_total", "kind=\"user\",name=\"prometheus\"");
        assert!(counted >= 2.0, "{counted}");
        assert_eq!(server.metric("tenantry_replies_total", "code=\"4"), 0.0);
        assert_eq!(server.metric("tenantry_replies_total", "code=\"5"), 0.0);
        assert_eq!(server.metric("tenantry_tls_handshakes_total", "result=\"failed\""), 0.0);
    });
}
