//! TLS at both ends: senders and sinks with certificates from files, and the proofs over TLS.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use loadgen::fleet::{Fleet, FleetConfig, numbered_tenants};
use loadgen::send::{Handshake, Outcome, Progress, SendConfig, send};
use loadgen::sink::{Arrival, Reply, Sink, SinkConfig};
use loadgen::tls::{Certificates, Credentials};
use support::{loadgen, refuses, stdout, text};
use tempfile::TempDir;

const REQUESTS: u64 = 20;

/// A sink that asks for certificates, and notes the header of each request that says who its sender is.
struct TlsSink {
    dir: TempDir,
    sink: Sink,
    authorizations: Arc<Mutex<Vec<Option<String>>>>,
}

impl TlsSink {
    fn start(is_mutual: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Certificates::issue(dir.path()).unwrap();
        let authorizations: Arc<Mutex<Vec<_>>> = Arc::default();
        let noted = Arc::clone(&authorizations);
        let script = move |arrival: &Arrival<'_>| {
            noted.lock().unwrap().push(arrival.headers.get("authorization").map(str::to_owned));
            Reply::default()
        };
        let file = |name: &str| Some(dir.path().join(name));
        let sink = Sink::start(SinkConfig {
            tls_cert: file("server.pem"),
            tls_key: file("server.pem.key"),
            client_ca: file("ca.pem").filter(|_| is_mutual),
            script: Some(Arc::new(script)),
            ..SinkConfig::default()
        });
        Self { sink: sink.unwrap(), dir, authorizations }
    }

    fn credentials(&self, certificate: &str) -> Credentials {
        let file = |name: &str| Some(self.dir.path().join(name));
        let (cert, key) = (file(&format!("{certificate}.pem")), file(&format!("{certificate}.pem.key")));
        Credentials { ca: file("ca.pem"), cert, key, ..Credentials::default() }
    }

    fn anonymous(&self) -> Credentials {
        Credentials { ca: Some(self.dir.path().join("ca.pem")), ..Credentials::default() }
    }

    /// Sends with two senders.
    fn send(&self, credentials: Credentials, new_connections: Option<Handshake>) -> Outcome {
        let config = SendConfig {
            url: self.sink.url().parse().unwrap(),
            headers: vec![("X-Scope-OrgID".to_owned(), "team-000".to_owned())],
            requests: Some(REQUESTS),
            credentials,
            new_connections,
            ..SendConfig::default()
        };
        let tenants = numbered_tenants(1);
        // More than one record of TLS.
        let fleet = FleetConfig { senders: 2, series: 2000, tenants, ..FleetConfig::default() };
        let fleet = Fleet::build(&fleet).unwrap();
        send(&fleet, &config.ready().unwrap(), &Progress::default(), |_| {}).unwrap()
    }
}

#[test]
fn both_sides_prove_who_they_are() {
    let sink = TlsSink::start(true);
    let outcome = sink.send(sink.credentials("client"), None);
    assert_eq!(outcome.acknowledged(), REQUESTS, "{:?}", outcome.complaints);
    assert_eq!(sink.sink.snapshot().total().stored, outcome.acknowledged_tally());

    let anonymous = sink.send(sink.anonymous(), None);
    assert_eq!(anonymous.acknowledged(), 0);
    let complaint = &anonymous.complaints[&0];
    assert!(complaint.to_lowercase().contains("certificate"), "{complaint}");
    assert_eq!(sink.sink.snapshot().requests, REQUESTS);
}

#[test]
fn an_authority_that_is_not_trusted_gets_nothing() {
    let (sink, other) = (TlsSink::start(false), TlsSink::start(false));
    let outcome = sink.send(other.anonymous(), None);
    assert_eq!((outcome.acknowledged(), sink.sink.snapshot().requests), (0, 0));
    assert!(outcome.complaints[&0].contains("certificate"), "{:?}", outcome.complaints);
}

#[test]
fn senders_say_who_they_are() {
    let sink = TlsSink::start(false);
    let user = (Some("prom".to_owned()), Some("s3cret".to_owned()));
    sink.send(Credentials { user: user.0, password: user.1, ..sink.anonymous() }, None);
    sink.send(Credentials { bearer: Some("t0ken".to_owned()), ..sink.anonymous() }, None);
    sink.send(sink.anonymous(), None);
    let seen = sink.authorizations.lock().unwrap();
    let each = usize::try_from(REQUESTS).unwrap();
    let expected = [Some("Basic cHJvbTpzM2NyZXQ="), Some("Bearer t0ken"), None];
    for (seen, expected) in seen.chunks(each).zip(expected) {
        assert!(seen.iter().all(|header| header.as_deref() == expected), "{expected:?}: {seen:?}");
    }
    assert_eq!(seen.len(), 3 * each);
}

#[test]
fn each_request_may_have_a_connection_of_its_own() {
    let sink = TlsSink::start(false);
    sink.send(sink.anonymous(), None);
    let kept = sink.sink.snapshot().connections;
    assert_eq!(kept, 2);
    for kind in [Handshake::Full, Handshake::Resumed] {
        let before = sink.sink.snapshot().connections;
        let outcome = sink.send(sink.anonymous(), Some(kind));
        assert_eq!(outcome.acknowledged(), REQUESTS, "{:?}", outcome.complaints);
        // Senders connect before the clock starts, and then anew.
        assert_eq!(sink.sink.snapshot().connections - before, REQUESTS + 2, "{kind:?}");
    }
}

#[test]
fn the_command_line_speaks_tls() {
    let sink = TlsSink::start(true);
    let path = |name: &str| sink.dir.path().join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("client.pem"), path("client.pem.key"));
    let (url, stats) = (sink.sink.url(), sink.sink.url().replace("/api/v1/push", "/stats"));
    let to = ["send", "--url", &url, "--requests", "5", "--tenants", "a", "--header", "X-Scope-OrgID=a"];
    let client = ["--ca", &ca, "--cert", &cert, "--key", &key, "--verify", &stats];
    let output = loadgen(&[&to[..], &client].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(stdout(&output).contains("every acknowledged sample is stored"), "{}", text(&output));
    let nowhere = Path::new(&ca).with_extension("none");
    refuses(&[
        (&to, "an https URL needs --ca"),
        (&[&to[..], &["--ca", nowhere.to_str().unwrap()]].concat(), "ca.none: "),
        (&[&to[..], &["--ca", &key]].concat(), "there is no certificate in it"),
        (&[&to[..], &["--ca", &ca, "--cert", &cert]].concat(), "--key"),
        (&[&to[..], &["--ca", &ca, "--bearer", "t", "--user", "u", "--password", "p"]].concat(), "--bearer"),
        (&["sink", "--tls-cert", &cert], "--tls-key"),
        (&["sink", "--listen", "127.0.0.1:0", "--tls-cert", &ca, "--tls-key", &key], "ca.pem: "),
    ]);
}

/// Through the real server, with certificates on both sides of both connections.
#[test]
fn the_proofs_hold_over_tls() {
    let output = loadgen(&["verify", "--tls", "--requests", "40", "--settle", "0s"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(stdout(&output).contains("every acknowledged sample is stored where it belongs"));

    let output = loadgen(&["chaos", "--tls", "--seed", "1", "--minutes", "0.15"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = loadgen(&["chaos", "--tls", "--seed", "1", "--minutes", "0.03", "--steal", "lose"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(stdout(&output).contains("\nlost "), "{}", text(&output));
}

#[test]
fn trials_run_over_tls() {
    let isolation = loadgen(&["trial", "isolation", "--tls", "--seconds", "0.3", "--rounds", "1"]);
    let text = text(&isolation);
    assert!(matches!(isolation.status.code(), Some(0 | 1)), "{text}");
    assert!(text.lines().any(|line| line.starts_with("refused")), "{text}");
}

/// Whether the rate is reached depends on the machine.
#[test]
fn handshakes_are_weighed() {
    for mutual in [&["--rate", "50"][..], &["--rate", "50", "--mutual"]] {
        let args = ["trial", "handshakes", "--seconds", "0.5", "--rounds", "1"];
        let output = loadgen(&[&args[..], mutual].concat());
        let text = text(&output);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{text}");
        for claim in ["every push over a new connection is acknowledged", "sessions are resumed"] {
            assert!(text.contains(&format!("✓ holds: {claim}")), "{text}");
        }
        assert!(text.lines().any(|line| line.starts_with("new, full handshake")), "{text}");
    }
}
