//! An upstream whose TLS is neither ours nor rustls': stunnel with OpenSSL, in front of the scripted upstream.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::peers::start;
use crate::support::server::{Server, free_port};
use crate::support::tls::Folder;
use crate::support::{Driver, Ends, Reply, Upstream, eventually, on_both, on_both_at_once, one};

/// A running stunnel. Dropping it kills it.
pub(crate) struct Stunnel {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Stunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stunnel {
    /// Starts one that demands certificates of the folder's authority. `more` are settings of its service.
    pub(crate) fn start(folder: &Folder, to: SocketAddr, more: &str) -> Option<Self> {
        let address = free_port();
        let at = |name: &str| folder.text(name);
        let config = format!(
            "foreground = yes\npid =\nsyslog = no\noutput = {}\n[upstream]\naccept = {address}\nconnect = {to}\n\
             cert = {}\nkey = {}\nCAfile = {}\nverifyChain = yes\nrequireCert = yes\n{more}",
            at("stunnel.log"),
            at("server.pem"),
            at("server.key"),
            at("ca.pem"),
        );
        folder.put("stunnel.conf", &config);
        let spawned = Command::new("stunnel")
            .arg(folder.path("stunnel.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            assert!(std::env::var("CI").is_err(), "under CI, stunnel must be installed");
            eprintln!("SKIPPED: there is no `stunnel` here");
            return None;
        };
        let stunnel = Self { child, address };
        eventually("stunnel listens", || TcpStream::connect(address).is_ok());
        Some(stunnel)
    }
}

/// A server with a certificate for its target.
fn sending(driver: Driver, folder: &Folder, stunnel: &Stunnel, extra: &str) -> Server {
    let (cert, key) = (folder.text("tenantry.pem"), folder.text("tenantry.key"));
    let auth = folder.egress(&[("cert_file", cert.as_str()), ("key_file", key.as_str())]);
    start(driver, "https", format!("localhost:{}", stunnel.address.port()), &auth, extra)
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.put_client("tenantry");
    folder
}

#[test]
fn requests_pass_over_mutual_tls_in_either_version() {
    let folder = folder();
    on_both(|driver| {
        for version in ["TLSv1.2", "TLSv1.3"] {
            let upstream = Upstream::start(|_| Reply::ok());
            let more = format!("sslVersion = {version}\n");
            let Some(stunnel) = Stunnel::start(&folder, upstream.address, &more) else { return };
            let server = sending(driver, &folder, &stunnel, "");
            for _ in 0..20 {
                assert_eq!(server.client().push(&one("a")).status, 200, "{version}");
            }
            assert_eq!(upstream.of("a").len(), 20);
            let bare = start(driver, "https", stunnel.address, &folder.egress(&[]), "");
            let response = bare.client().push(&one("a"));
            assert_eq!(response.status, 502, "{version}");
            assert!(response.text().contains("the peer refused"), "{version}: {}", response.text());
        }
    });
}

#[test]
fn the_certificate_of_the_server_is_renewed_without_a_failed_request() {
    on_both_at_once(|driver| {
        let (folder, stop) = (folder(), AtomicBool::new(false));
        let upstream = Upstream::start(|_| Reply::ok());
        let Some(stunnel) = Stunnel::start(&folder, upstream.address, "") else { return };
        let server = sending(driver, &folder, &stunnel, "max_connection_duration: 50ms\n");
        let push = || {
            let (mut client, mut pushed) = (server.client(), 0);
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(client.push(&one("a")).status, 200);
                pushed += 1;
            }
            pushed
        };
        std::thread::scope(|scope| {
            let ends = Ends(&stop);
            let pushed = scope.spawn(push);
            for _ in 0..5 {
                folder.put_client("tenantry");
                server.reload();
                std::thread::sleep(Duration::from_millis(200));
            }
            drop(ends);
            let pushed: usize = pushed.join().unwrap();
            assert_eq!(upstream.received().len(), pushed);
        });
    });
}
