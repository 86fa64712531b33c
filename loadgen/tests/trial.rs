//! Trials as a person runs them, short: what holds is told so, and what does not hold as well.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::process::{Command, Output};

/// Runs a trial; the server takes its settings from the environment, too.
fn trial(args: &[&str], environment: &[(&str, &str)]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg("trial")
        .args(args)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = support::text(&output);
    (output, text)
}

#[test]
fn a_retry_costs_the_other_tenants_nothing() {
    let (output, text) = trial(&["retry", "--seconds", "2"], &[]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("holds: with one of ten tenants failing"), "{text}");
    assert!(text.contains("0.000 % were sent for nothing"), "{text}");
}

#[test]
fn without_receipts_the_trial_finds_what_is_sent_for_nothing() {
    let (output, text) = trial(&["retry", "--seconds", "2"], &[("CT_RECEIPTS_KEEP", "0s")]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("DOES NOT HOLD: with one of ten tenants failing"), "{text}");
}

/// As many as it takes for what each costs to stand out from what is there once. Where the system allows fewer open
/// files, only that they are weighed can be seen.
#[test]
fn idle_connections_are_weighed() {
    for driver in ["io_uring", "epoll"] {
        let (output, text) = trial(&["idle", "--connections", "15000", "--driver", driver], &[]);
        assert!(text.contains("connections that say nothing"), "{text}");
        let all = text.contains("15,000 connections that say nothing");
        assert!(output.status.code() == Some(0) || !all, "{text}");
    }
}

/// A server that lets whoever has a connection keep it fails here: of fifty tenants four had 200 answers each, and
/// others 9.
#[test]
fn equal_tenants_get_equal_shares_of_few_connections() {
    let cell = ["fairness", "--tenants", "50", "--connections", "4", "--cores", "1,2", "--seconds", "3"];
    let (output, text) = trial(&cell, &[]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("holds: no tenant is refused"), "{text}");
    assert_eq!(shares(&text).len(), 2, "{text}");
}

/// Each line's ratio, and how many requests were refused.
fn shares(text: &str) -> Vec<(f64, u64)> {
    let cells = text.lines().skip_while(|line| !line.starts_with("tenants")).skip(1);
    let cells = cells.take_while(|line| line.starts_with(' '));
    let columns = cells.map(|line| line.split_whitespace().collect::<Vec<_>>());
    columns.map(|columns| (columns[7].parse().unwrap(), columns[8].parse().unwrap())).collect()
}

/// Twenty of the tenants are one to the server, whose parts don't merge: each of them gets a small part of what the
/// others get.
#[test]
fn who_gets_less_than_half_is_found() {
    let map = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(map.path(), "- regex: 'team-0[01].'\n  tenant: crowd\n").unwrap();
    let cell = ["fairness", "--tenants", "25", "--connections", "64", "--cores", "1", "--seconds", "2"];
    let environment = [("CT_TENANT_MAP", map.path().to_str().unwrap()), ("CT_MERGE_FRAGMENTS_MAX", "1")];
    let (output, text) = trial(&cell, &environment);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("DOES NOT HOLD: no tenant is refused"), "{text}");
    let [(ratio, refused)] = shares(&text)[..] else { panic!("{text}") };
    assert!(ratio > 2.5 && refused == 0, "{text}");
}

#[test]
fn who_refuses_is_not_fair() {
    let cell = ["fairness", "--tenants", "5", "--connections", "64", "--cores", "1", "--seconds", "1"];
    let (output, text) = trial(&cell, &[("CT_CONCURRENCY", "2")]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let [(_, refused)] = shares(&text)[..] else { panic!("{text}") };
    assert!(refused > 0 && text.contains("503: "), "{text}");
}

/// What the others feel says something on a quiet machine only; that the ill are served again, on any.
#[test]
fn many_fall_ill_and_are_served_again() {
    let (output, text) = trial(&["isolation", "--ill", "8", "--seconds", "0.5", "--rounds", "1"], &[]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{text}");
    assert!(text.contains("8 tenants of 16 stall"), "{text}");
    assert!(text.contains("served again within 5 s: 8 of 8"), "{text}");
}

#[test]
fn a_server_that_lets_the_ill_take_all_is_found() {
    let few = [("CT_CONCURRENCY", "2")];
    let (output, text) = trial(&["isolation", "--ill", "8", "--seconds", "0.5", "--rounds", "1"], &few);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("DOES NOT HOLD: none of the others' requests is refused"), "{text}");
}

/// How long requests take says something on a quiet machine only, which tests don't have.
#[test]
fn every_illness_is_tried() {
    let (output, text) = trial(&["isolation", "--seconds", "0.3", "--rounds", "1"], &[]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{text}");
    for illness in ["stall", "500", "429", "reset", "refused"] {
        assert!(text.lines().any(|line| line.starts_with(illness)), "{illness} is missing: {text}");
    }
}
