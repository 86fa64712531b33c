//! A sink that loses, duplicates, misplaces and reorders on purpose, and an audit that finds each, and nothing else.
//!
//! Senders send straight to the sink: what is found is what the sink was told to do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::sync::Arc;
use std::time::Duration;

use loadgen::account::FullAccount;
use loadgen::audit::Audit;
use loadgen::client::get;
use loadgen::journal::Journal;
use loadgen::send::{Outcome, Progress, RetryRules, SendConfig};
use loadgen::sink::faults::FaultScript;
use loadgen::sink::{Arrival, Faults, Reply, Script, Sink, SinkConfig, Snapshot};
use loadgen::stamped::{StampedConfig, send};

const RUN: u64 = 1_764_000_000_000;
const SERIES: u32 = 5;
const SENDERS: u32 = 3;
const REQUESTS: u64 = 60;

/// Samples that all senders send: one for each series of each request.
const SAMPLES: u64 = SERIES as u64 * SENDERS as u64 * REQUESTS;

struct Proof {
    audit: Audit,
    journal: Journal,
    outcome: Outcome,
    stored: Snapshot,
}

impl Proof {
    /// The names of all that was found, lawful or not.
    fn found(&self) -> Vec<&'static str> {
        let audit = &self.audit;
        let lawful = [
            ("duplicated lawfully", &audit.duplicated_lawfully),
            ("reordered lawfully", &audit.reordered_lawfully),
            ("though refused", &audit.stored_though_refused),
        ];
        let all = audit.faults().into_iter().chain(lawful);
        all.filter(|(_, finding)| finding.samples > 0).map(|(name, _)| name).collect()
    }
}

fn start(script: Option<Arc<dyn Script>>) -> Sink {
    Sink::start(SinkConfig { full_account: true, script, ..SinkConfig::default() }).unwrap()
}

fn faults(yaml: &str) -> Option<Arc<dyn Script>> {
    Some(Arc::new(FaultScript::new(Faults::from_yaml(yaml).unwrap())))
}

/// Requests of one tenant each, `a`, `b` and `c` in turns.
fn config(sink: &Sink) -> StampedConfig {
    let rules = RetryRules {
        backoff_min: Duration::from_millis(1),
        give_up_after: Some(Duration::from_secs(60)),
        ..RetryRules::prometheus(true)
    };
    StampedConfig {
        send: SendConfig {
            url: sink.url().parse().unwrap(),
            duration: Some(Duration::from_secs(60)),
            requests: Some(u64::from(SENDERS) * REQUESTS),
            retry: Some(rules),
            timeout: Duration::from_secs(10),
            ..SendConfig::default()
        },
        tenants: ["a", "b", "c"].map(str::to_owned).to_vec(),
        tenant_header: Some("X-Scope-OrgID".to_owned()),
        series: SERIES,
        ..StampedConfig::default()
    }
}

/// Sends with so many senders, and tells what they know.
fn run(config: &StampedConfig, senders: u32) -> (Journal, Outcome) {
    send(config, RUN, senders, &Progress::default(), |_| ()).unwrap()
}

fn prove_with(script: Option<Arc<dyn Script>>, change: impl FnOnce(&mut StampedConfig)) -> Proof {
    let sink = start(script);
    let mut config = config(&sink);
    change(&mut config);
    let (journal, outcome) = run(&config, SENDERS);
    assert_eq!(outcome.requests, u64::from(SENDERS) * REQUESTS);
    let audit = Audit::new(&journal, &sink.account().unwrap(), "");
    Proof { audit, journal, outcome, stored: sink.stop() }
}

fn prove(yaml: &str) -> Proof {
    prove_with(faults(yaml), |_| ())
}

#[test]
fn of_an_honest_sink_nothing_is_found() {
    let proof = prove_with(None, |_| ());
    assert!(proof.audit.holds());
    assert_eq!(proof.found(), [""; 0]);
    assert_eq!((proof.audit.acknowledged, proof.audit.stored), (SAMPLES, SAMPLES));
    assert_eq!(proof.stored.total().stored.samples, SAMPLES);
}

#[test]
fn what_is_lost_is_found() {
    let Proof { audit, stored, .. } = &prove("rules:\n- {share: 0.1, lose: true}");
    assert!(audit.lost.samples > 0 && !audit.holds());
    assert_eq!(audit.lost.samples, SAMPLES - stored.total().stored.samples, "to the sample");
    assert_eq!(prove("rules:\n- {share: 0.1, lose: true}").found(), ["lost"]);
}

#[test]
fn what_is_duplicated_is_found() {
    let proof = prove("rules:\n- {share: 0.1, duplicate: true}");
    assert_eq!(proof.found(), ["duplicated"]);
    assert_eq!(proof.audit.duplicated.samples, proof.stored.total().stored.samples - SAMPLES);
    assert!(!proof.audit.holds());
}

#[test]
fn what_is_misplaced_is_found_and_is_not_lost() {
    let proof = prove("rules:\n- {share: 0.5, tenant: a, misplace: c}");
    assert_eq!(proof.found(), ["misplaced"]);
    assert_eq!(proof.audit.misplaced.samples, proof.stored.tenant("c").misplaced);
    assert!(!proof.audit.holds());
    for example in &proof.audit.misplaced.examples {
        assert_eq!((example.tenant.as_str(), example.stored_under.as_deref()), ("a", Some("c")));
    }
}

#[test]
fn what_is_reordered_is_found_and_is_neither_lost_nor_duplicated() {
    let proof = prove("rules:\n- {share: 0.2, reorder: true}");
    assert_eq!(proof.found(), ["reordered"]);
    assert_eq!(proof.audit.stored, SAMPLES, "what was held back at the end is let go");
    assert!(!proof.audit.holds());
}

#[test]
fn of_four_faults_at_once_each_is_found_with_its_tenant() {
    let yaml = "rules:\n\
        - {tenant: a, share: 0.2, lose: true}\n- {tenant: b, share: 0.2, duplicate: true}\n\
        - {tenant: c, share: 0.2, misplace: d}\n- {tenant: d, share: 0.2, reorder: true}\n";
    let proof = prove_with(faults(yaml), |config| config.tenants.push("d".to_owned()));
    assert_eq!(proof.found(), ["lost", "duplicated", "misplaced", "reordered"]);
    for ((_, finding), tenant) in proof.audit.faults().iter().zip(["a", "b", "c", "d"]) {
        assert!(finding.examples.iter().all(|example| example.tenant == tenant), "{finding:?}");
    }
}

#[test]
fn an_example_names_the_very_sample() {
    let script = |arrival: &Arrival<'_>| {
        let lost = arrival.tenant == "b" && arrival.nth_of_tenant == 4;
        Reply { stored: Some(!lost), ..Reply::default() }
    };
    let sink = start(Some(Arc::new(script)));
    let mut config = config(&sink);
    config.send.requests = Some(30);
    let (journal, _) = run(&config, 1);
    let audit = Audit::new(&journal, &sink.account().unwrap(), "");
    assert_eq!(audit.lost.samples, u64::from(SERIES));
    let told: Vec<String> = audit.lost.examples.iter().map(ToString::to_string).collect();
    assert_eq!(told, [format!("b: sender {RUN:x}-0, series 0, sequence 3")]);
}

#[test]
fn copies_after_a_doubtful_answer_are_lawful() {
    let proof = prove("rules:\n- {share: 0.2, lie: 503}");
    assert_eq!(proof.found(), ["duplicated lawfully"]);
    assert!(proof.audit.holds());
    assert_eq!(proof.audit.duplicated_lawfully.samples, proof.stored.total().stored.samples - SAMPLES);
    assert_eq!(proof.outcome.retries(), proof.outcome.statuses[&503]);
}

#[test]
fn retries_get_everything_through_what_fails_honestly() {
    let yaml = "rules:\n- {share: 0.1, status: 503}\n- {share: 0.1, reset: before_body}\n\
        - {share: 0.1, reset: before_reply}\n- {share: 0.1, reset: mid_reply}\n- {share: 0.05, stall: true}\n";
    let proof = prove_with(faults(yaml), |config| config.send.timeout = Duration::from_millis(100));
    assert_eq!(proof.found(), [""; 0]);
    assert_eq!(proof.audit.stored, SAMPLES);
    assert!(proof.outcome.statuses[&0] > 0 && proof.outcome.statuses[&503] > 0, "{:?}", proof.outcome);
}

#[test]
fn a_refused_request_is_not_sent_again_and_not_missed() {
    let proof = prove("rules:\n- {share: 0.2, status: 400}");
    assert_eq!(proof.found(), [""; 0]);
    assert!(proof.outcome.refused > 0 && proof.audit.holds());
    assert_eq!(proof.outcome.attempts(), proof.outcome.requests);
    let refused: u64 = proof.journal.entries().map(|(.., entries)| entries.refused.count()).sum();
    assert_eq!((refused, proof.outcome.statuses[&400]), (proof.outcome.refused, refused));
    let stored = prove("rules:\n- {share: 0.2, lie: 400}");
    assert_eq!(stored.found(), ["though refused"]);
    assert!(stored.audit.holds());
}

#[test]
fn what_is_given_up_may_be_there_or_not() {
    let give_up = |config: &mut StampedConfig| config.send.retry = None;
    let gone = prove_with(faults("rules:\n- {share: 0.2, status: 503}"), give_up);
    assert_eq!(gone.audit.missing_as_unknown, SAMPLES - gone.audit.acknowledged);
    let there = prove_with(faults("rules:\n- {share: 0.2, lie: 503}"), give_up);
    assert_eq!(there.audit.stored_though_unknown, SAMPLES - there.audit.acknowledged);
    for proof in [gone, there] {
        assert_eq!(proof.found(), [""; 0]);
        assert!(proof.outcome.unknown() > 0 && proof.audit.holds());
    }
}

#[test]
fn an_account_over_http_says_the_same() {
    let sink = start(faults("rules:\n- {share: 0.1, lose: true}\n- {share: 0.1, duplicate: true}"));
    let config = config(&sink);
    let (journal, _) = run(&config, SENDERS);
    let url = format!("http://{}/account", sink.addr()).parse().unwrap();
    let (status, body) = get(&url, Duration::from_secs(10)).unwrap();
    let told: FullAccount = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &told), (200, &sink.account().unwrap()));
    let audit = Audit::new(&journal, &told, "");
    assert!(audit.lost.samples > 0 && audit.duplicated.samples > 0);

    let plain = Sink::start(SinkConfig::default()).unwrap();
    let url = format!("http://{}/account", plain.addr()).parse().unwrap();
    assert_eq!(get(&url, Duration::from_secs(10)).unwrap().0, 404);
}

/// The request holds all tenants, as one that a server is to split; this server does not, and so misplaces all but
/// one's.
#[test]
fn a_server_that_does_not_split_is_found_out() {
    let sink = start(None);
    let mut config = config(&sink);
    config.tenant_header = None;
    config.tenants_per_request = Some(3);
    config.send.headers = vec![("X-Scope-OrgID".to_owned(), "a".to_owned())];
    config.send.requests = Some(4);
    let (journal, _) = run(&config, 1);
    let audit = Audit::new(&journal, &sink.account().unwrap(), "");
    assert_eq!(audit.misplaced.samples, 2 * 4 * u64::from(SERIES));
    assert_eq!(audit.acknowledged, 3 * 4 * u64::from(SERIES));
    assert_eq!((audit.stored, audit.lost.samples), (4 * u64::from(SERIES), 0));
}

/// The sink stores when nobody waits for its answer any more, whatever it would have said.
#[test]
fn what_is_stored_after_its_sender_hung_up_is_untold() {
    let sink = start(faults("rules:\n- {latency: 200ms}"));
    let mut config = config(&sink);
    config.send.timeout = Duration::from_millis(20);
    config.send.retry = None;
    config.send.requests = Some(2);
    let (_, outcome) = run(&config, 1);
    assert_eq!(outcome.statuses, [(0, 2)].into());
    let all_stored = 2 * u64::from(SERIES);
    while sink.snapshot().total().stored.samples < all_stored {
        std::thread::yield_now();
    }
    let account = sink.account().unwrap();
    let tracks = account.strands().flat_map(|(_, tracks)| tracks.values());
    let untold: u64 = tracks.flat_map(|track| track.untold.values()).map(|&copies| u64::from(copies)).sum();
    assert_eq!(untold, all_stored);
}

/// Attempts that nobody waits for any more sit in a stalled upstream, or in the sockets of a killed server; their
/// requests are sent again and settled, and later ones with them. Then the old attempts arrive.
#[test]
fn what_arrives_after_its_sender_went_on_is_lawful_and_told_apart() {
    let sink = start(faults("rules:\n- {to: 200ms, latency: 600ms}"));
    let mut config = config(&sink);
    config.send.timeout = Duration::from_millis(50);
    let (journal, outcome) = run(&config, SENDERS);
    while sink.snapshot().total().stored.samples < outcome.attempts() * u64::from(SERIES) {
        std::thread::yield_now();
    }
    let audit = Audit::new(&journal, &sink.account().unwrap(), "");
    assert!(audit.holds(), "{audit:?}");
    let late = outcome.retries() * u64::from(SERIES);
    assert!(late > 0);
    assert_eq!((audit.duplicated_lawfully.samples, audit.stored), (late, SAMPLES));
    // Of one request there may be several old attempts.
    assert!((1..=late).contains(&audit.reordered_lawfully.samples), "{:?}", audit.reordered_lawfully);
}
