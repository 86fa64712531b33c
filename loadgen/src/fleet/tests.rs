//! Whole fleets, decoded.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::proto::{Label, TimeSeries};

fn small() -> FleetConfig {
    FleetConfig {
        senders: 3,
        bodies_per_sender: 2,
        series: 500,
        timestamp_ms: Some(1_764_000_000_000),
        ..FleetConfig::default()
    }
}

fn decoded(body: &Body) -> WriteRequest {
    WriteRequest::from_block(&body.block).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_gives_others() {
    let blocks = |config: &FleetConfig| -> Vec<Bytes> {
        Fleet::build(config).unwrap().senders.into_iter().flatten().map(|body| body.block).collect()
    };
    let all = blocks(&small());
    assert_eq!(all.len(), 6);
    assert_eq!(all, blocks(&small()));
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 6, "each body is another");
    assert_ne!(all, blocks(&FleetConfig { seed: 2, ..small() }));
}

#[test]
fn series_are_distinct_sorted_and_of_the_size_asked_for() {
    for labels in [LABELS_MIN, 9, 30] {
        let fleet = Fleet::build(&FleetConfig { labels, samples: 2, ..small() }).unwrap();
        let mut seen = HashSet::new();
        for body in fleet.senders.iter().flatten() {
            let request = decoded(body);
            assert_eq!(request.timeseries.len(), 500);
            for series in request.timeseries {
                assert_eq!(series.labels.len(), labels);
                assert!(series.labels.is_sorted_by(|a, b| a.name < b.name), "{series:?}");
                assert_eq!(series.samples.len(), 2);
                assert!(series.label("__name__").is_some() && series.label("__tenant__").is_some());
                assert!(seen.insert(series.labels), "a series came twice");
            }
        }
    }
}

#[test]
fn a_series_is_of_ordinary_size() {
    let fleet = Fleet::build(&small()).unwrap();
    let bytes: usize = fleet.senders.iter().flatten().map(|body| body.inflated_bytes).sum();
    let mean = bytes / (6 * 500);
    assert!((230..=270).contains(&mean), "{mean} bytes a series");
}

#[test]
fn shares_are_what_the_body_holds() {
    let fleet = Fleet::build(&small()).unwrap();
    for body in fleet.senders.iter().flatten() {
        let request = decoded(body);
        let mut total = Tally::default();
        for &(tenant, tally) in &body.shares {
            let name = fleet.tenants[tenant].as_bytes();
            let own = request.timeseries.iter().filter(|series| series.label("__tenant__") == Some(name));
            assert_eq!(tally.series, own.count() as u64);
            assert_ne!(tally.checksum, 0);
            total += tally;
        }
        assert_eq!((total.series, total.samples), (500, 500));
    }
}

#[test]
fn tenants_come_in_runs_and_in_proportion() {
    let tenants = vec![("big".to_owned(), 6), ("middle".to_owned(), 3), ("small".to_owned(), 1)];
    let fleet = Fleet::build(&FleetConfig { tenants, series: 2000, ..small() }).unwrap();
    for body in fleet.senders.iter().flatten() {
        let series: Vec<u64> = body.shares.iter().map(|(_, tally)| tally.series).collect();
        assert_eq!(series, [1200, 600, 200]);
        let request = decoded(body);
        for run in request.timeseries.chunks(20) {
            let tenant = run[0].label("__tenant__");
            assert!(run.iter().all(|series| series.label("__tenant__") == tenant));
        }
    }
}

#[test]
fn more_tenants_than_targets_take_turns() {
    let config = FleetConfig { tenants: numbered_tenants(50), series: 200, bodies_per_sender: 8, ..small() };
    let fleet = Fleet::build(&config).unwrap();
    let seen: HashSet<usize> = fleet
        .senders
        .iter()
        .flatten()
        .flat_map(|body| body.shares.iter().map(|&(tenant, _)| tenant))
        .collect();
    assert!(seen.len() > 45, "{} of 50 tenants", seen.len());
}

#[test]
fn what_cannot_be_is_refused() {
    for config in [
        FleetConfig { labels: 3, ..small() },
        FleetConfig { format: Format::Loki, histograms: 0.1, ..small() },
        FleetConfig { format: Format::OtlpMetrics, exemplars: 0.1, ..small() },
        FleetConfig { format: Format::RemoteWrite2, metadata_every: 2, ..small() },
        FleetConfig { ha_pairs: true, ..small() },
        FleetConfig { ha_pairs: true, senders: 2, labels: 5, ..small() },
        FleetConfig { tenant_label: "le".to_owned(), ..small() },
        FleetConfig { tenant_label: "pod".to_owned(), ..small() },
    ] {
        assert!(Fleet::build(&config).is_err(), "{config:?}");
    }
}

/// All series of a sender's bodies, body by body.
fn bodies(fleet: &Fleet, sender: usize) -> Vec<Vec<TimeSeries>> {
    fleet.senders[sender].iter().map(|body| decoded(body).timeseries).collect()
}

#[test]
fn every_profile_gives_the_same_bytes_again() {
    let config = FleetConfig {
        senders: 4,
        churn: 0.1,
        histograms: 0.2,
        exemplars: 0.1,
        ha_pairs: true,
        metadata_every: 5,
        samples: 3,
        distribution: Distribution::Zipf { exponent: 1.1 },
        ..small()
    };
    let blocks = |config: &FleetConfig| -> Vec<Bytes> {
        let fleet = Fleet::build(config).unwrap();
        let metadata = fleet.metadata.map(|(_, body)| body.block);
        fleet.senders.into_iter().flatten().map(|body| body.block).chain(metadata).collect()
    };
    assert_eq!(blocks(&config), blocks(&config));
    // What is asked for besides changes nothing else.
    let with = Fleet::build(&FleetConfig { exemplars: 0.5, ..small() }).unwrap();
    let without = Fleet::build(&small()).unwrap();
    for (mut with, without) in
        bodies(&with, 1).into_iter().flatten().zip(bodies(&without, 1).into_iter().flatten())
    {
        with.exemplars.clear();
        assert_eq!(with, without);
    }
}

#[test]
fn churn_replaces_a_share_of_the_pods_and_nothing_else() {
    let config = FleetConfig {
        churn: 0.1,
        bodies_per_sender: 4,
        series: 2000,
        samples: 2,
        histograms: 0.3,
        ..small()
    };
    let fleet = Fleet::build(&config).unwrap();
    let bodies = bodies(&fleet, 0);
    let mut ever: HashMap<Vec<Label>, i64> = HashMap::new();
    for (nth, body) in bodies.iter().enumerate() {
        let fresh = body.iter().filter(|series| !ever.contains_key(&series.labels)).count();
        assert_eq!(fresh, if nth == 0 { 2000 } else { 200 }, "body {nth}");
        for series in body {
            let times = series.samples.iter().map(|sample| sample.timestamp);
            for time in times.chain(series.histograms.iter().map(|histogram| histogram.timestamp)) {
                let before = ever.insert(series.labels.clone(), time);
                assert!(before.is_none_or(|before| before + 15_000 == time), "{before:?}, {time}");
            }
        }
    }
    // A series is of the same tenant, and a histogram or not, whatever its pod is.
    for pair in bodies.windows(2) {
        for (before, after) in pair[0].iter().zip(&pair[1]) {
            for name in ["__name__", "__tenant__", "job", "namespace"] {
                assert_eq!(before.label(name), after.label(name));
            }
            assert_eq!(before.histograms.len(), after.histograms.len());
        }
    }
    let still = Fleet::build(&FleetConfig { churn: 0.0, ..small() }).unwrap();
    let labels =
        |body: &Body| decoded(body).timeseries.into_iter().map(|series| series.labels).collect::<Vec<_>>();
    assert_eq!(labels(&still.senders[0][0]), labels(&still.senders[0][1]));
    assert_ne!(still.senders[0][0].block, still.senders[0][1].block);
}

#[test]
fn tenants_are_spread_as_asked() {
    let shares = |distribution| {
        let config = FleetConfig { distribution, tenants: numbered_tenants(4), series: 2000, ..small() };
        let fleet = Fleet::build(&config).unwrap();
        let shares = &fleet.senders[0][0].shares;
        shares.iter().map(|(_, tally)| tally.series).collect::<Vec<_>>()
    };
    assert_eq!(shares(Distribution::Weighted), [500; 4]);
    assert_eq!(shares(Distribution::Zipf { exponent: 1.0 }), [960, 480, 320, 240]);
    assert_eq!(shares(Distribution::OneGiant { share: 0.7 }), [1400, 200, 200, 200]);
}

#[test]
fn a_share_of_the_series_are_native_histograms_and_sums_hold_them() {
    let config = FleetConfig { histograms: 0.2, exemplars: 0.1, samples: 2, ..small() };
    let fleet = Fleet::build(&config).unwrap();
    let mut seen = HashSet::new();
    for body in fleet.senders.iter().flatten() {
        let request = decoded(body);
        let mut total = Tally::default();
        body.shares.iter().for_each(|&(_, tally)| total += tally);
        assert_eq!((total.series, total.samples, total.histograms, total.exemplars), (500, 800, 200, 50));
        for series in request.timeseries {
            assert_eq!(
                (series.samples.len(), series.histograms.len()),
                match series.histograms.is_empty() {
                    true => (2, 0),
                    false => (0, 2),
                }
            );
            assert!(series.labels.is_sorted_by(|a, b| a.name < b.name), "{series:?}");
            assert_eq!(series.labels.len(), 9);
            for exemplar in &series.exemplars {
                assert!(exemplar.labels.iter().any(|label| &label.name[..] == b"trace_id"));
            }
            assert!(seen.insert(series.labels), "a series came twice");
        }
    }
    let all = Fleet::build(&FleetConfig { histograms: 1.0, run_length: 500, ..small() }).unwrap();
    let all: Vec<_> = bodies(&all, 0).into_iter().flatten().collect();
    let distinct: HashSet<_> = all.iter().map(|series| &series.labels).collect();
    assert_eq!(distinct.len(), 1000);
    assert!(all.iter().all(|series| series.samples.is_empty() && series.histograms.len() == 1));
}

/// The proof must see a changed bucket and a changed trace as well as a changed value.
#[test]
fn sums_tell_histograms_and_exemplars_apart() {
    let config = FleetConfig { histograms: 1.0, exemplars: 1.0, tenants: numbered_tenants(1), ..small() };
    let body = &Fleet::build(&config).unwrap().senders[0][0];
    let checksum = |request: &WriteRequest| {
        let mut total = Tally::default();
        let inflated = prost::Message::encode_to_vec(request);
        crate::account::walk(&inflated, &["__tenant__"], |series| total += series.tally).unwrap();
        total.checksum
    };
    let request = decoded(body);
    assert_eq!(checksum(&request), body.shares[0].1.checksum);
    let changes: [fn(&mut TimeSeries); 3] = [
        |series| series.histograms[0].positive_deltas[0] += 1,
        |series| series.exemplars[0].labels[1].value = Bytes::from_static(b"0"),
        |series| drop(series.exemplars.pop()),
    ];
    for change in changes {
        let mut changed = request.clone();
        change(&mut changed.timeseries[3]);
        assert_ne!(checksum(&changed), checksum(&request));
    }
}

#[test]
fn an_ha_pair_differs_in_its_replica_only() {
    for labels in [LABELS_MIN_HA, 9, 15] {
        let config = FleetConfig { ha_pairs: true, senders: 14, labels, series: 60, ..small() };
        let fleet = Fleet::build(&config).unwrap();
        let mut clusters = HashSet::new();
        for pair in 0..7 {
            let one: Vec<_> = bodies(&fleet, 2 * pair).into_iter().flatten().collect();
            let other: Vec<_> = bodies(&fleet, 2 * pair + 1).into_iter().flatten().collect();
            clusters.insert(one[0].label("cluster").unwrap().to_vec());
            assert_eq!(one.len(), 120);
            for (one, mut other) in one.into_iter().zip(other) {
                assert_eq!(one.labels.len(), labels);
                assert!(one.labels.is_sorted_by(|a, b| a.name < b.name), "{one:?}");
                assert_eq!(
                    (one.label("__replica__"), other.label("__replica__")),
                    (Some(&b"a"[..]), Some(&b"b"[..]))
                );
                assert!(one.label("cluster").is_some());
                let replica = other.labels.iter_mut().find(|label| &label.name[..] == b"__replica__");
                replica.unwrap().value = Bytes::from_static(b"a");
                assert_eq!(one, other);
            }
        }
        assert_eq!(clusters.len(), 7, "pairs of one cluster would be taken for each other");
    }
}

#[test]
fn a_tenant_label_takes_the_place_of_one_that_targets_have() {
    for name in ["namespace", "job", "team", "Tenant"] {
        let fleet =
            Fleet::build(&FleetConfig { tenant_label: name.to_owned(), labels: 12, ..small() }).unwrap();
        for series in bodies(&fleet, 0).into_iter().flatten() {
            assert_eq!(series.labels.len(), 12);
            assert!(series.labels.is_sorted_by(|a, b| a.name < b.name), "{series:?}");
            assert!(series.label(name).unwrap().starts_with(b"team-"));
        }
    }
}

#[test]
fn metadata_is_a_body_of_its_own() {
    assert!(Fleet::build(&small()).unwrap().metadata.is_none());
    let fleet = Fleet::build(&FleetConfig { metadata_every: 7, ..small() }).unwrap();
    let (every, body) = fleet.metadata.unwrap();
    let request = decoded(&body);
    assert_eq!((every, request.timeseries.len()), (7, 0));
    assert!(request.metadata.len() > 30 && body.shares.is_empty());
    assert!(request.metadata.iter().all(|entry| entry.r#type != 0 && !entry.help.is_empty()));
}
