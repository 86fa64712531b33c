//! The senders that speak TLS and are not ours.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use crate::support::server::{configuration, free_port};
use crate::support::tls::Folder;
use crate::support::{Driver, Server};

/// Starts a server. `scheme` is that of the target, `auth` what is below that key, `extra` more YAML.
pub(crate) fn start(
    driver: Driver,
    scheme: &str,
    target: impl std::fmt::Display,
    auth: &str,
    extra: &str,
) -> Server {
    let metrics = free_port();
    let config = configuration(driver, target, &format!("auth:\n{auth}{extra}"), metrics);
    Server::start_with(&config.replace("target: http://", &format!("target: {scheme}://")), metrics, &[])
}

/// Runs a program to its end with this input. It must be installed under CI; `None` where it is not.
pub(crate) fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        assert!(std::env::var("CI").is_err(), "under CI, {program} must be installed");
        eprintln!("SKIPPED: there is no `{program}` here");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    // A program that is refused ends before it has read all.
    let _ = stdin.write_all(input);
    drop(stdin);
    Some(child.wait_with_output().unwrap())
}

/// What `openssl s_client` says of a connection over which it asks for `/alive`. It trusts `ca.pem`.
pub(crate) fn openssl(folder: &Folder, address: SocketAddr, arguments: &[&str]) -> Option<String> {
    let (address, ca) = (address.to_string(), folder.text("ca.pem"));
    let fixed = ["s_client", "-connect", &address, "-CAfile", &ca, "-ign_eof"];
    let request = b"GET /alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let output = run("openssl", &[&fixed, arguments].concat(), request)?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The status that curl gets for `/alive`, or else what it says went wrong. It trusts `ca.pem`.
pub(crate) fn curl(folder: &Folder, address: SocketAddr, arguments: &[&str]) -> Option<Result<u16, String>> {
    let (ca, url) = (folder.text("ca.pem"), format!("https://localhost:{}/alive", address.port()));
    let fixed =
        ["-sS", "-m", "20", "--noproxy", "*", "--cacert", &ca, "-o", "/dev/null", "-w", "%{http_code}"];
    let output = run("curl", &[&fixed, arguments, &[&url]].concat(), b"")?;
    if output.status.success() {
        Some(Ok(String::from_utf8_lossy(&output.stdout).parse().unwrap()))
    } else {
        Some(Err(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}
