//! What is decided about one series agrees with what the splitter does, for arbitrary rules, grants and requests in
//! every format: the same tenants with the same series and samples, the same labels removed, the same refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its requests are small")]

#[path = "../fuzz/checks/common.rs"]
mod common;
mod strategies;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use tenantry::model::{Part, Protocol, SplitLimits};
use tenantry::split::{Body, Compression, Scan, SplitError, SplitRules, Splitter, each_series};
use tenantry::tenant::{Decision, Grant, Policy, TenantError, TenantRules};
use testkit::{proto, proto_loki, proto_v2};

const LIMITS: SplitLimits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 1_000 };

type Pairs = Vec<(&'static str, &'static str)>;

/// A series with so many samples; for a stream, the metadata of each entry.
#[derive(Clone, Debug)]
struct Given {
    labels: Pairs,
    entries: Vec<Pairs>,
}

fn pairs() -> impl Strategy<Value = Pairs> {
    let names = vec!["t", "t", "tenant", "team", "a", "__name__"];
    let values = vec!["a", "b", "c", "d", "ab", "ba", "cab", "d1", "", "x y", ".."];
    vec((select(names), select(values)), 0..4)
}

fn requests() -> impl Strategy<Value = Vec<Given>> {
    let given = (pairs(), vec(pairs(), 1..4)).prop_map(|(labels, entries)| Given { labels, entries });
    vec(given, 1..6)
}

fn grants() -> impl Strategy<Value = Grant> {
    select(vec![
        Grant::Any,
        Grant::Any,
        Grant::Header,
        Grant::Forced("f".into()),
        Grant::Forced("x y".into()),
        Grant::Named(["a".into(), "d".into()].into()),
    ])
}

fn sources() -> impl Strategy<Value = Option<&'static str>> {
    select(vec![None, Some(""), Some("a"), Some("x y")])
}

fn v1(request: &[Given]) -> Vec<u8> {
    let series = |given: &Given| {
        let samples: Vec<_> = (0..given.entries.len() as i64).map(|at| (at, 1.0)).collect();
        proto::TimeSeries::new(&given.labels, &samples)
    };
    proto::WriteRequest { timeseries: request.iter().map(series).collect(), metadata: vec![] }.encode_to_vec()
}

fn v2(request: &[Given]) -> Vec<u8> {
    let mut symbols = vec![Bytes::new()];
    let mut reference = |text: &'static str| {
        let known = symbols.iter().position(|symbol| symbol == text.as_bytes());
        let at = known.unwrap_or_else(|| {
            symbols.push(Bytes::from_static(text.as_bytes()));
            symbols.len() - 1
        });
        at as u32
    };
    let series = |given: &Given| proto_v2::TimeSeries {
        labels_refs: given
            .labels
            .iter()
            .flat_map(|(name, value)| [*name, *value])
            .map(&mut reference)
            .collect(),
        samples: vec![proto_v2::Sample { value: 1.0, ..Default::default() }; given.entries.len()],
        ..Default::default()
    };
    let timeseries = request.iter().map(series).collect();
    proto_v2::Request { symbols, timeseries }.encode_to_vec()
}

fn loki(request: &[Given]) -> Vec<u8> {
    let stream = |given: &Given| {
        let labels: Vec<_> = given.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let entries = given.entries.iter().map(|metadata| proto_loki::Entry::new(1, "x", metadata)).collect();
        proto_loki::Stream { labels: format!("{{{}}}", labels.join(",")).into(), entries, hash: 0 }
    };
    proto_loki::PushRequest { streams: request.iter().map(stream).collect() }.encode_to_vec()
}

/// What each tenant gets: series and samples.
type Parts = BTreeMap<String, (u32, u32)>;

fn split(body: &Body, rules: &SplitRules<'_>, source: Option<&str>) -> Result<(Scan, Vec<Part>), SplitError> {
    let mut splitter = Splitter::new();
    let scan = splitter.scan(body.clone(), rules, source)?;
    Ok((scan, std::iter::from_fn(|| splitter.next_part()).collect()))
}

/// The decision about each series, or each entry with metadata, with its place and samples.
fn decisions(body: &Body, rules: &SplitRules<'_>, source: Option<&str>) -> Vec<(u64, u64, Decision)> {
    let removes = match body.protocol {
        Protocol::Loki | Protocol::LokiJson => rules.loki_label_remove,
        _ => rules.tenant.label_remove,
    };
    let mut all = Vec::new();
    each_series(body.clone(), LIMITS, usize::MAX, |series| {
        let decision = series.decide(rules.tenant, source, rules.grant, removes);
        all.push((series.place, series.samples, decision));
        ControlFlow::Continue(())
    })
    .unwrap();
    all
}

fn expected_parts(decisions: &[(u64, u64, Decision)]) -> Parts {
    let mut places: BTreeMap<String, (BTreeSet<u64>, u64)> = BTreeMap::new();
    for (place, samples, decision) in decisions {
        if let Ok(tenant) = &decision.tenant {
            let part = places.entry(tenant.to_string()).or_default();
            part.0.insert(*place);
            part.1 += samples;
        }
    }
    places
        .into_iter()
        .map(|(tenant, (places, samples))| (tenant, (places.len() as u32, samples as u32)))
        .collect()
}

/// Compares a request's split with the decisions about its series.
fn compare(body: &Body, rules: &SplitRules<'_>, source: Option<&str>) {
    let decisions = decisions(body, rules, source);
    let policy = |error: &TenantError| match error {
        TenantError::Missing { .. } => rules.tenant.on_missing,
        TenantError::Invalid { .. } | TenantError::Denied { .. } => rules.tenant.on_invalid,
        TenantError::Dropped { .. } => Policy::Drop,
    };
    let errors: Vec<_> =
        decisions.iter().filter_map(|(_, _, decision)| decision.tenant.as_ref().err()).collect();
    let rejected = errors.iter().any(|error| policy(error) == Policy::Reject);
    let (scan, parts) = match split(body, rules, source) {
        Ok(split) => split,
        Err(SplitError::Tenant { error, .. }) => {
            assert!(rejected && errors.contains(&&error), "{error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert!(!rejected, "{errors:?}");
    let ours: Parts =
        parts.iter().map(|part| (part.tenant.to_string(), (part.series, part.samples))).collect();
    assert_eq!(ours, expected_parts(&decisions));
    let count = |word: &str| {
        let of_word = decisions.iter().filter(|(_, _, decision)| decision.word() == word);
        of_word.map(|(place, ..)| *place).collect::<BTreeSet<_>>().len() as u64
    };
    let refused = &scan.refused;
    assert_eq!(
        [refused.missing, refused.invalid, refused.denied, refused.dropped],
        ["missing", "invalid", "denied", "dropped"].map(count)
    );
}

/// The labels of each tenant's series after the deciding one was removed, in order.
fn expected_labels(request: &[Given], decisions: &[(u64, u64, Decision)]) -> BTreeMap<String, Vec<Pairs>> {
    let mut all: BTreeMap<String, Vec<Pairs>> = BTreeMap::new();
    for (place, _, decision) in decisions {
        let Ok(tenant) = &decision.tenant else { continue };
        let mut labels = request[*place as usize - 1].labels.clone();
        if decision.label_removed {
            let removed = decision.label.as_ref().unwrap();
            let is = |(name, value): &(&str, &str)| {
                name.as_bytes() == &*removed.name && value.as_bytes() == &*removed.value
            };
            labels.remove(labels.iter().position(is).unwrap());
        }
        all.entry(tenant.to_string()).or_default().push(labels);
    }
    all
}

proptest! {
    #[test]
    fn decisions_agree_with_the_splitter(
        request in requests(),
        tenant in strategies::tenant_rules(vec![vec!["t"], vec!["t", "tenant"], vec!["team", "t"]]),
        loki_label_remove: bool,
        grant in grants(),
        source in sources(),
    ) {
        let rules = SplitRules { grant: &grant, loki_label_remove, ..SplitRules::new(&tenant, LIMITS) };
        let bodies = [
            (Protocol::RemoteWriteV1, v1(&request)),
            (Protocol::RemoteWriteV2, v2(&request)),
            (Protocol::Loki, loki(&request)),
        ];
        for (protocol, bytes) in bodies {
            compare(&Body { protocol, compression: Compression::Identity, bytes: bytes.into() }, &rules, source);
        }
    }

    #[test]
    fn the_label_that_is_told_to_be_removed_is_removed(
        request in requests(),
        tenant in strategies::tenant_rules(vec![vec!["t"], vec!["t", "tenant"]]),
        grant in grants(),
        source in sources(),
    ) {
        let tenant = TenantRules { on_missing: Policy::Drop, on_invalid: Policy::Drop, ..tenant };
        let rules = SplitRules { grant: &grant, ..SplitRules::new(&tenant, LIMITS) };
        let bytes = v1(&request).into();
        let body = Body { protocol: Protocol::RemoteWriteV1, compression: Compression::Identity, bytes };
        let decisions = decisions(&body, &rules, source);
        let (_, parts) = split(&body, &rules, source).unwrap();
        let labels_of = |part: &Part| {
            let request = proto::WriteRequest::decode(&*common::inflate(part)).unwrap();
            let series = request.timeseries.into_iter().map(|series| {
                let labels = series.labels.into_iter();
                labels.map(|label| (label.name, label.value)).collect::<Vec<_>>()
            });
            series.collect::<Vec<_>>()
        };
        let ours: BTreeMap<_, _> =
            parts.iter().map(|part| (part.tenant.to_string(), labels_of(part))).collect();
        let expected = expected_labels(&request, &decisions);
        let bytes = |pairs: Pairs| {
            let of_pair = |(name, value): (&'static str, &'static str)| {
                (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()))
            };
            pairs.into_iter().map(of_pair).collect::<Vec<_>>()
        };
        let expected: BTreeMap<_, _> = expected
            .into_iter()
            .map(|(tenant, series)| (tenant, series.into_iter().map(bytes).collect::<Vec<_>>()))
            .collect();
        prop_assert_eq!(ours, expected);
    }
}
