//! Senders against a sink, without a server between them: what is acknowledged is stored, and what is not is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loadgen::audit::{Comparison, Verdict};
use loadgen::fleet::{Fleet, FleetConfig, numbered_tenants};
use loadgen::process::Process;
use loadgen::proto::WriteRequest;
use loadgen::send::{Outcome, Progress, RetryRules, SendConfig, send};
use loadgen::sink::{Arrival, Close, Reply, Sink, SinkConfig, Snapshot};

/// One tenant, since nothing here splits.
fn small(senders: usize) -> FleetConfig {
    FleetConfig {
        senders,
        bodies_per_sender: 3,
        series: 50,
        tenants: numbered_tenants(1),
        ..FleetConfig::default()
    }
}

fn fleet(senders: usize) -> Fleet {
    Fleet::build(&small(senders)).unwrap()
}

const PROMETHEUS: Option<RetryRules> = Some(RetryRules::prometheus(false));

fn to(sink: &Sink) -> SendConfig {
    SendConfig {
        url: sink.url().parse().unwrap(),
        headers: vec![("X-Scope-OrgID".to_owned(), "team-000".to_owned())],
        duration: Some(Duration::from_secs(20)),
        timeout: Duration::from_secs(5),
        ..SendConfig::default()
    }
}

fn sink(script: impl Fn(&Arrival<'_>) -> Reply + Send + Sync + 'static) -> Sink {
    Sink::start(SinkConfig { script: Some(Arc::new(script)), ..SinkConfig::default() }).unwrap()
}

/// A sink that takes all, and what `note` says of each request.
fn noting<T: Send + 'static>(
    note: impl Fn(&Arrival<'_>) -> T + Send + Sync + 'static,
) -> (Sink, Arc<Mutex<Vec<T>>>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&notes);
    let sink = sink(move |arrival| {
        noted.lock().unwrap().push(note(arrival));
        Reply::default()
    });
    (sink, notes)
}

fn run(fleet: &Fleet, config: &SendConfig) -> Outcome {
    send(fleet, config, &Progress::default(), |_| ()).unwrap()
}

fn compare(outcome: &Outcome, after: &Snapshot) -> Comparison {
    Comparison::new(&outcome.ledger, &Snapshot::default(), after, "")
}

#[test]
fn every_acknowledged_sample_is_stored() {
    let sink = Sink::start(SinkConfig::default()).unwrap();
    let config = SendConfig { requests: Some(500), server: Some(Process::own().unwrap()), ..to(&sink) };
    let outcome = run(&fleet(4), &config);
    assert_eq!((outcome.requests, outcome.acknowledged(), outcome.failed()), (500, 500, 0));
    assert_eq!(outcome.latency.len(), 500);
    assert!(outcome.bytes > 500 * 1000);
    let stats = sink.stop();
    assert_eq!(stats.tenant("team-000").bytes, outcome.bytes);
    let comparison = compare(&outcome, &stats);
    assert!(comparison.is_exact(), "{comparison:?}");
    assert_eq!(comparison.lines[0].stored.samples, 500 * 50);
    assert!(outcome.cpu_ms_per_request().unwrap() > 0.0);
    assert!(outcome.server.unwrap().resident_bytes_peak > 0);
}

#[test]
fn what_was_refused_is_told_and_still_adds_up() {
    let sink = sink(|arrival| match arrival.nth % 10 {
        0 => Reply::new(500, "no room\nat all"),
        5 => Reply::new(200, "").close(Close::AfterReplyUnannounced),
        _ => Reply::default(),
    });
    let config = SendConfig { requests: Some(200), ..to(&sink) };
    let outcome = run(&fleet(2), &config);
    // A request on a connection that was closed behind the sender's back gets no answer, and never arrives.
    let unanswered = outcome.statuses.get(&0).copied().unwrap_or_default();
    assert!(unanswered > 5, "{:?}", outcome.statuses);
    assert_eq!(outcome.statuses[&500], (200 - unanswered) / 10);
    assert_eq!(outcome.complaints[&500], "no room\nat all");
    assert_eq!(outcome.requests, 200);
    let comparison = compare(&outcome, &sink.stop());
    assert!(comparison.is_exact(), "{comparison:?}");
}

#[test]
fn an_answer_that_lies_is_found_out() {
    // Acknowledged and not stored; then not acknowledged and stored, which is lawful.
    for (reply, verdict) in [
        (Reply { stored: Some(false), ..Reply::default() }, Verdict::Lost),
        (Reply { status: 503, stored: Some(true), ..Reply::default() }, Verdict::Plausible),
    ] {
        let sink = sink(move |arrival| if arrival.nth == 7 { reply.clone() } else { Reply::default() });
        let config = SendConfig { requests: Some(20), ..to(&sink) };
        let outcome = run(&fleet(2), &config);
        let comparison = compare(&outcome, &sink.stop());
        assert_eq!(comparison.lines[0].verdict, verdict);
        assert_eq!(comparison.holds(), verdict == Verdict::Plausible);
    }
}

#[test]
fn a_fixed_rate_is_kept_and_a_stall_shows_in_the_latency() {
    // One stall of half a second on one of four connections, at 200 requests a second.
    let sink = sink(|arrival| match arrival.nth {
        100 => Reply::default().after(Duration::from_millis(500)),
        _ => Reply::default(),
    });
    let config = SendConfig { rate: Some(200.0), duration: Some(Duration::from_secs(2)), ..to(&sink) };
    let outcome = run(&fleet(4), &config);
    assert_eq!(outcome.acknowledged(), 400);
    assert!(outcome.elapsed >= Duration::from_millis(1950), "{:?}", outcome.elapsed);
    // The stalled connection owes a request every 20 ms: 25 of them leave late, and some 12 by more than 250 ms.
    let late = outcome.latency.count_between(250_000, u64::MAX);
    assert!(late >= 8, "{late} late requests");
}

#[test]
fn nobody_there_is_no_answer_and_no_spinning() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let config = SendConfig {
        url: format!("http://127.0.0.1:{port}/").parse().unwrap(),
        duration: Some(Duration::from_millis(500)),
        timeout: Duration::from_secs(1),
        ..SendConfig::default()
    };
    let outcome = run(&fleet(1), &config);
    assert_eq!(outcome.statuses, BTreeMap::from([(0, outcome.requests)]));
    assert!((1..=6).contains(&outcome.requests), "{}", outcome.requests);
    assert!(outcome.complaints[&0].contains("refused"), "{:?}", outcome.complaints);
    // What never left is not there.
    let entry = outcome.ledger["team-000"];
    assert_eq!((entry.unsettled.series, outcome.unknown()), (0, outcome.requests));
}

#[test]
fn a_stop_is_heard_and_ticks_tell_how_it_goes() {
    let sink = Sink::start(SinkConfig::default()).unwrap();
    let mut ticks = 0;
    let progress = Progress::default();
    let outcome = send(&fleet(2), &to(&sink), &progress, |progress| {
        ticks += 1;
        if ticks == 3 {
            assert!(progress.acknowledged.load(Ordering::Relaxed) > 0);
            progress.stop.store(true, Ordering::Relaxed);
        }
    })
    .unwrap();
    assert!(outcome.elapsed < Duration::from_secs(10));
    assert!(compare(&outcome, &sink.stop()).is_exact());
}

#[test]
fn a_sender_that_is_behind_skips_nothing() {
    // Due every 10 ms and answered after 30: the last of 50 leaves a second late.
    let sink = sink(|_| Reply::default().after(Duration::from_millis(30)));
    let config = SendConfig { rate: Some(100.0), duration: Some(Duration::from_millis(500)), ..to(&sink) };
    let outcome = run(&fleet(1), &config);
    assert_eq!((outcome.acknowledged(), outcome.latency.len()), (50, 50));
    assert!(outcome.latency_at(100.0) >= Duration::from_millis(980), "{:?}", outcome.latency_at(100.0));
    assert!(outcome.latency_at(50.0) >= Duration::from_millis(480), "{:?}", outcome.latency_at(50.0));
}

#[test]
fn more_senders_than_a_rate_needs_take_turns() {
    let (sink, connections) = noting(|arrival| arrival.connection);
    let config = SendConfig { rate: Some(20.0), duration: Some(Duration::from_secs(1)), ..to(&sink) };
    let outcome = run(&fleet(32), &config);
    assert_eq!(outcome.acknowledged(), 20);
    assert!(outcome.elapsed >= Duration::from_millis(940), "{:?}", outcome.elapsed);
    let connections: BTreeSet<u64> = connections.lock().unwrap().iter().copied().collect();
    assert_eq!(connections.len(), 20, "each from another");
}

#[test]
fn a_request_is_repeated_until_it_is_acknowledged_and_counts_once() {
    let sink = sink(|arrival| match arrival.nth {
        1 | 2 => Reply::new(503, "not yet"),
        3 => Reply::default().close(Close::Reset),
        _ => Reply::default(),
    });
    let config = SendConfig { requests: Some(20), retry: PROMETHEUS, ..to(&sink) };
    let outcome = run(&fleet(1), &config);
    assert_eq!((outcome.requests, outcome.acknowledged(), outcome.failed()), (20, 20, 0));
    assert_eq!((outcome.attempts(), outcome.retries()), (23, 3));
    assert_eq!((outcome.refused, outcome.unknown()), (0, 0));
    assert_eq!(outcome.statuses, BTreeMap::from([(0, 1), (200, 20), (503, 2)]));
    // Pauses of 30, 60 and 120 ms are in the first request's latency.
    assert_eq!(outcome.latency.len(), 20);
    assert!(outcome.latency_at(100.0) >= Duration::from_millis(210), "{:?}", outcome.latency_at(100.0));
    let entry = outcome.ledger["team-000"];
    assert_eq!((entry.acknowledged.series, entry.unsettled.series), (1000, 150));
    assert!(compare(&outcome, &sink.stop()).is_exact());
}

#[test]
fn what_may_be_there_twice_is_known() {
    // Stored, and then the answer says otherwise: the sender cannot but send it again.
    let sink = sink(|arrival| match arrival.nth {
        5 => Reply { status: 502, stored: Some(true), ..Reply::default() },
        _ => Reply::default(),
    });
    let config = SendConfig { requests: Some(10), retry: PROMETHEUS, ..to(&sink) };
    let outcome = run(&fleet(1), &config);
    assert_eq!((outcome.acknowledged(), outcome.retries()), (10, 1));
    let comparison = compare(&outcome, &sink.stop());
    assert_eq!(comparison.lines[0].verdict, Verdict::Plausible);
    let entry = outcome.ledger["team-000"];
    assert_eq!(comparison.lines[0].stored - entry.acknowledged, entry.unsettled);
    assert_eq!(entry.unsettled.series, 50);
}

#[test]
fn what_is_refused_is_not_sent_again_and_429_only_if_that_was_asked_for() {
    for (retry, acknowledged, given_up) in [(PROMETHEUS, 8, 1), (Some(RetryRules::prometheus(true)), 9, 0)] {
        let sink = sink(|arrival| match arrival.nth {
            3 => Reply::new(400, "out of bounds"),
            6 => Reply::new(429, "slow down").header("Retry-After", "1"),
            _ => Reply::default(),
        });
        let config = SendConfig { requests: Some(10), retry, ..to(&sink) };
        let outcome = run(&fleet(1), &config);
        assert_eq!((outcome.acknowledged(), outcome.unknown()), (acknowledged, given_up));
        assert_eq!(outcome.retries(), 1 - given_up);
        assert_eq!(outcome.refused, 1, "429 refuses nothing for good");
        assert_eq!(outcome.elapsed >= Duration::from_secs(1), given_up == 0, "{:?}", outcome.elapsed);
        assert!(compare(&outcome, &sink.stop()).is_exact());
    }
}

#[test]
fn senders_of_otlp_know_its_answers() {
    use loadgen::fleet::Format;
    use prost::Message as _;
    use testkit::proto_otlp::{Answer, PartialSuccess};
    let partial = |rejected| {
        let partial = PartialSuccess { rejected, error_message: "too old".to_owned() };
        let body = Answer { partial_success: Some(partial) }.encode_to_vec();
        Reply { body, ..Reply::default() }.header("Content-Type", "application/x-protobuf")
    };
    let sink = sink(move |arrival| match arrival.nth {
        2 => Reply::new(503, "later"),
        4 => Reply { stored: Some(true), ..Reply::new(500, "who knows") },
        6 => Reply { stored: Some(false), ..partial(50) },
        8 => partial(0),
        9 => Reply::new(400, "never"),
        _ => Reply::default(),
    });
    let fleet = Fleet::build(&FleetConfig { format: Format::OtlpLogs, ..small(1) }).unwrap();
    let url = sink.origin().parse().unwrap();
    let config = SendConfig { url, requests: Some(20), retry: PROMETHEUS, ..to(&sink) };
    let outcome = run(&fleet, &config);
    assert_eq!((outcome.requests, outcome.acknowledged(), outcome.retries()), (20, 17, 1));
    assert_eq!((outcome.refused, outcome.partial, outcome.unknown()), (2, 1, 1));
    let told = [(200, "too old"), (400, "never"), (500, "who knows"), (503, "later")];
    assert_eq!(outcome.complaints, told.map(|(status, text)| (status, text.to_owned())).into());
    let comparison = compare(&outcome, &sink.stop());
    assert_eq!(comparison.lines[0].verdict, Verdict::Plausible, "{comparison:?}");
}

#[test]
fn what_is_still_to_be_repeated_at_the_end_is_given_up() {
    let sink = sink(|_| Reply::new(500, "never"));
    let config = SendConfig { duration: Some(Duration::from_millis(400)), retry: PROMETHEUS, ..to(&sink) };
    let outcome = run(&fleet(2), &config);
    // 30 + 60 + 120 ms of pauses fit into 400, and 240 more do not.
    assert_eq!((outcome.requests, outcome.unknown(), outcome.acknowledged()), (2, 2, 0));
    assert!((4..=8).contains(&outcome.attempts()), "{}", outcome.attempts());
    assert!(outcome.elapsed < Duration::from_millis(400), "{:?}", outcome.elapsed);
    assert_eq!(outcome.latency.len(), 0);
    assert_eq!(outcome.ledger["team-000"].unsettled.series, 50 * outcome.attempts());
}

#[test]
fn metadata_goes_between() {
    let (sink, bodies) = noting(|arrival| arrival.body.to_vec());
    let fleet = Fleet::build(&FleetConfig { metadata_every: 4, ..small(1) }).unwrap();
    let config = SendConfig { requests: Some(40), ..to(&sink) };
    let outcome = run(&fleet, &config);
    assert_eq!((outcome.requests, outcome.acknowledged(), outcome.latency.len()), (40, 40, 40));
    let mut entries = 0;
    for (nth, body) in bodies.lock().unwrap().iter().enumerate() {
        let decoded = WriteRequest::from_block(body).unwrap();
        assert_eq!(decoded.timeseries.is_empty(), nth % 4 == 3, "request {nth}");
        assert_eq!(decoded.metadata.is_empty(), nth % 4 != 3);
        entries += decoded.metadata.len() as u64;
    }
    let stats = sink.stop();
    assert_eq!(stats.tenant("team-000").metadata, entries);
    assert_eq!(stats.tenant("team-000").stored.series, 30 * 50);
    assert!(compare(&outcome, &stats).is_exact());
}

#[test]
fn histograms_and_exemplars_are_part_of_the_proof() {
    let (sink, heads) = noting(|arrival| arrival.headers.clone());
    let profile =
        FleetConfig { histograms: 0.2, exemplars: 0.1, churn: 0.1, ha_pairs: true, samples: 3, ..small(2) };
    let config = SendConfig { requests: Some(12), ..to(&sink) };
    let outcome = run(&Fleet::build(&profile).unwrap(), &config);
    let head = heads.lock().unwrap().remove(0);
    assert_eq!(head.get("content-type"), Some("application/x-protobuf"));
    assert_eq!(head.get("content-encoding"), Some("snappy"));
    assert_eq!(head.get("x-prometheus-remote-write-version"), Some("0.1.0"));
    let comparison = compare(&outcome, &sink.stop());
    assert!(comparison.is_exact(), "{comparison:?}");
    let stored = comparison.lines[0].stored;
    assert_eq!((stored.samples, stored.histograms, stored.exemplars), (12 * 120, 12 * 30, 12 * 5));
}

/// The command: every profile at once, failures repeated, and the sink's word on it.
#[test]
fn the_command_sends_every_profile_and_tells_what_it_took() {
    let sink = sink(|arrival| match arrival.nth {
        4 => Reply::new(503, "not yet").header("Retry-After", "1"),
        8 => Reply::new(429, "slow down"),
        12 => Reply::new(400, "never"),
        _ => Reply::default(),
    });
    let (url, stats) = (sink.url(), format!("http://{}/stats", sink.addr()));
    let args = format!(
        "send --url {url} --header X-Scope-OrgID=team-000 --verify {stats} --requests 41 --rate 400 --senders 2 \
         --series 100 --tenants 1 --samples 2 --churn 0.2 --histograms 0.1 --exemplars 0.05 --ha-pairs \
         --metadata-every 15 --distribution zipf:1.2 --format remote-write-1 --retry prometheus --retry-on-429 \
         --fail-on-error"
    );
    let run = |more: &[&str]| {
        let args = args.split_whitespace().chain(more.iter().copied());
        Command::new(env!("CARGO_BIN_EXE_loadgen")).args(args).output().unwrap()
    };
    let output = run(&["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "one was refused: {report}");
    assert_eq!(report["verified"], true, "{report}");
    assert_eq!(
        (&report["retries"], &report["refused"], &report["failed"]),
        (&2.into(), &1.into(), &1.into())
    );
    assert_eq!((&report["requests"], &report["acknowledged"]), (&41.into(), &40.into()), "{report}");
    // How many of the 41 each sender claims is chance, but for a few: one or two held metadata, and one may have been
    // the one that was refused.
    let with_series = report["histograms"].as_u64().unwrap() / 20;
    assert!((38..=40).contains(&with_series), "{report}");
    assert_eq!(report["exemplars"], with_series * 5);
    // The pause of a second is latency.
    assert!(report["latency_ms"]["max"].as_f64() > Some(999.0), "{report}");
    let output = run(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("0 refused, 0 given up, 0 sent again"), "{text}");
}
