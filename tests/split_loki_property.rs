//! Properties of splitting Loki pushes, for arbitrary pushes in any encoding and for broken ones. Each tenant's part
//! decodes to exactly its streams and entries. A push in JSON splits like the protobuf with the same content. Labels
//! are read like an independent reader reads them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: what fails is a finding")]

#[path = "../fuzz/checks/loki_json.rs"]
mod loki_json;
#[path = "../fuzz/checks/loki_labels.rs"]
mod loki_labels;
#[path = "../fuzz/checks/loki_protobuf.rs"]
mod loki_protobuf;
mod strategies;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use strategies::{mutate, mutations, tenant_rules, unknown};
use tenantry::model::{Part, Protocol, SplitLimits};
use tenantry::split::{Body, Compression, Scan, SplitError, SplitRules, Splitter};
use tenantry::tenant::{Policy, TenantRules};
use testkit::proto::Label;
use testkit::proto_loki::{Entry, PushRequest, Stream, Timestamp};

// ---- Pushes ----

/// A label or a pair of metadata, as text.
type Pair = (String, String);

/// A stream as a model: its labels in their order, its entries as time, line and metadata.
#[derive(Clone, Debug)]
struct Model {
    labels: Vec<Pair>,
    entries: Vec<(i64, String, Vec<Pair>)>,
}

fn name() -> impl Strategy<Value = String> {
    let known = ["t", "t", "tenant", "app", "__name__"].map(str::to_owned);
    prop_oneof![6 => select(known.to_vec()), 1 => "[a-zA-Z_][a-zA-Z0-9_]{0,4}"]
}

fn value() -> impl Strategy<Value = String> {
    let known = ["a", "b", "ab", "ba", "cab", "", "x/y", "..", "two words", "}", ",", "#"].map(str::to_owned);
    prop_oneof![8 => select(known.to_vec()), 1 => "\\PC{0,6}", 1 => any::<String>(), 1 => "v{120,300}"]
}

fn pairs(max: usize) -> impl Strategy<Value = Vec<Pair>> {
    vec((name(), value()), 0..=max)
}

fn model() -> impl Strategy<Value = Model> {
    let time = prop_oneof![any::<i64>(), select(vec![0, 1, -1, 1_700_000_000_123_456_789])];
    let entry = (time, value(), pairs(3));
    // Loki requires that the labels of a stream have different names.
    let labels =
        pairs(4).prop_map(|pairs| pairs.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect());
    (labels, vec(entry, 0..5)).prop_map(|(labels, entries)| Model { labels, entries })
}

/// A value in one of the notations, as `style` decides.
fn quoted(value: &str, style: u8) -> String {
    let escaped = |quote: char| {
        let mut text = String::from(quote);
        for letter in value.chars() {
            match (letter, style % 4) {
                (letter, _) if letter == quote || letter == '\\' => text.extend(['\\', letter]),
                ('\n', _) => text.push_str("\\n"),
                (letter, 2) => text.push_str(&format!("\\U{:08x}", u32::from(letter))),
                (letter, 3) => {
                    text.extend(letter.to_string().bytes().map(|byte| format!("\\{byte:03o}")));
                }
                (letter, _) => text.push(letter),
            }
        }
        text.push(quote);
        text
    };
    match style % 3 {
        0 if !value.contains('`') => format!("`{value}`"),
        1 => escaped('\''),
        _ => escaped('"'),
    }
}

/// Labels as text, with white space, comments and commas wherever they are allowed.
fn text(labels: &[Pair], styles: &[u8]) -> String {
    let mut styles = styles.iter().copied().cycle();
    let mut style = || styles.next().unwrap_or_default();
    let blanks = ["", " ", "", "\n\t", "", "# no, {a='1'}\n", "", "\r "];
    let mut text = String::from("{");
    for (at, (name, value)) in labels.iter().enumerate() {
        let mut blank = || blanks[usize::from(style()) % blanks.len()];
        text += &format!("{}{name}{}={}", blank(), blank(), blank());
        text += &quoted(value, style());
        let blank = blanks[usize::from(style()) % blanks.len()];
        text += blank;
        if at + 1 < labels.len() || style() % 3 == 0 {
            text.push(',');
        }
    }
    text + "}"
}

/// Labels as Loki writes them.
fn canonical(labels: &[Pair]) -> String {
    let mut out = b"{".to_vec();
    for (at, (name, value)) in labels.iter().enumerate() {
        out.extend(if at > 0 { &b", "[..] } else { b"" });
        out.extend(name.as_bytes());
        out.push(b'=');
        tenantry::wire::loki::labels::quote(value, &mut out);
    }
    String::from_utf8(out).unwrap() + "}"
}

impl Model {
    fn stream(&self, labels: &str) -> Stream {
        let label = |(name, value): &Pair| Label::new(name, value);
        let entry = |(nanos, line, metadata): &(i64, String, Vec<Pair>)| Entry {
            timestamp: Some(Timestamp::from_nanos(*nanos)),
            line: Bytes::from(line.clone()),
            structured_metadata: metadata.iter().map(label).collect(),
        };
        Stream {
            labels: Bytes::from(labels.to_owned()),
            entries: self.entries.iter().map(entry).collect(),
            hash: 0,
        }
    }
}

fn push(models: &[Model], styles: &[u8]) -> PushRequest {
    PushRequest { streams: models.iter().map(|model| model.stream(&text(&model.labels, styles))).collect() }
}

fn json(models: &[Model]) -> String {
    let object = |pairs: &[Pair]| {
        let pair = |(name, value): &Pair| {
            let text = |text: &str| serde_json::to_string(text).unwrap();
            format!("{}: {}", text(name), text(value))
        };
        format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(","))
    };
    let entry = |(nanos, line, metadata): &(i64, String, Vec<Pair>)| {
        let line = serde_json::to_string(line).unwrap();
        match metadata.as_slice() {
            [] => format!("[\"{nanos}\", {line}]"),
            metadata => format!("[\"{nanos}\",{line},{}]", object(metadata)),
        }
    };
    let stream = |model: &Model| {
        // In reverse order, as the result must be sorted.
        let labels: Vec<Pair> = model.labels.iter().rev().cloned().collect();
        let entries: Vec<String> = model.entries.iter().map(entry).collect();
        format!("{{\"stream\": {}, \"values\": [{}]}}", object(&labels), entries.join(", "))
    };
    format!("{{\"streams\": [{}]}}", models.iter().map(stream).collect::<Vec<_>>().join(","))
}

// ---- Odd encodings ----

fn field(number: u32, bytes: &[u8], pad: bool) -> Vec<u8> {
    testkit::fields::field(number, bytes, (usize::from(pad), 0))
}

/// A push with fields in any order and number, as encoders of other versions may write them.
fn odd_push() -> impl Strategy<Value = Vec<u8>> {
    let pair = || {
        (name(), value(), any::<bool>()).prop_map(|(name, value, pad)| {
            field(3, &[field(1, name.as_bytes(), pad), field(2, value.as_bytes(), false)].concat(), pad)
        })
    };
    let entry_field = prop_oneof![
        6 => pair(),
        2 => "[a-z]{0,5}".prop_map(|line| field(2, line.as_bytes(), false)),
        1 => Just(field(1, &[8, 1], false)),
        1 => Just(field(4, b"parsed", false)),
        1 => unknown(),
    ];
    let entry =
        (vec(entry_field, 0..4), any::<bool>()).prop_map(|(fields, pad)| field(2, &fields.concat(), pad));
    let labels = prop_oneof![
        6 => (pairs(3), vec(any::<u8>(), 1..9)).prop_map(|(labels, styles)| text(&labels, &styles)),
        1 => select(vec!["{", "up", "{'t'}", "{t='a',,}", "up{t='b'}", ""]).prop_map(str::to_owned),
    ];
    let stream_field = prop_oneof![
        3 => labels.prop_map(|labels| field(1, labels.as_bytes(), false)),
        5 => entry,
        1 => Just(vec![3 << 3, 0xff, 1]),
        1 => unknown(),
    ];
    let stream =
        (vec(stream_field, 0..6), any::<bool>()).prop_map(|(fields, pad)| field(1, &fields.concat(), pad));
    let push_field = prop_oneof![8 => stream, 1 => unknown(), 1 => Just(field(2, b"loki", false))];
    vec(push_field, 0..5).prop_map(|fields| fields.concat())
}

// ---- Rules ----

#[derive(Clone, Debug)]
struct Rules {
    tenant: TenantRules,
    loki_label_remove: bool,
    tenants_max: usize,
    source: Option<&'static str>,
}

impl Rules {
    fn split_rules(&self) -> SplitRules<'_> {
        let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: self.tenants_max };
        SplitRules { loki_label_remove: self.loki_label_remove, ..SplitRules::new(&self.tenant, limits) }
    }

    fn split(&self, body: Body) -> Result<(Scan, Vec<Part>), SplitError> {
        let mut splitter = Splitter::new();
        let scan = splitter.scan(body, &self.split_rules(), self.source)?;
        Ok((scan, std::iter::from_fn(|| splitter.next_part()).collect()))
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let labels = vec![vec!["t"], vec!["tenant", "t"], vec!["__name__", "t"]];
    let (tenants_max, source) = (select(vec![2, 100, 100, 100]), select(vec![None, Some("s")]));
    (tenant_rules(labels), any::<bool>(), tenants_max, source).prop_map(
        |(tenant, loki_label_remove, tenants_max, source)| Rules {
            tenant,
            loki_label_remove,
            tenants_max,
            source,
        },
    )
}

// ---- Properties ----

/// A stream with its labels as pairs, and its entries as they are.
type Said = (Vec<Pair>, Vec<Entry>);

/// What each tenant should get by the rules. `None` if the push must be refused.
fn expected(models: &[Model], rules: &Rules) -> Option<BTreeMap<String, Vec<Said>>> {
    let names = &rules.tenant.labels;
    let deciding = |pairs: &[Pair]| {
        let carries = |name: &[u8]| pairs.iter().position(|(n, v)| n.as_bytes() == name && !v.is_empty());
        names.iter().find_map(|name| carries(name))
    };
    let mut tenants: BTreeMap<String, Vec<Said>> = BTreeMap::new();
    for model in models {
        let by_labels = deciding(&model.labels);
        let mut labels = model.labels.clone();
        if let Some(at) = by_labels.filter(|_| rules.loki_label_remove) {
            labels.remove(at);
        }
        let mut own: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for (entry, (_, _, metadata)) in model.stream("").entries.into_iter().zip(&model.entries) {
            let value = match by_labels {
                Some(at) => Some(&model.labels[at].1),
                None => deciding(metadata).map(|at| &metadata[at].1),
            };
            match rules.tenant.resolve(value.map(String::as_bytes), rules.source) {
                Ok(tenant) => own.entry(tenant.to_string()).or_default().push(entry),
                Err(tenantry::tenant::TenantError::Missing { .. })
                    if rules.tenant.on_missing == Policy::Reject =>
                {
                    return None;
                }
                Err(tenantry::tenant::TenantError::Invalid { .. })
                    if rules.tenant.on_invalid == Policy::Reject =>
                {
                    return None;
                }
                Err(_) => {}
            }
        }
        for (tenant, entries) in own {
            tenants.entry(tenant).or_default().push((labels.clone(), entries));
        }
    }
    (!models.is_empty() && tenants.len() <= rules.tenants_max).then_some(tenants)
}

/// The streams of a part, with labels read by an independent reader.
fn said(part: &Part) -> Vec<Said> {
    let push = PushRequest::decode(loki_protobuf::common::inflate(part).as_slice()).unwrap();
    let pairs = |text: &[u8]| {
        let text_of = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let labels = testkit::oracle::loki_labels::labels(text).unwrap();
        labels.into_iter().map(|(name, value)| (text_of(name), text_of(value))).collect()
    };
    push.streams.into_iter().map(|stream| (pairs(&stream.labels), stream.entries)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn each_tenant_gets_exactly_its_streams_and_entries(
        models in vec(model(), 0..5), styles in vec(any::<u8>(), 1..20), rules in rules(),
    ) {
        let push = push(&models, &styles);
        let split = rules.split(Body {
            protocol: Protocol::Loki, compression: Compression::Snappy, bytes: push.to_block(),
        });
        match expected(&models, &rules) {
            None => prop_assert!(split.is_err()),
            Some(expected) => {
                let (scan, parts) = split.unwrap();
                let got: BTreeMap<_, _> =
                    parts.iter().map(|part| (part.tenant.to_string(), said(part))).collect();
                prop_assert_eq!(got, expected);
                prop_assert_eq!(scan.series, models.len() as u64);
                let delivered: u64 = parts.iter().map(|part| u64::from(part.samples)).sum();
                prop_assert_eq!(delivered + scan.refused.samples + scan.refused.dropped_samples, scan.samples);
            }
        }
        let _ = loki_protobuf::compare(
            &mut Splitter::new(), &push.encode_to_vec(), &rules.split_rules(), rules.source,
        );
    }

    #[test]
    fn json_splits_as_the_protobuf_of_the_same_content(models in vec(model(), 0..5), rules in rules()) {
        let streams = models.iter().map(|model| model.stream(&canonical(&model.labels))).collect();
        let push = PushRequest { streams };
        let of_protobuf = rules.split(Body {
            protocol: Protocol::Loki, compression: Compression::Identity, bytes: push.encode_to_vec().into(),
        });
        let json = json(&models);
        let of_json = rules.split(Body {
            protocol: Protocol::LokiJson, compression: Compression::Identity, bytes: json.into(),
        });
        match (of_protobuf, of_json) {
            (Ok((mut expected, parts)), Ok((scan, json_parts))) => {
                expected.inflated_bytes = scan.inflated_bytes;
                prop_assert_eq!(scan, expected);
                let all = |parts: &[Part]| -> Vec<_> {
                    parts.iter().map(|part| (part.tenant.clone(), part.series, part.samples, said(part))).collect()
                };
                prop_assert_eq!(all(&json_parts), all(&parts));
            }
            (expected, got) => prop_assert_eq!(got.map(|_| ()), expected.map(|_| ())),
        }
    }

    #[test]
    fn odd_and_broken_pushes_do_no_harm(push in odd_push(), mutations in mutations(), rules in rules()) {
        let mut splitter = Splitter::new();
        let _ = loki_protobuf::compare(&mut splitter, &push, &rules.split_rules(), rules.source);
        let broken = mutate(push, &mutations);
        let _ = loki_protobuf::compare(&mut splitter, &broken, &rules.split_rules(), rules.source);
        loki_protobuf::check(&broken);
    }

    #[test]
    fn labels_read_as_another_reader_reads_them(
        labels in pairs(5), styles in vec(any::<u8>(), 1..20), mutations in mutations(),
    ) {
        let text = text(&labels, &styles);
        let read = testkit::oracle::loki_labels::labels(text.as_bytes()).unwrap();
        let expected: Vec<_> =
            labels.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect();
        prop_assert_eq!(read, expected, "{}", text);
        loki_labels::check(text.as_bytes());
        loki_labels::check(&mutate(text.into_bytes(), &mutations));
    }

    #[test]
    fn broken_json_does_no_harm(models in vec(model(), 0..4), mutations in mutations()) {
        let json = json(&models);
        loki_json::check(json.as_bytes());
        loki_json::check(&mutate(json.into_bytes(), &mutations));
    }
}
