//! Properties of splitting Remote Write 1.0, for arbitrary requests and for broken ones. The parts, merged and
//! inflated, are what prost decodes of the original for each tenant. Unknown fields and the bits of every NaN are
//! intact.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its requests are small")]

#[path = "../fuzz/checks/scan.rs"]
mod scan;
#[path = "../fuzz/checks/snappy.rs"]
mod snappy;
mod strategies;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use strategies::{
    double, ha_labels, mutate, mutations, pad, tenant_rules, unknown, unknown_other, unknown_scalar,
};
use tenantry::model::{HaLabels, MergeKey, Part, SplitLimits};
use tenantry::split::{Body, Metadata, SplitError, SplitRules, Splitter};
use tenantry::tenant::{Policy, TenantRules};
use testkit::fields::field;
use testkit::oracle;
use testkit::proto;

// ---- Requests ----

/// Up to `max` fields, one after another.
fn fields(field: impl Strategy<Value = Vec<u8>>, max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(field, 0..=max).prop_map(|fields| fields.concat())
}

/// Names that mean something to the rules, and others.
fn name() -> impl Strategy<Value = String> {
    let known = ["t", "t", "t", "tenant", "team", "", "c", "r", "__name__"].map(str::to_owned);
    prop_oneof![6 => select(known.to_vec()), 1 => "[a-zé]{1,3}", 1 => "n{120,140}"]
}

fn value() -> impl Strategy<Value = String> {
    let known =
        ["a", "b", "c", "d", "ab", "ba", "cab", "d1", "", "x/y", "..", "two words"].map(str::to_owned);
    prop_oneof![12 => select(known.to_vec()), 1 => "\\PC{0,4}", 1 => "v{120,300}"]
}

/// A label, mostly as encoders write it, else with its fields in any order and number.
fn label() -> impl Strategy<Value = Vec<u8>> {
    let name_field = || (name(), pad()).prop_map(|(name, pad)| field(1, name.as_bytes(), pad));
    let value_field = || (value(), pad()).prop_map(|(value, pad)| field(2, value.as_bytes(), pad));
    let plain = (name(), value()).prop_map(|(name, value)| proto::Label::new(&name, &value).encode_to_vec());
    let odd = fields(prop_oneof![2 => name_field(), 2 => value_field(), 1 => unknown()], 5);
    let bytes = prop_oneof![5 => plain, 1 => odd];
    (bytes, pad()).prop_map(|(bytes, pad)| field(1, &bytes, pad))
}

/// The field of a sample, an exemplar or a histogram, sometimes with an unknown field in it.
fn point() -> impl Strategy<Value = Vec<u8>> {
    let sample = (double(), any::<i64>())
        .prop_map(|(value, timestamp)| (2, proto::Sample { value, timestamp }.encode_to_vec()));
    let labels = vec((name(), value()).prop_map(|(name, value)| proto::Label::new(&name, &value)), 0..2);
    let exemplar = (labels, double(), any::<i64>()).prop_map(|(labels, value, timestamp)| {
        (3, proto::Exemplar { labels, value, timestamp }.encode_to_vec())
    });
    let spans = vec((any::<i32>(), any::<u32>()), 0..3);
    let histogram = (any::<u64>(), double(), any::<i32>(), spans, vec(any::<i64>(), 0..4)).prop_map(
        |(count, sum, schema, spans, positive_deltas)| {
            let span = |(offset, length)| proto::BucketSpan { offset, length };
            let positive_spans = spans.into_iter().map(span).collect();
            let histogram = proto::Histogram {
                count: Some(proto::HistogramCount::Int(count)),
                sum,
                schema,
                positive_spans,
                positive_deltas,
                ..Default::default()
            };
            (4, histogram.encode_to_vec())
        },
    );
    let extra = prop_oneof![4 => Just(Vec::new()), 1 => unknown()];
    (prop_oneof![3 => sample, 1 => exemplar, 1 => histogram], extra, pad())
        .prop_map(|((number, bytes), extra, pad)| field(number, &[bytes, extra].concat(), pad))
}

fn series() -> impl Strategy<Value = Vec<u8>> {
    let bytes = fields(prop_oneof![5 => label(), 3 => point(), 1 => unknown()], 7);
    (bytes, pad()).prop_map(|(bytes, pad)| field(1, &bytes, pad))
}

fn metadata() -> impl Strategy<Value = Vec<u8>> {
    let metadata = (0..8_i32, name(), value()).prop_map(|(r#type, family, help)| {
        let (metric_family_name, help, unit) = (family.into(), help.into(), "s".into());
        proto::MetricMetadata { r#type, metric_family_name, help, unit }.encode_to_vec()
    });
    (metadata, fields(unknown(), 1), pad())
        .prop_map(|(bytes, extra, pad)| field(3, &[bytes, extra].concat(), pad))
}

/// A `WriteRequest` that prost accepts, in an arbitrary encoding.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let with_all = prop_oneof![
        14 => series(),
        3 => metadata(),
        1 => unknown_scalar(),
        1 => unknown_other(),
        // Cortex' `source`.
        1 => Just(vec![0x10, 1]),
    ];
    prop_oneof![fields(series(), 12), fields(with_all, 12)]
}

// ---- Rules ----

#[derive(Clone, Debug)]
struct Rules {
    tenant: TenantRules,
    metadata: bool,
    ha: Option<HaLabels>,
    tenants_max: usize,
    source: Option<&'static str>,
}

impl Rules {
    fn split_rules(&self) -> SplitRules<'_> {
        let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: self.tenants_max };
        SplitRules {
            metadata: if self.metadata { Metadata::ToDefault } else { Metadata::Drop },
            ha: self.ha.as_ref(),
            ..SplitRules::new(&self.tenant, limits)
        }
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let labels = vec![vec!["t"], vec!["t"], vec!["tenant", "t"], vec!["team", "", "t", "tenant"]];
    let source = select(vec![None, Some(""), Some("s"), Some("s s")]);
    let tenants_max = select(vec![1, 3, 100, 100, 100, 100]);
    (tenant_rules(labels), any::<bool>(), ha_labels(), tenants_max, source).prop_map(
        |(tenant, metadata, ha, tenants_max, source)| Rules { tenant, metadata, ha, tenants_max, source },
    )
}

// ---- Properties ----

/// The part of a decoded request: the series at `origin`, without the labels that are taken out.
fn filtered(original: &proto::WriteRequest, part: &oracle::Part) -> proto::WriteRequest {
    let series = |&(at, cut): &(usize, Option<usize>)| {
        let mut series = original.timeseries[at].clone();
        if let Some(cut) = cut {
            series.labels.remove(cut);
        }
        series
    };
    let metadata = if part.metadata { original.metadata.clone() } else { Vec::new() };
    proto::WriteRequest { timeseries: part.origin.iter().map(series).collect(), metadata }
}

/// Compares bit by bit: two NaNs are never equal, and two different ones may print alike.
fn assert_same(ours: &proto::WriteRequest, theirs: &proto::WriteRequest) {
    assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec(), "{ours:?}\n{theirs:?}");
}

/// Parts that may share a request, merged: the sum of their lengths, and their elements.
#[derive(Default)]
struct Merged {
    tenant: String,
    merge: Option<MergeKey>,
    inflated_bytes: usize,
    elements: Vec<u8>,
    expected: proto::WriteRequest,
    expected_bytes: Vec<u8>,
}

fn merge(all: &mut Vec<Merged>, part: &Part, expected: &oracle::Part, request: &proto::WriteRequest) {
    let fits = |merged: &&mut Merged| {
        merged.tenant == part.tenant.as_str()
            && merged.merge.as_ref().is_some_and(|merge| merge.merges_with(&part.merge))
    };
    let merged = match all.iter_mut().find(fits) {
        Some(merged) => merged,
        None => {
            let merge = Some(part.merge.clone());
            all.push(Merged { tenant: part.tenant.to_string(), merge, ..Merged::default() });
            all.last_mut().unwrap()
        }
    };
    merged.inflated_bytes += part.inflated_bytes as usize;
    merged.elements.extend_from_slice(&part.elements);
    merged.expected_bytes.extend_from_slice(&expected.bytes);
    let expected = filtered(request, expected);
    merged.expected.timeseries.extend(expected.timeseries);
    merged.expected.metadata.extend(expected.metadata);
}

/// Splits the requests one after another, merges the parts that may merge, and compares the result with prost's.
fn split_and_merge(requests: &[Vec<u8>], rules: &Rules) {
    let mut splitter = Splitter::new();
    let mut all = Vec::new();
    for request in requests {
        let decoded = proto::WriteRequest::decode(request.as_slice());
        let expected = scan::expect(request, &rules.split_rules(), rules.source);
        match scan::compare(&mut splitter, request, &rules.split_rules(), rules.source) {
            Ok((scan, parts)) => {
                // The scanner does not decode samples, nor check text for UTF-8. The upstream does.
                let Ok(decoded) = decoded else { continue };
                assert_eq!(scan.series, decoded.timeseries.len() as u64);
                for (part, expected) in parts.iter().zip(&expected.unwrap().parts) {
                    merge(&mut all, part, expected, &decoded);
                }
            }
            Err(SplitError::Inflate(_) | SplitError::Malformed(_)) => assert!(decoded.is_err(), "refused"),
            Err(_) => {}
        }
    }
    for merged in all {
        let bytes = scan::common::inflate_elements(merged.inflated_bytes, &merged.elements);
        assert_eq!(bytes, merged.expected_bytes);
        assert_same(&proto::WriteRequest::decode(bytes.as_slice()).unwrap(), &merged.expected);
    }
}

/// The index of the label that decides, found in the simplest way.
fn first_by_priority(labels: &[proto::Label], names: &[&str]) -> Option<usize> {
    names
        .iter()
        .find_map(|name| labels.iter().position(|label| label.name == *name && !label.value.is_empty()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn requests_arrive_whole(requests in vec(request(), 1..4), rules in rules()) {
        for request in &requests {
            prop_assert!(proto::WriteRequest::decode(request.as_slice()).is_ok());
        }
        split_and_merge(&requests, &rules);
    }

    #[test]
    fn broken_requests_do_no_harm(request in request(), mutations in mutations(), rules in rules()) {
        let broken = mutate(request, &mutations);
        scan::check(&broken);
        split_and_merge(&[broken], &rules);
    }

    #[test]
    fn broken_blocks_do_no_harm(request in request(), mutations in mutations(), rules in rules()) {
        let block = snap::raw::Encoder::new().compress_vec(&request).unwrap();
        let block = mutate(block, &mutations);
        snappy::check(&block);
        let mut splitter = Splitter::new();
        let inflated = snap::raw::Decoder::new().decompress_vec(&block);
        match splitter.scan(Body::snappy_v1(Bytes::from(block)), &rules.split_rules(), rules.source) {
            Err(SplitError::Inflate(_)) => {}
            Ok(scan) => prop_assert_eq!(scan.inflated_bytes, inflated.unwrap().len()),
            Err(_) => prop_assert!(inflated.is_ok()),
        }
        while splitter.next_part().is_some() {}
    }

    #[test]
    fn the_first_label_by_priority_decides_and_is_the_one_removed(
        labels in vec((name(), value()).prop_map(|(name, value)| proto::Label::new(&name, &value)), 0..8),
        names in select(vec![vec!["t"], vec!["t", "tenant"], vec!["tenant", "t"], vec!["c", "", "t"]]),
        label_remove in any::<bool>(),
    ) {
        let series = proto::TimeSeries { labels, ..Default::default() };
        let tenant = TenantRules {
            named_by: tenantry::tenant::NamedBy::Label,
labels: names.iter().map(|name| name.as_bytes().into()).collect(),
            label_remove,
            default: Some("nobody".into()),
            on_invalid: Policy::Drop,
            ..scan::common::tenant_rules()
        };
        let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 1 };
        let rules = SplitRules::new(&tenant, limits);
        let request = proto::WriteRequest { timeseries: vec![series.clone()], metadata: Vec::new() };
        let block = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
        let mut splitter = Splitter::new();
        let scan = splitter.scan(Body::snappy_v1(Bytes::from(block)), &rules, None).unwrap();
        let deciding = first_by_priority(&series.labels, &names);
        let value = deciding.map_or(&b"nobody"[..], |at| &series.labels[at].value);
        let Some(part) = splitter.next_part() else {
            prop_assert!(tenantry::tenant::check_id(value, tenant.id_rules).is_err());
            prop_assert_eq!(scan.refused.invalid, 1);
            return Ok(());
        };
        prop_assert_eq!(part.tenant.as_str().as_bytes(), value);
        let bytes = scan::common::inflate(&part);
        let mut expected = series.clone();
        if let (true, Some(deciding)) = (label_remove, deciding) {
            expected.labels.remove(deciding);
        }
        let arrived = proto::WriteRequest::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(arrived.timeseries, vec![expected]);
    }
}
