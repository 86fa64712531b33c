//! The commands as a person runs them: what they print and what they exit with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use clap::ValueEnum as _;
use loadgen::child::{send_signal, wait_for};
use loadgen::client::get;
use loadgen::fleet::Format;
use loadgen::port::free_addr;
use loadgen::sink::{Reply, Sink, SinkConfig, Snapshot};
use support::{loadgen, refuses, stdout, text};

/// `loadgen sink` on a free port.
struct SinkCommand {
    child: Child,
    out: BufReader<ChildStdout>,
    url: String,
}

impl SinkCommand {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["sink", "--listen", "127.0.0.1:0", "--every", "0s"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let url = line.split_whitespace().nth(2).unwrap().trim_end_matches(',').to_owned();
        Self { child, out, url }
    }

    fn stats_url(&self) -> String {
        self.url.replace("/api/v1/push", "/stats")
    }

    /// Ends it with SIGTERM and returns what it printed.
    fn end(mut self) -> String {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        text
    }
}

#[test]
fn send_verifies_against_a_sink_command() {
    let sink = SinkCommand::start();
    let pid = sink.child.id().to_string();
    let (url, stats) = (sink.url.clone(), sink.stats_url());
    let send = |header: &str, prefix: &str| {
        let to = ["send", "--url", &url, "--header", header, "--prefix", prefix, "--verify", &stats];
        let what = ["--series", "100", "--tenants", "1", "--requests", "40", "--server-pid", &pid];
        loadgen(&[&to[..], &what].concat())
    };
    // The sink is not told of the prefix, so it finds all series under a tenant that is not theirs.
    let output = send("X-Scope-OrgID=eu-team-000", "eu-");
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("team-000: series of other tenants are there"), "{}", stdout(&output));

    let output = send("X-Scope-OrgID=team-000", "");
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("verified   1 tenant: every acknowledged sample is stored"), "{text}");
    assert!(text.contains("answers    200: 40\n") && text.contains("server     CPU "), "{text}");

    let table = sink.end();
    assert!(
        table.contains("\nteam-000 ") && table.contains("\neu-team-000 ") && table.contains("\ntotal "),
        "{table}"
    );
}

#[test]
fn send_exits_with_1_when_told_to_fail_on_errors() {
    let script = |_: &loadgen::sink::Arrival<'_>| Reply::new(503, "not now");
    let config = SinkConfig { script: Some(std::sync::Arc::new(script)), ..SinkConfig::default() };
    let sink = Sink::start(config).unwrap();
    let url = sink.url();
    let args =
        ["send", "--url", &url, "--header", "X-Scope-OrgID=a", "--requests", "5", "--series", "50", "--json"];
    let output = loadgen(&args);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["statuses"], serde_json::json!({ "503": 5 }));
    assert_eq!(report["complaints"]["503"], "not now");
    assert_eq!((&report["requests"], &report["failed"]), (&5.into(), &5.into()));
    assert_eq!(loadgen(&[&args[..], &["--fail-on-error"]].concat()).status.code(), Some(1));
}

#[test]
fn send_says_what_is_wrong_with_its_arguments() {
    refuses(&[
        (&["send", "--url", "ftp://a/"], "begins with http:// or https://"),
        (&["send", "--tenants", "a,a"], "`a` is there twice"),
        (&["send", "--rate", "0"], "no number above 0"),
        (&["send", "--verify", "http://127.0.0.1:1/stats", "--requests", "1"], "--verify: no answer from"),
        (&["send", "--server-pid", "4000000", "--requests", "1"], "no such process"),
    ]);
}

#[test]
fn a_sink_command_shows_its_counts_as_json() {
    let sink = SinkCommand::start();
    let url: loadgen::client::Url = sink.stats_url().parse().unwrap();
    let (status, body) = loadgen::client::get(&url, std::time::Duration::from_secs(5)).unwrap();
    assert_eq!(status, 200);
    let counts: Snapshot = serde_json::from_slice(&body).unwrap();
    assert_eq!((counts.requests, counts.connections), (0, 1));
    sink.end();
}

/// Stamped samples straight to a sink: 3 tenants, 2 senders, 60 requests.
fn verify(sink: &SinkCommand, more: &[&str]) -> Output {
    let account = sink.url.replace("/api/v1/push", "/account");
    let args =
        ["verify", "--url", &sink.url, "--sink", &account, "--tenant-header", "X-Scope-OrgID", "--tenants"];
    let rest = ["a,b,c", "--senders", "2", "--requests", "60", "--series", "4", "--settle", "0s"];
    loadgen(&[&args[..], &rest, more].concat())
}

#[test]
fn verify_finds_nothing_with_an_honest_sink() {
    let sink = SinkCommand::start_with(&["--account"]);
    // Twice: what the first has left behind is nothing to the second.
    for _ in 0..2 {
        let output = verify(&sink, &[]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(
            text.contains("sent       60 requests in ") && text.contains("answers    200: 60\n"),
            "{text}"
        );
        assert!(text.contains("samples    240 acknowledged, 240 stored\n"), "{text}");
        assert!(text.contains("verified   every acknowledged sample is stored where it belongs"), "{text}");
    }
    sink.end();
}

#[test]
fn verify_finds_what_a_faulty_sink_does() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let rules = "rules:\n- {tenant: a, share: 0.3, lose: true}\n- {tenant: b, share: 0.3, duplicate: true}\n\
        - {tenant: c, share: 0.2, misplace: d}\n- {tenant: c, share: 0.4, reorder: true}\n";
    std::fs::write(file.path(), rules).unwrap();
    let sink = SinkCommand::start_with(&["--account", "--faults", file.path().to_str().unwrap()]);
    let output = verify(&sink, &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("verified   NO\n"), "{text}");
    let found = |name: &str, tenant: &str| {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(name));
        let example = lines.nth(1).unwrap_or_else(|| panic!("no {name}: {text}"));
        assert!(example.trim_start().starts_with(&format!("{tenant}: sender ")), "{text}");
    };
    for (name, tenant) in [("lost", "a"), ("duplicated", "b"), ("misplaced", "c"), ("reordered", "c")] {
        found(name, tenant);
    }
    assert!(!text.contains("invented") && !text.contains("damaged"), "{text}");
    sink.end();
}

#[test]
fn verify_and_sink_say_what_is_wrong_with_their_arguments() {
    let sink = SinkCommand::start();
    let output = verify(&sink, &[]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && error.contains("was the sink started with --account?"),
        "{error}"
    );
    sink.end();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "rules:\n- {share: 0.3}\n").unwrap();
    let wrong = file.path().to_str().unwrap();
    refuses(&[
        (&["sink", "--faults", wrong], "line 2: the rule has no fault"),
        (&["sink", "--faults", "/nowhere"], "--faults: cannot read /nowhere"),
        (&["verify", "--tenant-header", "a b"], "cannot be a header's name"),
        (&["verify", "--sink", "http://127.0.0.1:1/account"], "--sink: no answer from"),
    ]);
}

/// The real server, which splits, in front of a sink command.
struct ServerCommand {
    child: Child,
    url: String,
}

impl ServerCommand {
    fn start(sink: &SinkCommand) -> Self {
        let (listen, metrics) = (free_addr().unwrap(), free_addr().unwrap());
        let origin = sink.url.replace("/api/v1/push", "");
        let environment = [
            ("CT_LISTEN", listen.to_string()),
            ("CT_LISTEN_METRICS_ADDRESS", metrics.to_string()),
            ("CT_TARGET", sink.url.clone()),
            ("CT_TARGET_LOKI", format!("{origin}/loki/api/v1/push")),
            ("CT_TARGET_OTLP_METRICS", format!("{origin}/v1/metrics")),
            ("CT_TARGET_OTLP_LOGS", format!("{origin}/v1/logs")),
            ("CT_TARGET_OTLP_TRACES", format!("{origin}/v1/traces")),
            ("CT_TENANT_LABEL", "__tenant__".to_owned()),
            ("CT_LOG_LEVEL", "warn".to_owned()),
        ];
        let child =
            Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("server").envs(environment).spawn().unwrap();
        let alive = format!("http://{metrics}/alive").parse().unwrap();
        let is_alive = || matches!(get(&alive, Duration::from_secs(5)), Ok((200, _)));
        assert!(wait_for(Duration::from_secs(10), is_alive));
        Self { child, url: format!("http://{listen}") }
    }

    fn end(mut self) {
        send_signal(self.child.id(), rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

/// What each format says arrives, whatever the server does to it.
#[test]
fn send_and_verify_prove_every_format_through_the_server() {
    let sink = SinkCommand::start_with(&["--account"]);
    let server = ServerCommand::start(&sink);
    let (stats, account) = (sink.stats_url(), sink.url.replace("/api/v1/push", "/account"));
    for &format in Format::value_variants() {
        let format = format.to_string();
        let common = ["--url", &server.url, "--format", &format, "--tenants", "4", "--senders", "4"];
        let what =
            ["--series", "200", "--samples", "2", "--requests", "60", "--fail-on-error", "--verify", &stats];
        let output = loadgen(&[&["send"], &common[..], &what].concat());
        let told = text(&output);
        assert_eq!(output.status.code(), Some(0), "{format}: {told}");
        assert!(told.contains("4 tenants: every acknowledged sample is stored, once, unchanged"), "{told}");

        let what = ["--series", "30", "--requests", "60", "--settle", "0s", "--sink", &account];
        let output = loadgen(&[&["verify"], &common[..], &what].concat());
        let told = text(&output);
        assert_eq!(output.status.code(), Some(0), "{format}: {told}");
        assert!(told.contains("samples    7,200 acknowledged, 7,200 stored\n"), "{format}: {told}");
        assert!(told.contains("none is lost, duplicated, misplaced, reordered or invented"), "{told}");
    }
    server.end();
    sink.end();
}

#[test]
fn the_demo_of_all_signals_proves_each() {
    let output = loadgen(&["demo", "--seconds", "2", "--senders", "5", "--all-signals"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for signal in ["remote write", "Loki", "OTLP metrics", "OTLP logs", "OTLP traces"] {
        let row = text
            .lines()
            .find(|line| line.starts_with(signal))
            .unwrap_or_else(|| panic!("no {signal}: {text}"));
        assert!(row.contains("✓ equal for 5 tenants"), "{row}");
    }
    assert!(text.contains("acknowledged samples arrived once, unchanged"), "{text}");
    assert!(text.contains("server     CPU ") && text.contains("SIGTERM, then exit 0"), "{text}");
    assert!(!text.contains('\x1b'), "escape codes where no terminal is: {text:?}");
}

/// The whole path, through the real server: the demo proves itself, and says so without a single escape code.
#[test]
fn the_demo_proves_that_every_sample_arrived() {
    let output = loadgen(&["demo", "--seconds", "2", "--senders", "4"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for tenant in ["payments", "checkout", "search", "observability", "kube-system"] {
        let row = text
            .lines()
            .find(|line| line.starts_with(tenant))
            .unwrap_or_else(|| panic!("no {tenant}: {text}"));
        assert!(row.contains('✓'), "{row}");
    }
    assert!(text.contains("acknowledged samples arrived once, unchanged"), "{text}");
    assert!(text.contains("SIGTERM, then exit 0"), "{text}");
    assert!(!text.contains('\x1b'), "escape codes where no terminal is: {text:?}");
}
