//! Splits hand-made pushes.

use bytes::Bytes;

use super::*;
use crate::model::{Part, Protocol, SplitLimits, V2Handling};
use crate::split::{Body, Compression, Metadata, Scan, SplitError, SplitRules, Splitter};
use crate::tenant::{Policy, TenantRules};

/// A length-delimited field with a number below 16.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint::put(&mut field, bytes.len() as u64);
    field.extend_from_slice(bytes);
    field
}

fn stream(labels: &str, fields: &[Vec<u8>]) -> Vec<u8> {
    field(1, &[field(1, labels.as_bytes()), fields.concat()].concat())
}

/// An entry with the line `line` and this structured metadata.
fn entry(line: &str, metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = [field(1, &[8, 5, 16, 7]), field(2, line.as_bytes())].concat();
    for (name, value) in metadata {
        bytes.extend(field(3, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat()));
    }
    field(2, &bytes)
}

/// A stream with these labels and one entry.
fn of(labels: &str) -> Vec<u8> {
    stream(labels, &[entry("line", &[])])
}

const HASH: [u8; 2] = [3 << 3, 99];
const SCALAR: [u8; 2] = [9 << 3, 7];

struct Rules {
    tenant: TenantRules,
    limits: SplitLimits,
    loki_label_remove: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let tenant = TenantRules { label_remove: true, ..TenantRules::of_label(b"t") };
        let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 3 };
        Self { tenant, limits, loki_label_remove: false }
    }
}

impl Rules {
    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut rules = Self::default();
        change(&mut rules);
        rules
    }

    fn lenient() -> Self {
        Self::with(|rules| {
            rules.tenant.on_missing = Policy::Drop;
            rules.tenant.on_invalid = Policy::Drop;
        })
    }

    fn split_body(&self, body: Body) -> Result<(Scan, Vec<Part>), SplitError> {
        let Self { tenant, limits, loki_label_remove } = self;
        let rules = SplitRules {
            tenant,
            grant: &crate::tenant::Grant::Any,
            metadata: Metadata::ToDefault,
            ha: None,
            loki_label_remove: *loki_label_remove,
            remote_write_v2: V2Handling::Pass,
            limits: *limits,
        };
        let mut splitter = Splitter::new();
        let scan = splitter.scan(body, &rules, None)?;
        let parts: Vec<Part> = std::iter::from_fn(|| splitter.next_part()).collect();
        assert_eq!(parts.len(), scan.tenants);
        assert!(parts.iter().all(|part| part.protocol == Protocol::Loki));
        Ok((scan, parts))
    }

    fn split(&self, push: &[Vec<u8>]) -> (Scan, Vec<Part>) {
        self.split_body(snappy(Protocol::Loki, &push.concat())).unwrap()
    }

    fn error(&self, push: &[Vec<u8>]) -> SplitError {
        self.split_body(snappy(Protocol::Loki, &push.concat())).unwrap_err()
    }
}

fn snappy(protocol: Protocol, bytes: &[u8]) -> Body {
    let bytes = snap::raw::Encoder::new().compress_vec(bytes).unwrap().into();
    Body { protocol, compression: Compression::Snappy, bytes }
}

/// The tenant and the inflated bytes of each part.
fn inflated(parts: &[Part]) -> Vec<(&str, Vec<u8>)> {
    let inflate = |part: &Part| {
        let mut block = Vec::new();
        varint::put(&mut block, u64::from(part.inflated_bytes));
        block.extend_from_slice(&part.elements);
        snap::raw::Decoder::new().decompress_vec(&block).unwrap()
    };
    parts.iter().map(|part| (part.tenant.as_str(), inflate(part))).collect()
}

#[test]
fn each_tenant_gets_its_streams_in_order() {
    let push = [of(r#"{t="b",x="1"}"#), of(r#"{x="2", t="a"}"#), of("{t=`b`}"), of(r#"{"t"="\x62"}"#)];
    let (scan, parts) = Rules::default().split(&push);
    let [b1, a2, b3, b4] = push.clone();
    assert_eq!(inflated(&parts), [("b", [b1, b3, b4].concat()), ("a", a2)]);
    assert_eq!(parts.iter().map(|part| (part.series, part.samples)).collect::<Vec<_>>(), [(3, 3), (1, 1)]);
    let inflated_bytes = push.concat().len();
    assert_eq!(scan, Scan { tenants: 2, series: 4, samples: 4, inflated_bytes, ..Scan::default() });
    assert!(parts.iter().all(|part| part.merge == MergeKey::Ha(None)));
}

#[test]
fn a_push_of_one_tenant_is_forwarded_byte_for_byte() {
    let push =
        [of(r#"{t="a"}"#), stream("{t='a'}", &[HASH.to_vec(), field(9, b"?"), entry("x", &[("t", "b")])])];
    let body = snappy(Protocol::Loki, &push.concat());
    let (scan, parts) = Rules::default().split_body(body.clone()).unwrap();
    assert!(scan.passthrough);
    assert_eq!(parts[0].elements.as_ptr(), body.bytes[1..].as_ptr());
    assert_eq!((parts[0].series, parts[0].samples), (2, 2));
    assert_eq!(inflated(&parts), [("a", push.concat())]);
    // Without a snappy block there is nothing to pass through, but nothing to split either.
    let body = Body { compression: Compression::Identity, bytes: push.concat().into(), ..body };
    let (scan, parts) = Rules::default().split_body(body).unwrap();
    assert!(!scan.passthrough);
    assert_eq!(inflated(&parts), [("a", push.concat())]);
}

#[test]
fn entries_name_their_tenants_if_the_labels_do_not() {
    let (a1, b2, b3, a4) = (
        entry("1", &[("x", "y"), ("t", "a")]),
        entry("2", &[("t", "b")]),
        entry("3", &[("t", "b")]),
        entry("4", &[("t", "a")]),
    );
    let all = [a1.clone(), b2.clone(), b3.clone(), a4.clone()];
    let (scan, parts) = Rules::default().split(&[stream("{x='1'}", &all), of("{t='b'}")]);
    let expected = [
        ("a", stream("{x='1'}", &[a1.clone(), a4])),
        ("b", [stream("{x='1'}", &[b2, b3]), of("{t='b'}")].concat()),
    ];
    assert_eq!(inflated(&parts), expected);
    assert_eq!(parts.iter().map(|part| (part.series, part.samples)).collect::<Vec<_>>(), [(1, 2), (2, 3)]);
    assert_eq!((scan.series, scan.samples, scan.passthrough), (2, 5, false));
    // A stream of one tenant stays unchanged and may pass through.
    let same = stream("{x='1'}", &[a1.clone(), HASH.to_vec(), field(9, b"?"), a1.clone()]);
    let (scan, parts) = Rules::default().split(&[same.clone(), of("{t='a'}")]);
    assert!(scan.passthrough);
    assert_eq!(inflated(&parts), [("a", [same.clone(), of("{t='a'}")].concat())]);
    // Labels take precedence over metadata.
    let (_, parts) = Rules::default().split(&[stream("{t='c'}", &all)]);
    assert_eq!(inflated(&parts), [("c", stream("{t='c'}", &all))]);
}

#[test]
fn entries_without_a_tenant_go_to_the_default_tenant() {
    let (a, none, empty) = (entry("1", &[("t", "a")]), entry("2", &[("u", "a")]), entry("3", &[("t", "")]));
    let push = [stream("{}", &[a.clone(), none.clone(), empty.clone()])];
    let rules = Rules::with(|rules| rules.tenant.default = Some("d".into()));
    let (_, parts) = rules.split(&push);
    assert_eq!(
        inflated(&parts),
        [("a", stream("{}", std::slice::from_ref(&a))), ("d", stream("{}", &[none, empty]))]
    );
    let (scan, parts) = Rules::lenient().split(&push);
    assert_eq!(inflated(&parts), [("a", stream("{}", &[a]))]);
    assert_eq!((scan.refused.missing, scan.refused.invalid, scan.refused.samples), (1, 0, 2));
    assert!(!scan.passthrough);
    assert_eq!(
        Rules::default().error(&push).to_string(),
        "stream 1 ({}): no tenant: it has no value in label t, and no default tenant is set"
    );
}

#[test]
fn a_stream_counts_once_per_reason_for_which_entries_are_refused() {
    let (none, bad, a) = (entry("1", &[]), entry("2", &[("t", "/")]), entry("3", &[("t", "a")]));
    let push = [
        stream("{}", &[none.clone(), bad.clone(), none.clone(), bad.clone(), a.clone()]),
        stream("{}", &[none.clone(), none]),
        of("{t='/'}"),
    ];
    let (scan, parts) = Rules::lenient().split(&push);
    assert_eq!(inflated(&parts), [("a", stream("{}", &[a]))]);
    let refused = &scan.refused;
    assert_eq!((refused.missing, refused.invalid, refused.samples), (2, 2, 7));
    assert_eq!((scan.series, scan.samples), (3, 8));
    let (scan, parts) = Rules::lenient().split(&push[2..]);
    assert_eq!((scan.tenants, parts.len(), scan.refused.invalid), (0, 0, 1));
}

#[test]
fn each_part_of_a_split_stream_gets_its_common_fields() {
    let (a, b) = (entry("1", &[("t", "a")]), entry("2", &[("t", "b")]));
    let fields = [a.clone(), HASH.to_vec(), field(9, b"whose?"), b.clone(), SCALAR.to_vec()];
    let (scan, parts) = Rules::default().split(&[stream("{x='1'}", &fields)]);
    let common = [HASH, SCALAR].concat();
    let expected = [stream("{x='1'}", &[common.clone(), a.clone()]), stream("{x='1'}", &[common, b.clone()])];
    assert_eq!(inflated(&parts).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), expected);
    assert_eq!(scan.unknown_fields_dropped, 1);
    // Without labels there are none to copy. Of several label fields the last counts.
    let (_, parts) = Rules::default().split(&[field(1, &[a.clone(), b.clone()].concat())]);
    assert_eq!(inflated(&parts), [("a", field(1, &a)), ("b", field(1, &b))]);
    let twice = [field(1, b"{t='c'}"), a.clone(), b.clone(), field(1, b"{x='1'}")].concat();
    let (_, parts) = Rules::default().split(&[field(1, &twice)]);
    assert_eq!(inflated(&parts), [("a", stream("{x='1'}", &[a])), ("b", stream("{x='1'}", &[b]))]);
}

#[test]
fn copies_of_common_fields_are_limited() {
    let entries: Vec<_> = (0..3).map(|at| entry("", &[("t", ["a", "b", "c"][at])])).collect();
    let long = format!("{{x='{}'}}", "y".repeat(20_000));
    let push = [stream(&long, &entries)];
    let bytes_max = push.concat().len();
    let mut rules = Rules::with(|rules| rules.limits.inflated_bytes_max = bytes_max);
    assert_eq!(rules.error(&push), SplitError::TooManyCopies { bytes_max });
    assert_eq!(rules.error(&push).reason(), "too_large");
    rules.limits.inflated_bytes_max = 3 * bytes_max;
    assert_eq!(rules.split(&push).1.len(), 3);
    // Nothing is copied if the labels name the tenant, or if all entries name the same one.
    rules.limits.inflated_bytes_max = bytes_max;
    assert!(rules.split(&[stream(&long, &entries[..1])]).0.passthrough);
    let scalars = SCALAR.repeat(REQUEST_SCALARS_BYTES_MAX / 2 + 1);
    let push = [stream("{}", &[scalars, entries[0].clone(), entries[1].clone()])];
    assert_eq!(Rules::default().error(&push).reason(), "too_many_fields");
}

#[test]
fn the_label_is_removed_only_if_the_setting_for_loki_is_on() {
    let push =
        [stream("{a='1', t='x', b=\"2\"}", &[HASH.to_vec(), entry("l", &[("t", "y")]), field(9, b"?")])];
    assert!(Rules::default().split(&push).0.passthrough);
    let mut rules = Rules::with(|rules| rules.loki_label_remove = true);
    let (scan, parts) = rules.split(&push);
    // The hash is dropped, as it was that of the original labels.
    let expected = stream("{a='1', b=\"2\"}", &[entry("l", &[("t", "y")]), field(9, b"?")]);
    assert_eq!(inflated(&parts), [("x", expected)]);
    assert!(!scan.passthrough);
    // Nothing is removed if metadata names the tenant, nor for the default tenant.
    rules.tenant.default = Some("x".into());
    let push = [of("{a='1'}"), stream("{a='2'}", &[entry("l", &[("t", "x")])]), of("{t=''}")];
    assert!(rules.split(&push).0.passthrough);
    // The setting for series does not apply to streams.
    rules.tenant.label_remove = false;
    assert_eq!(inflated(&rules.split(&[of("{t='x'}")]).1)[0].1, of("{}"));
    rules = Rules::with(|rules| rules.tenant.label_remove = true);
    assert!(rules.split(&[of("{t='x'}")]).0.passthrough);
}

#[test]
fn streams_without_entries_are_skipped() {
    let empty = |labels: &str| stream(labels, &[]);
    let (scan, parts) = Rules::default().split(&[empty("{}"), of("{t='a'}"), empty("{t='b'}")]);
    assert_eq!(inflated(&parts), [("a", of("{t='a'}"))]);
    assert_eq!((scan.series, scan.samples, scan.passthrough), (3, 1, false));
    let (scan, parts) = Rules::default().split(&[empty("{}")]);
    assert_eq!((scan.tenants, parts.len(), scan.refused.series()), (0, 0, 0));
    assert_eq!(Rules::default().error(&[empty("{")]).reason(), "bad_labels");
}

#[test]
fn a_push_without_streams_is_an_error_of_its_own() {
    assert_eq!(Rules::default().error(&[]), SplitError::EmptyPush);
    assert_eq!(Rules::default().error(&[field(2, b"loki"), SCALAR.to_vec()]), SplitError::EmptyPush);
    let json =
        Body { protocol: Protocol::LokiJson, compression: Compression::Identity, bytes: Bytes::from("{}") };
    assert_eq!(Rules::default().split_body(json).unwrap_err(), SplitError::EmptyPush);
}

#[test]
fn malformed_labels_are_reported_with_their_stream() {
    let error = Rules::default().error(&[of("{t='a'}"), of("{t=\n1}")]);
    assert_eq!(
        error.to_string(),
        "stream 2 ({t=\\n1}): malformed labels: expected a value in quotes, found '1', at byte 4"
    );
    let long = Rules::default().error(&[of(&format!("{{{}", "\u{1b}".repeat(10_000)))]).to_string();
    assert!(long.len() < 500 && !long.contains('\u{1b}'), "{long}");
    // Also after the tenant label.
    assert_eq!(Rules::default().error(&[of("{t='a',,}")]).reason(), "bad_labels");
}

#[test]
fn unknown_fields_are_handled_as_in_other_requests() {
    let (a, b) = (of("{t='a'}"), of("{t='b'}"));
    let (scan, parts) = Rules::default().split(&[a.clone(), SCALAR.to_vec(), field(2, b"loki"), b.clone()]);
    assert_eq!(inflated(&parts), [("a", [&SCALAR, &a[..]].concat()), ("b", [&SCALAR, &b[..]].concat())]);
    assert!(parts.iter().all(|part| part.merge == MergeKey::Alone));
    assert_eq!(scan.unknown_fields_dropped, 1);
    let (scan, parts) = Rules::default().split(&[a.clone(), field(2, b"loki")]);
    assert!(scan.passthrough);
    assert_eq!(parts[0].merge, MergeKey::Alone);
    let many = SCALAR.repeat(REQUEST_SCALARS_BYTES_MAX / 2 + 1);
    assert_eq!(Rules::default().error(&[a, many, b]).reason(), "too_many_fields");
}

#[test]
fn json_is_split_like_the_same_push_in_protobuf() {
    let json = br#"{"streams":[
        {"stream":{"t":"a","x":"1"},"values":[["5000000007","line"]]},
        {"stream":{"x":"1"},"values":[["5000000007","1",{"t":"b"}],["5000000007","2",{"t":"a"}]]}]}"#;
    let push = [
        of(r#"{t="a", x="1"}"#),
        stream(r#"{x="1"}"#, &[entry("1", &[("t", "b")]), entry("2", &[("t", "a")])]),
    ];
    let (expected_scan, expected) = Rules::default().split(&push);
    let plain =
        Body { protocol: Protocol::LokiJson, compression: Compression::Identity, bytes: json[..].into() };
    for body in [plain.clone(), snappy(Protocol::LokiJson, json)] {
        let (scan, parts) = Rules::default().split_body(body).unwrap();
        assert_eq!((scan, parts), (expected_scan.clone(), expected.clone()));
    }
    let one = br#"{"streams":[{"stream":{"t":"a"},"values":[["5000000007","line"]]}]}"#;
    let (scan, parts) = Rules::default().split_body(Body { bytes: one[..].into(), ..plain.clone() }).unwrap();
    assert!(!scan.passthrough);
    assert_eq!(inflated(&parts), [("a", of(r#"{t="a"}"#))]);
    let error = Rules::default().split_body(Body { bytes: Bytes::from("{"), ..plain.clone() }).unwrap_err();
    assert_eq!(error.reason(), "bad_json");
    let small = Rules::with(|rules| rules.limits.inflated_bytes_max = one.len() - 1);
    assert_eq!(small.split_body(Body { bytes: one[..].into(), ..plain }).unwrap_err().reason(), "too_large");
}

#[test]
fn limits_hold() {
    let tenants: Vec<_> = ["a", "b", "c", "d"].map(|tenant| entry("", &[("t", tenant)])).into();
    assert_eq!(
        Rules::default().error(&[stream("{}", &tenants)]),
        SplitError::TooManyTenants { tenants_max: 3 }
    );
    assert_eq!(Rules::default().error(&[vec![0x0a, 2, 0x12]]).reason(), "bad_protobuf");
    let broken = stream("{}", &[field(2, &[0x1a, 9])]);
    let at_byte = of("{t='a'}").len();
    let expected = Malformed { fault: Fault::Truncated, at_byte };
    assert_eq!(Rules::default().error(&[of("{t='a'}"), broken]), SplitError::MalformedPush(expected));
    // The entries of a stream whose labels name the tenant are not parsed; Loki judges them.
    assert!(Rules::default().split(&[stream("{t='a'}", &[field(2, &[0x1a, 9])])]).0.passthrough);
}

#[test]
fn a_splitter_forgets_the_previous_push() {
    let rules = Rules::default();
    let split_rules = SplitRules::new(&rules.tenant, rules.limits);
    let mut splitter = Splitter::new();
    let two = stream("{}", &[entry("1", &[("t", "a")]), entry("2", &[("t", "b")])]);
    let json = br#"{"streams":[{"stream":{"t":"c"},"values":[["5000000007","line"]]}]}"#;
    let bodies = [
        (snappy(Protocol::Loki, &[two, SCALAR.to_vec()].concat()), 2),
        (
            Body { protocol: Protocol::LokiJson, compression: Compression::Identity, bytes: json[..].into() },
            1,
        ),
        (snappy(Protocol::Loki, &of("{t='d'}")), 1),
        (Body::snappy_v1(snappy(Protocol::Loki, &field(1, &[])).bytes), 0),
    ];
    // Parts that are not taken are discarded, too.
    for taken in [0, 1, 2] {
        for (body, tenants) in &bodies {
            match splitter.scan(body.clone(), &split_rules, None) {
                Ok(scan) => assert_eq!(scan.tenants, *tenants),
                Err(error) => assert_eq!((error.reason(), *tenants), ("missing_tenant", 0)),
            }
            let parts: Vec<_> = std::iter::from_fn(|| splitter.next_part()).take(taken).collect();
            assert_eq!(parts.len(), taken.min(*tenants));
            let alone = parts.iter().all(|part| part.merge == MergeKey::Alone);
            assert_eq!(alone, *tenants == 2 || parts.is_empty());
        }
    }
}
