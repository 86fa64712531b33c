//! Properties of splitting Remote Write 2.0, for arbitrary requests and for broken ones. The parts have the content
//! that prost decodes of the original for each tenant, with only the symbols that they need. A downgraded part has the
//! content of a simple translation of the decoded messages.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: what fails is a finding")]
#![allow(clippy::cast_possible_truncation, reason = "a test: its requests are small")]

#[path = "../fuzz/checks/scan_v2.rs"]
mod scan_v2;
mod strategies;

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use prost::Message;
use strategies::{double, ha_labels, mutate, mutations, pad, tenant_rules, unknown};
use tenantry::model::{HaLabels, Protocol, SplitLimits, V2Handling};
use tenantry::split::{Lost, Merger, Scan, SplitRules, Splitter};
use tenantry::tenant::TenantRules;
use testkit::fields::{field, number, varint};
use testkit::proto;
use testkit::proto_v2::{Exemplar, Histogram, Metadata, Request, Sample, SymbolTable, TimeSeries};

// ---- Requests, byte by byte ----

/// Names that mean something to the rules, values that name tenants, and others.
fn symbol() -> impl Strategy<Value = String> {
    let known = [
        "t", "t", "tenant", "team", "c", "r", "__name__", "a", "b", "c", "d", "x/y", "..", "up", "h_bucket",
        "h_sum", "x_total", "help", "seconds", "",
    ];
    prop_oneof![12 => select(known.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,4}", 1 => "v{120,300}"]
}

/// References, and the fields that hold them: packed or not, how many, and with how much padding.
type References = (Vec<Index>, Vec<Piece>);
type Piece = (bool, usize, (usize, usize));

fn references(max: usize) -> impl Strategy<Value = References> {
    let pieces = prop_oneof![
        6 => Just(vec![(true, usize::MAX, (0, 0))]),
        2 => vec((any::<bool>(), 1..5_usize, pad()), 1..6),
    ];
    (vec(any::<Index>(), 0..=max), pieces)
}

/// The fields that hold references into a table of `symbols` symbols. Unless `odd`, their number is even.
fn encode((references, pieces): &References, symbols: usize, odd: bool) -> Vec<Vec<u8>> {
    let even = if odd { references.len() } else { references.len() & !1 };
    let all: Vec<u64> = references[..even].iter().map(|at| at.index(symbols) as u64).collect();
    let mut fields = Vec::new();
    let mut rest = &all[..];
    for &(is_packed, count, pad) in pieces.iter().cycle().take(all.len() + 1) {
        let (piece, behind) = rest.split_at(count.min(rest.len()));
        rest = behind;
        if is_packed {
            let packed: Vec<u8> = piece.iter().flat_map(|&reference| varint(reference, pad.1)).collect();
            fields.push(field(1, &packed, pad));
        } else {
            fields.extend(piece.iter().map(|&reference| number(1, reference, pad)));
        }
        if rest.is_empty() {
            break;
        }
    }
    fields
}

/// What a series holds besides its labels. References are fixed once the size of the table is known.
#[derive(Clone, Debug)]
enum Content {
    Raw(Vec<u8>),
    Exemplar(References, Vec<u8>),
    Metadata(u64, Index, Index, Vec<u8>),
}

fn content() -> impl Strategy<Value = Content> {
    let point = (select(vec![2_u32, 2, 3]), vec(any::<u8>(), 0..12), pad());
    let extra = || prop_oneof![4 => Just(Vec::new()), 1 => unknown()];
    prop_oneof![
        4 => point.prop_map(|(number, bytes, pad)| Content::Raw(field(number, &bytes, pad))),
        1 => unknown().prop_map(Content::Raw),
        1 => any::<i64>().prop_map(|time| Content::Raw(number(6, time as u64, (0, 0)))),
        2 => (references(4), extra()).prop_map(|(references, extra)| Content::Exemplar(references, extra)),
        2 => (0..9_u64, any::<Index>(), any::<Index>(), extra())
            .prop_map(|(kind, help, unit, extra)| Content::Metadata(kind, help, unit, extra)),
    ]
}

#[derive(Clone, Debug)]
struct RawSeries {
    labels: References,
    /// A pair of references into the fixed part of the table, in front of all others. Mostly a tenant's label.
    tenant: Option<(u64, u64)>,
    content: Vec<Content>,
    /// Members that are swapped with the first.
    order: Vec<Index>,
    odd: bool,
    pad: (usize, usize),
}

impl RawSeries {
    fn encode(&self, symbols: usize) -> Vec<u8> {
        let mut members = Vec::new();
        if let Some((name, value)) = self.tenant {
            let value = value.min(symbols as u64 - 1);
            members.push(field(1, &[varint(name, 0), varint(value, 0)].concat(), (0, 0)));
        }
        let labels = encode(&self.labels, symbols, self.odd);
        match members.first_mut() {
            // One field for all references, as encoders write it.
            Some(first) if labels.len() == 1 && labels[0].starts_with(&[0x0a]) && labels[0].len() < 100 => {
                *first = field(1, &[&first[2..], &labels[0][2..]].concat(), (0, 0));
            }
            _ => members.extend(labels),
        }
        for content in &self.content {
            members.push(match content {
                Content::Raw(bytes) => bytes.clone(),
                Content::Exemplar(references, extra) => {
                    let mut members = encode(references, symbols, false);
                    members.insert(members.len() / 2, vec![0x11, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
                    field(4, &[members.concat(), extra.clone()].concat(), self.pad)
                }
                Content::Metadata(kind, help, unit, extra) => {
                    let reference =
                        |of: u32, at: &Index| number(of, at.index(symbols) as u64, (0, self.pad.1));
                    let all =
                        [number(1, *kind, (0, 0)), reference(3, help), reference(4, unit), extra.clone()];
                    field(5, &all.concat(), self.pad)
                }
            });
        }
        for at in &self.order {
            let at = at.index(members.len().max(1));
            if at < members.len() {
                members.swap(0, at);
            }
        }
        field(5, &members.concat(), self.pad)
    }
}

fn raw_series() -> impl Strategy<Value = RawSeries> {
    // 1 is `t`; 2 to 5 name tenants.
    let tenant = prop_oneof![6 => (Just(1_u64), 2..6_u64).prop_map(Some), 1 => Just(None)];
    let order = prop_oneof![4 => Just(Vec::new()), 1 => vec(any::<Index>(), 2..5)];
    let odd = prop_oneof![30 => Just(false), 1 => Just(true)];
    (references(9), tenant, vec(content(), 0..5), order, odd, pad()).prop_map(
        |(labels, tenant, content, order, odd, pad)| RawSeries { labels, tenant, content, order, odd, pad },
    )
}

/// A request that prost accepts, in an arbitrary encoding.
fn raw_request() -> impl Strategy<Value = Vec<u8>> {
    let fixed = ["", "t", "a", "b", "c", "d"].map(str::to_owned);
    let symbols = (vec(symbol(), 0..30), 0..=3_usize).prop_map(move |(more, pad)| {
        let all = fixed.iter().chain(&more);
        all.map(|symbol| field(4, symbol.as_bytes(), (0, if symbol.len() == 1 { pad } else { 0 }))).collect()
    });
    let place = prop_oneof![6 => Just(0), 1 => Just(1), 1 => Just(2)];
    let extra = prop_oneof![5 => Just(Vec::new()), 1 => unknown()];
    (symbols, vec(raw_series(), 0..10), place, extra).prop_map(|(symbols, series, place, extra)| {
        let symbols: Vec<Vec<u8>> = symbols;
        let mut fields: Vec<Vec<u8>> = series.iter().map(|series| series.encode(symbols.len())).collect();
        fields.push(extra);
        match place {
            0 => fields.insert(0, symbols.concat()),
            1 => fields.push(symbols.concat()),
            _ => {
                for (at, symbol) in symbols.into_iter().enumerate() {
                    fields.insert((at * 2).min(fields.len()), symbol);
                }
            }
        }
        fields.concat()
    })
}

// ---- Rules ----

#[derive(Clone, Debug)]
struct Rules {
    tenant: TenantRules,
    ha: Option<HaLabels>,
    tenants_max: usize,
    source: Option<&'static str>,
}

impl Rules {
    fn split_rules(&self, remote_write_v2: V2Handling) -> SplitRules<'_> {
        let limits = SplitLimits { inflated_bytes_max: 1 << 22, tenants_max: self.tenants_max };
        SplitRules { ha: self.ha.as_ref(), remote_write_v2, ..SplitRules::new(&self.tenant, limits) }
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let labels = vec![vec!["t"], vec!["t"], vec!["tenant", "t"], vec!["team", "", "t", "tenant"]];
    let source = select(vec![None, Some("s")]);
    let tenants_max = select(vec![1, 3, 100, 100, 100]);
    (tenant_rules(labels), ha_labels(), tenants_max, source)
        .prop_map(|(tenant, ha, tenants_max, source)| Rules { tenant, ha, tenants_max, source })
}

// ---- Messages ----

/// A series with its labels and metadata in place of references.
#[derive(Clone, Debug)]
struct Told {
    labels: Vec<(String, String)>,
    series: TimeSeries,
    exemplar_labels: Vec<Vec<(String, String)>>,
    /// Type, help text and unit.
    metadata: Option<(i32, String, String)>,
}

fn labels(max: usize) -> impl Strategy<Value = Vec<(String, String)>> {
    let name = select(vec!["t", "t", "tenant", "__name__", "__name__", "c", "r", "job"]);
    let value = select(vec![
        "a",
        "b",
        "a",
        "b",
        "c",
        "",
        "up",
        "x_total",
        "h_bucket",
        "h_sum",
        "h_count",
        "_sum",
        "gh_gcount",
    ]);
    vec((name, value).prop_map(|(name, value)| (name.to_owned(), value.to_owned())), 0..=max)
}

fn histogram() -> impl Strategy<Value = Histogram> {
    let schema = select(vec![-53, -53, -52, 0, 8, 53]);
    let values = (vec(any::<i64>(), 0..3), vec(double(), 0..2), double(), any::<i64>());
    (schema, values, select(vec![0, 0, 7, -1])).prop_map(
        |(schema, (positive_deltas, custom_values, sum, timestamp), start_timestamp)| Histogram {
            count: Some(proto::HistogramCount::Int(3)),
            positive_spans: vec![proto::BucketSpan { offset: -1, length: 2 }],
            schema,
            positive_deltas,
            custom_values,
            sum,
            timestamp,
            start_timestamp,
            ..Histogram::default()
        },
    )
}

fn told() -> impl Strategy<Value = Told> {
    let sample = (double(), any::<i64>(), select(vec![0, 0, 5]))
        .prop_map(|(value, timestamp, start_timestamp)| Sample { value, timestamp, start_timestamp });
    let exemplar = (double(), any::<i64>()).prop_map(|(value, timestamp)| Exemplar {
        labels_refs: Vec::new(),
        value,
        timestamp,
    });
    let text = || select(vec!["", "help", "t", "seconds"]).prop_map(str::to_owned);
    let metadata = prop_oneof![1 => Just(None), 2 => (0..8, text(), text()).prop_map(Some)];
    let created = select(vec![0, 0, 0, 9]);
    let points = (vec(sample, 0..3), vec(histogram(), 0..2), vec((exemplar, labels(2)), 0..2));
    (labels(5), points, metadata, created).prop_map(
        |(labels, (samples, histograms, exemplars), metadata, created_timestamp)| {
            let (exemplars, exemplar_labels) = exemplars.into_iter().unzip();
            let series =
                TimeSeries { samples, histograms, exemplars, created_timestamp, ..TimeSeries::default() };
            Told { labels, series, exemplar_labels, metadata }
        },
    )
}

fn references_to(table: &mut SymbolTable, labels: &[(String, String)]) -> Vec<u32> {
    table.references(labels.iter().map(|(name, value)| (name.clone(), value.clone())))
}

fn encode_told<'a>(all: impl IntoIterator<Item = &'a Told>) -> Request {
    let mut table = SymbolTable::default();
    let timeseries = all.into_iter().map(|told| {
        let mut series = told.series.clone();
        series.labels_refs = references_to(&mut table, &told.labels);
        for (exemplar, labels) in series.exemplars.iter_mut().zip(&told.exemplar_labels) {
            exemplar.labels_refs = references_to(&mut table, labels);
        }
        series.metadata = told.metadata.as_ref().map(|(kind, help, unit)| Metadata {
            r#type: *kind,
            help_ref: table.reference(help.clone()),
            unit_ref: table.reference(unit.clone()),
        });
        series
    });
    let timeseries = timeseries.collect();
    Request { symbols: table.into_symbols(), timeseries }
}

/// The series of each tenant by [`told_rules`], with their places and without the label that names the tenant.
fn by_tenant(all: &[Told]) -> Vec<(String, Vec<(usize, Told)>)> {
    let mut parts: Vec<(String, Vec<(usize, Told)>)> = Vec::new();
    for (at, told) in all.iter().enumerate() {
        let mut told = told.clone();
        let deciding = told.labels.iter().position(|(name, value)| name == "t" && !value.is_empty());
        let tenant = deciding.map_or("d".to_owned(), |at| told.labels.remove(at).1);
        match parts.iter_mut().find(|(known, _)| *known == tenant) {
            Some((_, series)) => series.push((at, told)),
            None => parts.push((tenant, vec![(at, told)])),
        }
    }
    parts
}

fn told_rules() -> TenantRules {
    TenantRules { label_remove: true, default: Some("d".into()), ..scan_v2::common::tenant_rules() }
}

fn split_told(all: &[Told], remote_write_v2: V2Handling) -> (Scan, Vec<(String, Protocol, Vec<u8>)>) {
    let (tenant, limits) = (told_rules(), SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 100 });
    let rules = SplitRules { remote_write_v2, ..SplitRules::new(&tenant, limits) };
    let request = encode_told(all).encode_to_vec();
    let (scan, parts) = scan_v2::split(&mut Splitter::new(), &request, &rules, None).unwrap();
    let parts =
        parts.iter().map(|part| (part.tenant.to_string(), part.protocol, scan_v2::common::inflate(part)));
    (scan, parts.collect())
}

/// Translates a series to 1.0. `None` if nothing of it is left. `lost` counts what 1.0 does not have.
fn translate(told: &Told, lost: &mut Lost) -> Option<proto::TimeSeries> {
    let label = |(name, value): &(String, String)| proto::Label::new(name, value);
    let series = &told.series;
    lost.start_timestamps += u64::from(series.created_timestamp != 0);
    let samples = series.samples.iter().map(|sample| {
        lost.start_timestamps += u64::from(sample.start_timestamp != 0);
        proto::Sample { value: sample.value, timestamp: sample.timestamp }
    });
    let samples: Vec<_> = samples.collect();
    let mut histograms = Vec::new();
    for histogram in &series.histograms {
        if histogram.schema == -53 {
            lost.custom_histograms += 1;
            continue;
        }
        lost.start_timestamps += u64::from(histogram.start_timestamp != 0);
        histograms.push(Histogram { start_timestamp: 0, ..histogram.clone() });
    }
    let exemplars =
        series.exemplars.iter().zip(&told.exemplar_labels).map(|(exemplar, labels)| proto::Exemplar {
            labels: labels.iter().map(label).collect(),
            value: exemplar.value,
            timestamp: exemplar.timestamp,
        });
    let exemplars: Vec<_> = exemplars.collect();
    let says = !samples.is_empty() || !histograms.is_empty() || !exemplars.is_empty();
    says.then(|| proto::TimeSeries {
        labels: told.labels.iter().map(label).collect(),
        samples,
        exemplars,
        histograms,
    })
}

/// The metadata of a series' metric family, if it has any.
fn family(told: &Told) -> Option<(Bytes, proto::MetricMetadata)> {
    let (kind, help, unit) = told.metadata.clone()?;
    if kind == 0 && help.is_empty() && unit.is_empty() {
        return None;
    }
    let name = told.labels.iter().find(|(name, _)| name == "__name__").map_or("", |(_, value)| value);
    let suffixes = match proto::MetricType::try_from(kind).unwrap() {
        proto::MetricType::Counter => vec!["_total"],
        proto::MetricType::Histogram => vec!["_bucket", "_sum", "_count"],
        proto::MetricType::GaugeHistogram => vec!["_bucket", "_gsum", "_gcount"],
        proto::MetricType::Summary => vec!["_sum", "_count"],
        proto::MetricType::Info => vec!["_info"],
        _ => vec![],
    };
    let short =
        suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|short| !short.is_empty());
    let name = Bytes::copy_from_slice(short.unwrap_or(name).as_bytes());
    let metadata = proto::MetricMetadata {
        r#type: kind,
        metric_family_name: name.clone(),
        help: help.into(),
        unit: unit.into(),
    };
    Some((name, metadata))
}

/// The expected result of a downgrade: the parts, what is lost, and the count of metadata without a family.
fn model(all: &[Told]) -> (Vec<(String, proto::WriteRequest)>, Lost, u64) {
    let (mut lost, mut nameless) = (Lost::default(), 0);
    let mut parts: Vec<(String, usize, proto::WriteRequest)> = Vec::new();
    for (tenant, series) in by_tenant(all) {
        let mut request = proto::WriteRequest::default();
        let mut families = BTreeSet::new();
        let mut first = usize::MAX;
        for (at, told) in &series {
            let translated = translate(told, &mut lost);
            let family = family(told);
            let has_family = family.as_ref().is_some_and(|(name, _)| !name.is_empty());
            nameless += u64::from(family.is_some() && !has_family);
            lost.series += u64::from(translated.is_none() && !has_family);
            if translated.is_some() || has_family {
                first = first.min(*at);
            }
            request.timeseries.extend(translated);
            if let Some((name, metadata)) = family.filter(|_| has_family)
                && families.insert(name)
            {
                request.metadata.push(metadata);
            }
        }
        if first < usize::MAX {
            parts.push((tenant, first, request));
        }
    }
    parts.sort_by_key(|(_, first, _)| *first);
    (parts.into_iter().map(|(tenant, _, request)| (tenant, request)).collect(), lost, nameless)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn requests_arrive_whole(
        requests in vec(raw_request(), 1..4),
        rules in rules(),
        bytes_max in prop_oneof![Just(usize::MAX), 1..4_000_usize],
    ) {
        let mut splitter = Splitter::new();
        let mut all = Vec::new();
        for request in &requests {
            let pass = rules.split_rules(V2Handling::Pass);
            if let Ok((_, parts)) = scan_v2::compare(&mut splitter, request, &pass, rules.source) {
                all.extend(parts);
            }
            let downgrade = rules.split_rules(V2Handling::Downgrade);
            scan_v2::downgrade(&mut splitter, request, &downgrade, rules.source);
        }
        scan_v2::merge(&mut Merger::default(), &all, bytes_max);
    }

    #[test]
    fn broken_requests_do_no_harm(
        request in raw_request(),
        mutations in mutations(),
    ) {
        scan_v2::check(&mutate(request, &mutations));
    }

    #[test]
    fn each_tenant_gets_what_its_series_say(all in vec(told(), 1..12)) {
        let (scan, parts) = split_told(&all, V2Handling::Pass);
        let expected = by_tenant(&all);
        prop_assert_eq!(parts.len(), expected.len());
        for ((tenant, protocol, bytes), (expected_tenant, series)) in parts.iter().zip(&expected) {
            prop_assert_eq!((tenant, *protocol), (expected_tenant, Protocol::RemoteWriteV2));
            // The symbols are in the order in which the series refer to them, as in a table made of these series alone.
            let expected = match scan.passthrough {
                true => encode_told(&all),
                false => encode_told(series.iter().map(|(_, told)| told)),
            };
            let part = Request::decode(&bytes[..]).unwrap();
            // Bit by bit: two NaNs are never equal, and two different ones may print alike.
            prop_assert_eq!(part.encode_to_vec(), expected.encode_to_vec(), "{:?}\n{:?}", part, expected);
        }
    }

    #[test]
    fn merged_parts_say_what_all_requests_say(requests in vec(vec(told(), 1..6), 1..5)) {
        let (tenant, limits) = (told_rules(), SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 100 });
        let rules = SplitRules::new(&tenant, limits);
        let mut parts = Vec::new();
        for all in &requests {
            let request = encode_told(all).encode_to_vec();
            parts.extend(scan_v2::split(&mut Splitter::new(), &request, &rules, None).unwrap().1);
        }
        parts.retain(|part| part.tenant.as_str() == "d");
        let of_d = |all: &Vec<Told>| by_tenant(all).into_iter().find(|(tenant, _)| tenant == "d");
        let told: Vec<Told> =
            requests.iter().filter_map(of_d).flat_map(|(_, series)| series).map(|(_, told)| told).collect();
        let Some(merged) = Merger::default().merge(&parts, usize::MAX) else {
            prop_assert!(told.is_empty());
            return Ok(());
        };
        prop_assert_eq!(merged.parts, parts.len());
        let bytes = scan_v2::common::inflate_elements(merged.inflated_bytes as usize, &merged.elements);
        let (request, expected) = (Request::decode(&bytes[..]).unwrap(), encode_told(&told));
        prop_assert_eq!(request.encode_to_vec(), expected.encode_to_vec(), "{:?}\n{:?}", request, expected);
    }

    #[test]
    fn a_downgrade_is_a_translation(all in vec(told(), 1..12)) {
        let (scan, parts) = split_told(&all, V2Handling::Downgrade);
        let (expected, lost, nameless) = model(&all);
        prop_assert_eq!((scan.lost, scan.metadata_dropped), (lost, nameless));
        prop_assert_eq!(parts.len(), expected.len());
        for ((tenant, protocol, bytes), (expected_tenant, expected)) in parts.iter().zip(&expected) {
            prop_assert_eq!((tenant, *protocol), (expected_tenant, Protocol::RemoteWriteV1));
            let part = proto::WriteRequest::decode(&bytes[..]).unwrap();
            prop_assert_eq!(part.encode_to_vec(), expected.encode_to_vec(), "{:?}\n{:?}", part, expected);
        }
    }
}
