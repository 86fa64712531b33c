//! Senders against a sink, without a server between them: what is acknowledged is stored, and what is not is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use loadgen::fleet::{Fleet, FleetConfig, numbered_tenants};
use loadgen::ledger::{Comparison, Verdict};
use loadgen::process::Process;
use loadgen::send::{Outcome, Progress, SendConfig, send};
use loadgen::sink::{Arrival, Close, Reply, Sink, SinkConfig, Snapshot};

/// One tenant, since nothing here splits.
fn fleet(senders: usize) -> Fleet {
    let config = FleetConfig {
        senders,
        bodies_per_sender: 3,
        series: 50,
        tenants: numbered_tenants(1),
        ..FleetConfig::default()
    };
    Fleet::build(&config).unwrap()
}

fn to(sink: &Sink) -> SendConfig {
    SendConfig {
        url: sink.url().parse().unwrap(),
        headers: vec![("X-Scope-OrgID".to_owned(), "team-000".to_owned())],
        duration: Some(Duration::from_secs(20)),
        requests: None,
        rate: None,
        timeout: Duration::from_secs(5),
        server: None,
    }
}

fn sink(script: impl Fn(&Arrival<'_>) -> Reply + Send + Sync + 'static) -> Sink {
    Sink::start(SinkConfig { script: Some(Arc::new(script)), ..SinkConfig::default() }).unwrap()
}

fn compare(outcome: &Outcome, after: &Snapshot) -> Comparison {
    Comparison::new(&outcome.ledger, &Snapshot::default(), after, "")
}

#[test]
fn every_acknowledged_sample_is_stored() {
    let sink = Sink::start(SinkConfig::default()).unwrap();
    let config = SendConfig { requests: Some(500), server: Some(Process::own().unwrap()), ..to(&sink) };
    let outcome = send(&fleet(4), &config, &Progress::default(), |_| ()).unwrap();
    assert_eq!((outcome.requests, outcome.acknowledged(), outcome.failed()), (500, 500, 0));
    assert_eq!(outcome.latency.len(), 500);
    assert!(outcome.bytes > 500 * 1000);
    let stats = sink.stop();
    assert_eq!(stats.tenant("team-000").bytes, outcome.bytes);
    let comparison = compare(&outcome, &stats);
    assert!(comparison.is_exact(), "{comparison:?}");
    assert_eq!(comparison.lines[0].stored.samples, 500 * 50);
    assert!(outcome.cpu_ms_per_request().unwrap() > 0.0);
    assert!(outcome.server.unwrap().memory.end() > 0);
}

#[test]
fn what_was_refused_is_told_and_still_adds_up() {
    let sink = sink(|arrival| match arrival.nth % 10 {
        0 => Reply::new(500, "no room\nat all"),
        5 => Reply::new(200, "").close(Close::AfterReplyUnannounced),
        _ => Reply::default(),
    });
    let config = SendConfig { requests: Some(200), ..to(&sink) };
    let outcome = send(&fleet(2), &config, &Progress::default(), |_| ()).unwrap();
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
        let outcome = send(&fleet(2), &config, &Progress::default(), |_| ()).unwrap();
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
    let outcome = send(&fleet(4), &config, &Progress::default(), |_| ()).unwrap();
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
        headers: vec![],
        duration: Some(Duration::from_millis(500)),
        requests: None,
        rate: None,
        timeout: Duration::from_secs(1),
        server: None,
    };
    let outcome = send(&fleet(1), &config, &Progress::default(), |_| ()).unwrap();
    assert_eq!(outcome.statuses, BTreeMap::from([(0, outcome.requests)]));
    assert!((1..=6).contains(&outcome.requests), "{}", outcome.requests);
    assert!(outcome.complaints[&0].contains("refused"), "{:?}", outcome.complaints);
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
