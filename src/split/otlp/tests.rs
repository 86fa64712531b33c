//! Splits hand-made exports.

use prost::Message as _;
use testkit::proto_otlp::{
    ExportLogsServiceRequest, InstrumentationScope, KeyValue, LogRecord, Resource, ResourceLogs, ScopeLogs,
};

use super::*;
use crate::model::{Compression, MergeKey, Part, Protocol, SplitLimits, TargetCoding};
use crate::split::{Body, SplitRules, Splitter, halve};
use crate::tenant::{NamedBy, Policy, TenantRules};
use crate::wire::inflate::Inflater;
use crate::wire::otlp::json::bytes_read;

fn rules() -> TenantRules {
    TenantRules {
        named_by: NamedBy::Attribute,
        labels: vec![(*b"t").into(), (*b"ns").into()],
        ..TenantRules::of_label(b"t")
    }
}

const LIMITS: SplitLimits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 3 };

fn body(protocol: Protocol, bytes: impl Into<bytes::Bytes>) -> Body {
    Body { protocol, compression: Compression::Identity, bytes: bytes.into() }
}

fn split(body: Body, rules: &TenantRules) -> Result<(Scan, Vec<Part>), SplitError> {
    let mut splitter = Splitter::new();
    let scan = splitter.scan(body, &SplitRules::new(rules, LIMITS), None)?;
    let parts: Vec<Part> = std::iter::from_fn(|| splitter.next_part()).collect();
    assert_eq!(parts.len(), scan.tenants);
    Ok((scan, parts))
}

fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| KeyValue::text(key, value)).collect()
}

fn resource(pairs: &[(&str, &str)], scope_logs: Vec<ScopeLogs>) -> ResourceLogs {
    let resource =
        Resource { attributes: attributes(pairs), dropped_attributes_count: 7, ..Resource::default() };
    ResourceLogs { resource: Some(resource), scope_logs, schema_url: "schema".into() }
}

fn scope(pairs: &[(&str, &str)], records: &[&[(&str, &str)]]) -> ScopeLogs {
    let scope = InstrumentationScope {
        name: "lib".into(),
        attributes: attributes(pairs),
        ..InstrumentationScope::default()
    };
    let record = |(number, pairs): (u64, &&[(&str, &str)])| LogRecord {
        time_unix_nano: number,
        attributes: attributes(pairs),
        ..LogRecord::default()
    };
    ScopeLogs {
        scope: Some(scope),
        log_records: (1..).zip(records).map(record).collect(),
        schema_url: String::new(),
    }
}

fn export(resource_logs: Vec<ResourceLogs>) -> Vec<u8> {
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

const LOGS: Protocol = Protocol::Otlp(Signal::Logs);

fn decoded(part: &Part) -> Vec<ResourceLogs> {
    ExportLogsServiceRequest::decode(&part.elements[..]).unwrap().resource_logs
}

#[test]
fn resources_go_to_their_tenants_as_they_came() {
    let one = |tenant| resource(&[("x", "y"), ("ns", tenant)], vec![scope(&[], &[&[], &[("t", "z")]])]);
    let all = [one("a"), one("b"), one("a"), one("a")];
    let (scan, parts) = split(body(LOGS, export(all.to_vec())), &rules()).unwrap();
    assert_eq!((scan.series, scan.samples, scan.passthrough), (4, 8, false));
    let [a, b] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!((a.tenant.as_str(), a.series, a.samples), ("a", 3, 6));
    assert_eq!((b.tenant.as_str(), b.series, b.samples), ("b", 1, 2));
    assert_eq!(a.elements, export(vec![one("a"); 3]));
    assert_eq!(b.elements, export(vec![one("b")]));
    assert_eq!((a.protocol, a.coding.now, &a.merge), (LOGS, Compression::Identity, &MergeKey::Ha(None)));
}

#[test]
fn one_tenant_passes_as_the_bytes_that_came_unless_they_are_coded_otherwise() {
    let plain = export(vec![resource(&[("t", "a")], vec![scope(&[], &[&[]])])]);
    let gzipped = crate::split::coder::Coder::default().elements(&plain, Compression::Gzip);
    let rules = rules();
    let rules = SplitRules::new(&rules, LIMITS);
    let mut splitter = Splitter::new();
    let mut part = |compression, bytes: bytes::Bytes, coding| {
        let scan = splitter.scan(Body { protocol: LOGS, compression, bytes }, &rules, None).unwrap();
        assert!(scan.passthrough);
        splitter.next_part_as(|_| coding).unwrap()
    };
    let received = TargetCoding::AsReceived;
    assert_eq!(part(Compression::Identity, plain.clone().into(), received).elements, plain);
    let same = part(Compression::Gzip, gzipped.clone(), received);
    assert_eq!((same.elements.clone(), same.coding.now), (gzipped.clone(), Compression::Gzip));
    let snappy = part(Compression::Gzip, gzipped.clone(), TargetCoding::Always(Compression::Snappy));
    assert_eq!((snappy.coding.now, snappy.coding.sent), (Compression::Snappy, Compression::Snappy));
    // A small part may share a request, and is coded with it.
    let zstd = part(Compression::Gzip, gzipped.clone(), TargetCoding::Always(Compression::Zstd));
    assert_eq!(
        (&zstd.elements[..], zstd.coding.now, zstd.coding.sent),
        (&plain[..], Compression::Identity, Compression::Zstd)
    );
    let mut merger = crate::split::Merger::default();
    let alone = merger.deflate(&zstd).unwrap();
    assert_eq!(zstd::bulk::decompress(&alone.elements, 1000).unwrap(), plain);
    assert!(merger.deflate(&same).is_none());
    // Passthroughs in gzip are inflated to be merged.
    let both = merger.merge([&same, &same], usize::MAX).unwrap();
    let mut inflater = Inflater::default();
    inflater.inflate(&both.elements, Compression::Gzip, 1000).unwrap();
    assert_eq!((inflater.bytes(), both.parts), (&plain.repeat(2)[..], 2));
    assert_eq!(merger.merge([&same, &same], plain.len()).unwrap().parts, 1);
}

#[test]
fn a_resource_is_split_within_by_scopes_and_then_by_items() {
    let whole = resource(
        &[("x", "y")],
        vec![
            scope(&[("t", "a")], &[&[("t", "b")], &[]]),
            scope(&[], &[&[("t", "b")], &[("ns", "a")], &[("t", "b")], &[("t", "b")]]),
            scope(&[], &[&[("t", "b")], &[("ns", "b")]]),
        ],
    );
    let (scan, parts) = split(body(LOGS, export(vec![whole.clone()])), &rules()).unwrap();
    assert_eq!((scan.series, scan.samples), (1, 8));
    let [a, b] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!((a.series, a.samples, b.series, b.samples), (1, 3, 1, 5));
    let [first, second, third] = &whole.scope_logs[..] else { panic!() };
    let some = |scope: &ScopeLogs, kept: &[usize]| ScopeLogs {
        log_records: kept.iter().map(|&at| scope.log_records[at].clone()).collect(),
        ..scope.clone()
    };
    let with = |scope_logs| vec![ResourceLogs { scope_logs, ..whole.clone() }];
    assert_eq!(decoded(a), with(vec![first.clone(), some(second, &[1])]));
    assert_eq!(decoded(b), with(vec![some(second, &[0, 2, 3]), third.clone()]));
}

#[test]
fn a_resource_whose_items_agree_stays_whole() {
    let whole =
        export(vec![resource(&[], vec![scope(&[], &[&[("t", "a")]]), scope(&[("ns", "a")], &[&[]])])]);
    let (scan, parts) = split(body(LOGS, whole.clone()), &rules()).unwrap();
    assert!(scan.passthrough);
    assert_eq!(parts[0].elements, whole);
}

#[test]
fn an_empty_scope_that_names_a_tenant_goes_to_no_other() {
    let of_a = || scope(&[], &[&[("t", "a")]]);
    let empty_of_b = || scope(&[("ns", "b")], &[]);
    let with = |scope_logs| resource(&[("x", "y")], scope_logs);
    let (before, behind) = (vec![empty_of_b(), of_a()], vec![of_a(), empty_of_b()]);
    for scopes in [before, behind, vec![of_a(), empty_of_b(), scope(&[], &[])]] {
        let (scan, parts) = split(body(LOGS, export(vec![with(scopes)])), &rules()).unwrap();
        assert_eq!((scan.passthrough, scan.samples, scan.unknown_fields_dropped), (false, 1, 0));
        let [a] = &parts[..] else { panic!("{parts:?}") };
        assert_eq!((a.tenant.as_str(), a.series, a.samples), ("a", 1, 1));
        assert_eq!(decoded(a), [with(vec![of_a()])]);
    }
    // One that names nobody changes nothing, and neither does one in a resource that names its tenant.
    let unnamed = export(vec![with(vec![of_a(), scope(&[("y", "z")], &[])])]);
    let named = export(vec![resource(&[("t", "a")], vec![of_a(), empty_of_b()])]);
    for whole in [unnamed, named] {
        let (scan, parts) = split(body(LOGS, whole.clone()), &rules()).unwrap();
        assert_eq!((scan.passthrough, &parts[0].elements[..]), (true, &whole[..]));
    }
    let json = |scopes: &[&str]| {
        format!(r#"{{"resourceMetrics":[{{"resource":{{}},"scopeMetrics":[{}]}}]}}"#, scopes.join(","))
    };
    let of_a = &format!(r#"{{"metrics":[{{"gauge":{{"dataPoints":[{{"attributes":[{OF_A}]}}]}}}}]}}"#);
    let of_b = r#"{"scope":{"attributes":[{"key":"t","value":{"stringValue":"b"}}]},"metrics":[]}"#;
    let protocol = Protocol::OtlpJson(Signal::Metrics);
    let (_, parts) = split(body(protocol, json(&[of_a, of_b, of_a])), &rules()).unwrap();
    let [a] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!((a.tenant.as_str(), a.samples), ("a", 2));
    assert_eq!(std::str::from_utf8(&a.elements).unwrap(), json(&[of_a, of_a]));
    // A metric without points beside it may be of either, so not even the default tenant gets it.
    let defaulted = TenantRules { default: Some("d".into()), ..rules() };
    let no_points = r#"{"metrics":[{"name":"m"}]}"#;
    let (scan, parts) = split(body(protocol, json(&[no_points, of_b])), &defaulted).unwrap();
    assert_eq!((scan.unknown_fields_dropped, scan.passthrough, parts.len()), (1, false, 0));
}

#[test]
fn the_attribute_that_named_the_tenant_is_removed_from_resources_only() {
    let rules = TenantRules { label_remove: true, ..rules() };
    let named = resource(&[("x", "y"), ("t", "a"), ("ns", "n")], vec![scope(&[], &[&[("t", "q")]])]);
    let within = resource(&[("x", "y")], vec![scope(&[], &[&[("t", "a")]])]);
    let (scan, parts) = split(body(LOGS, export(vec![named, within.clone()])), &rules).unwrap();
    assert!(!scan.passthrough);
    let without = resource(&[("x", "y"), ("ns", "n")], vec![scope(&[], &[&[("t", "q")]])]);
    assert_eq!(decoded(&parts[0]), [without, within]);
}

#[test]
fn an_attribute_that_is_there_twice_is_removed_twice() {
    let rules = TenantRules { label_remove: true, ..rules() };
    let named = resource(&[("t", ""), ("x", "y"), ("t", "a"), ("t", "b")], vec![scope(&[], &[&[]])]);
    let (_, parts) = split(body(LOGS, export(vec![named])), &rules).unwrap();
    assert_eq!(parts[0].tenant.as_str(), "a");
    assert_eq!(decoded(&parts[0]), [resource(&[("x", "y")], vec![scope(&[], &[&[]])])]);
    let json = |attributes: &str| {
        format!(
            r#"{{"resourceLogs":[{{"resource":{{"attributes":[{attributes}]}},"scopeLogs":[{{"logRecords":[{{}}]}}]}}]}}"#
        )
    };
    let (one, other) = (r#"{"key":"t","value":{"intValue":5.0}}"#, r#"{"key":"x"}"#);
    let text = json(&[one, one, other, one].join(","));
    let (_, parts) = split(body(Protocol::OtlpJson(Signal::Logs), text), &rules).unwrap();
    assert_eq!(parts[0].tenant.as_str(), "5");
    assert_eq!(std::str::from_utf8(&parts[0].elements).unwrap(), json(other));
}

#[test]
fn what_has_no_tenant_is_refused_once_per_resource() {
    let odd =
        resource(&[("service.name", "shop")], vec![scope(&[], &[&[("t", "a")], &[], &[("t", "\n")], &[]])]);
    let error = split(body(LOGS, export(vec![odd.clone()])), &rules()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "resource 1 (shop): no tenant: it has no value in attribute t, ns, and no default tenant is set"
    );
    let lenient = TenantRules { on_missing: Policy::Drop, on_invalid: Policy::Drop, ..rules() };
    let (scan, parts) = split(body(LOGS, export(vec![odd.clone()])), &lenient).unwrap();
    assert_eq!((scan.refused.missing, scan.refused.invalid, scan.refused.samples), (1, 1, 3));
    assert_eq!(decoded(&parts[0])[0].scope_logs[0].log_records.len(), 1);
    let none = resource(&[], vec![scope(&[], &[&[]])]);
    let (scan, parts) = split(body(LOGS, export(vec![none])), &lenient).unwrap();
    assert_eq!((scan.tenants, parts.len(), scan.refused.samples), (0, 0, 1));
    let defaulted = TenantRules { default: Some("d".into()), ..rules() };
    let (_, parts) =
        split(body(LOGS, export(vec![resource(&[], vec![scope(&[], &[&[]])])])), &defaulted).unwrap();
    assert_eq!(parts[0].tenant.as_str(), "d");
}

#[test]
fn empty_exports_and_resources_need_no_tenant() {
    for bytes in
        [Vec::new(), export(vec![resource(&[], vec![])]), export(vec![resource(&[], vec![scope(&[], &[])])])]
    {
        let (scan, parts) = split(body(LOGS, bytes), &rules()).unwrap();
        assert_eq!((scan.tenants, parts.len(), scan.samples, scan.refused.series()), (0, 0, 0, 0));
    }
    for text in ["{}", "{\"resourceLogs\":[]}", " {\"resourceLogs\":[{}]} "] {
        let (scan, _) = split(body(Protocol::OtlpJson(Signal::Logs), text.as_bytes()), &rules()).unwrap();
        assert_eq!((scan.tenants, scan.samples), (0, 0), "{text}");
    }
}

/// An export of metrics in JSON with one resource, of these attributes.
fn metrics_json(attributes: &str, metrics: &str) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{attributes}]}},"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#
    )
}

const OF_A: &str = r#"{"key":"t","value":{"stringValue":"a"}}"#;

#[test]
fn what_has_no_items_goes_to_the_tenant_that_is_named() {
    let named = [resource(&[("t", "a")], vec![]).encode_to_vec(), unknown(b"new")].concat();
    let named = field_1(&named);
    let (scan, parts) = split(body(LOGS, named.clone()), &rules()).unwrap();
    assert_eq!((scan.passthrough, scan.samples, scan.unknown_fields_dropped), (true, 0, 0));
    assert_eq!((parts[0].tenant.as_str(), &parts[0].elements[..], parts[0].samples), ("a", &named[..], 0));
    let of_scope = [scope(&[("t", "a")], &[]).encode_to_vec(), unknown(b"new")].concat();
    let mut of_scope = field_1(&of_scope);
    of_scope[0] = 0x12;
    let of_scope = field_1(&of_scope);
    let (_, parts) = split(body(LOGS, of_scope.clone()), &rules()).unwrap();
    assert_eq!((parts[0].tenant.as_str(), &parts[0].elements[..]), ("a", &of_scope[..]));
    let json = Protocol::OtlpJson(Signal::Metrics);
    for metric in [r#"{"name":"m"}"#, r#"{"name":"m","gauge":{"dataPoints":[]}}"#, r#"{"newKind":{"x":[1]}}"#]
    {
        let text = metrics_json(OF_A, metric);
        let (scan, parts) = split(body(json, text.clone()), &rules()).unwrap();
        assert!(scan.passthrough);
        assert_eq!((parts[0].tenant.as_str(), &parts[0].elements[..]), ("a", text.as_bytes()));
    }
}

#[test]
fn what_has_neither_items_nor_a_tenant_is_stored_refused_or_counted() {
    let json = Protocol::OtlpJson(Signal::Metrics);
    let defaulted = TenantRules { default: Some("d".into()), ..rules() };
    let lenient = TenantRules { on_missing: Policy::Drop, ..rules() };
    let no_points = metrics_json("", r#"{"name":"m","sum":{}}"#);
    let new_kind = metrics_json("", r#"{"name":"m","newKind":{}}"#);
    for text in [&no_points, &new_kind] {
        let (_, parts) = split(body(json, text.clone()), &defaulted).unwrap();
        assert_eq!((parts[0].tenant.as_str(), &parts[0].elements[..]), ("d", text.as_bytes()));
    }
    let (scan, parts) = split(body(json, no_points), &rules()).unwrap();
    assert_eq!((scan.unknown_fields_dropped, scan.refused.series(), parts.len()), (1, 0, 0));
    assert_eq!(split(body(json, new_kind.clone()), &rules()).unwrap_err().reason(), "missing_tenant");
    let (scan, _) = split(body(json, new_kind), &lenient).unwrap();
    assert_eq!((scan.refused.missing, scan.refused.samples), (1, 0));
    let point = |tenant: &str| {
        let value = format!(r#"{{"key":"t","value":{{"stringValue":"{tenant}"}}}}"#);
        format!(r#"{{"attributes":[{value}]}}"#)
    };
    let beside = |points: String| {
        metrics_json("", &format!(r#"{{"name":"e"}},{{"sum":{{"dataPoints":[{points}]}}}}"#))
    };
    let (scan, parts) = split(body(json, beside([point("a"), point("b")].join(","))), &rules()).unwrap();
    assert_eq!((scan.unknown_fields_dropped, parts.len()), (1, 2));
    let one = beside(point("a"));
    let (scan, parts) = split(body(json, one.clone()), &rules()).unwrap();
    assert_eq!((scan.unknown_fields_dropped, &parts[0].elements[..]), (0, one.as_bytes()));
}

#[test]
fn halves_keep_what_has_no_items() {
    let of = |records: usize, rest: &str| {
        let records = vec!["{}"; records].join(",");
        format!(
            r#"{{"extra":{{}},"resourceLogs":[{{"resource":{{"attributes":[{OF_A}]}},"odd":[1],"scopeLogs":[{{"logRecords":[{records}]}}{rest}]}}]}}"#
        )
    };
    let empty = r#",{"new":{}}"#;
    let (_, parts) = split(body(Protocol::OtlpJson(Signal::Logs), of(3, empty)), &rules()).unwrap();
    let halves = halve(&parts[0]).unwrap();
    let texts = halves.each_ref().map(|half| std::str::from_utf8(&half.elements).unwrap());
    assert_eq!(texts, [&of(1, ""), &of(2, empty)]);
    let only_unknown = field_1(&unknown(b"new"));
    let named = export(vec![resource(&[("t", "a")], vec![scope(&[], &[&[], &[]])])]);
    let (_, parts) = split(body(LOGS, [named, unknown(b"top")].concat()), &rules()).unwrap();
    let elements = [&parts[0].elements[..], &only_unknown].concat();
    let inflated_bytes = u32::try_from(elements.len()).unwrap();
    let with_odd = Part { elements: elements.into(), inflated_bytes, ..parts[0].clone() };
    let halves = halve(&with_odd).unwrap();
    let count = |text: &[u8]| {
        halves.each_ref().map(|half| half.elements.windows(3).filter(|window| *window == text).count())
    };
    assert_eq!((count(b"top"), count(b"new")), ([1, 1], [0, 1]));
}

#[test]
fn copies_are_bounded() {
    let long = "x".repeat(500_000);
    let records: &[&[(&str, &str)]] = &[&[("t", "a")], &[("t", "b")], &[("t", "c")]];
    let big = resource(&[("x", &long)], vec![scope(&[], records)]);
    let error = split(body(LOGS, export(vec![big.clone()])), &rules()).unwrap_err();
    assert_eq!(error, SplitError::TooManyCopies { bytes_max: LIMITS.inflated_bytes_max });
    let two = resource(&[("x", &long)], vec![scope(&[], &records[..2])]);
    assert_eq!(split(body(LOGS, export(vec![two])), &rules()).unwrap().1.len(), 2);
    let four: &[&[(&str, &str)]] = &[&[("t", "a")], &[("t", "b")], &[("t", "c")], &[("t", "d")]];
    let error = split(body(LOGS, export(vec![resource(&[], vec![scope(&[], four)])])), &rules()).unwrap_err();
    assert_eq!(error, SplitError::TooManyTenants { tenants_max: 3 });
}

/// A field of bytes with a number above 15.
fn unknown(bytes: &[u8]) -> Vec<u8> {
    [&[0x9a, 0x06, bytes.len().try_into().unwrap()][..], bytes].concat()
}

/// A field 1 that holds this.
fn field_1(bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![0x0a];
    crate::wire::varint::put(&mut field, bytes.len() as u64);
    field.extend(bytes);
    field
}

#[test]
fn the_pieces_of_a_resource_are_bounded() {
    let rules = rules();
    let rules = SplitRules::new(&rules, SplitLimits { inflated_bytes_max: 32 << 20, tenants_max: 3 });
    let of = |numbers: &[u8], times: usize| {
        let whole = resource(&[], vec![scope(&[], &[&[("t", "a")], &[("t", "b")]])]).encode_to_vec();
        let bytes = field_1(&[whole, numbers.repeat(times)].concat());
        Splitter::new().scan(body(LOGS, bytes), &rules, None).map(|scan| scan.tenants)
    };
    let number = [0x98, 0x06, 5];
    let apart = [&number[..], &unknown(b"")].concat();
    let pieces_max = REQUEST_FIELDS_MAX;
    assert_eq!(of(&apart, pieces_max), Err(SplitError::TooManyPieces { pieces_max }));
    assert_eq!(of(&apart, 1000), Ok(2));
    // Adjacent fields are one piece.
    assert_eq!(of(&number, pieces_max), Ok(2));
}

#[test]
fn a_half_is_not_made_of_too_many_pieces() {
    let of = |times: usize| {
        let whole = resource(&[], vec![scope(&[], &[&[("t", "a")], &[("t", "a")]])]).encode_to_vec();
        // An unknown number and an empty scope, by turns.
        let export = field_1(&[whole, [0x20, 1, 0x12, 0].repeat(times)].concat());
        super::halve::halve(&export, Signal::Logs, Notation::Protobuf)
    };
    assert!(of(1_000).is_some());
    assert!(of(REQUEST_FIELDS_MAX).is_none());
}

#[test]
fn the_pieces_that_are_cut_from_a_resource_are_bounded() {
    let rules = TenantRules { label_remove: true, ..rules() };
    let rules = SplitRules::new(&rules, SplitLimits { inflated_bytes_max: 32 << 20, tenants_max: 3 });
    let named = field_1(&[&field_1(b"t")[..], &[0x12, 3, 0x0a, 1, b'a']].concat());
    let other = field_1(&field_1(b"x"));
    let records = ResourceLogs { scope_logs: vec![scope(&[], &[&[]])], ..ResourceLogs::default() };
    let of = |attributes: &[u8], times: usize| {
        let whole = [field_1(&attributes.repeat(times)), records.encode_to_vec()].concat();
        Splitter::new().scan(body(LOGS, field_1(&whole)), &rules, None).map(|scan| scan.tenants)
    };
    let pieces_max = REQUEST_FIELDS_MAX;
    let both = [&named[..], &other].concat();
    assert_eq!(of(&both, pieces_max + 1), Err(SplitError::TooManyPieces { pieces_max }));
    assert_eq!(of(&both, pieces_max), Ok(1));
    // Adjacent attributes are one piece.
    assert_eq!(of(&named, pieces_max + 1), Ok(1));
}

#[test]
fn unknown_fields_stay_where_nothing_is_taken_apart_and_bytes_go_where_something_is() {
    let unknown = unknown(b"?");
    let number = vec![0x98, 0x06, 5];
    let of = |pairs: &[&[(&str, &str)]]| {
        let mut bytes = resource(&[], vec![scope(&[], pairs)]).encode_to_vec();
        bytes.extend([&unknown[..], &number].concat());
        field_1(&bytes)
    };
    let whole = of(&[&[("t", "a")]]);
    let (scan, parts) = split(body(LOGS, [&whole[..], &of(&[&[("t", "b")]])].concat()), &rules()).unwrap();
    assert_eq!((&parts[0].elements[..], scan.unknown_fields_dropped), (&whole[..], 0));
    let (scan, parts) = split(body(LOGS, of(&[&[("t", "a")], &[("t", "b")]])), &rules()).unwrap();
    assert_eq!(scan.unknown_fields_dropped, 1);
    for part in &parts {
        assert!(part.elements.windows(3).any(|window| window == number));
        assert!(!part.elements.contains(&b'?'));
    }
}

#[test]
fn json_is_split_as_text() {
    let record = |tenant: &str, n: u8| {
        format!(r#"{{"attributes":[{{"key":"t","value":{{"stringValue":"{tenant}"}}}}], "n": {n}e0}}"#)
    };
    let resource = r#""resource": {"attributes":[{"key":"x","value":{"intValue":"1"}}]}"#;
    let text = format!(
        r#"{{ "resourceLogs": [ {{{resource},"scopeLogs":[{{"scope":{{"name":"l"}},"logRecords":[{}, {},{}]}}],"schemaUrl":"s","odd":{{}}}}, {{"scopeLogs":[{{"logRecords":[{}]}}]}} ], "extra": "?" }}"#,
        record("a", 1),
        record("b", 2),
        record("a", 3),
        record("b", 4)
    );
    let (scan, parts) = split(body(Protocol::OtlpJson(Signal::Logs), text.clone()), &rules()).unwrap();
    assert_eq!((scan.series, scan.samples, scan.unknown_fields_dropped), (2, 4, 2));
    let [a, b] = &parts[..] else { panic!("{parts:?}") };
    let of = |records: &[String]| {
        format!(
            r#"{{{resource},"schemaUrl":"s","scopeLogs":[{{"scope":{{"name":"l"}},"logRecords":[{}]}}]}}"#,
            records.join(",")
        )
    };
    let expected = format!(r#"{{"resourceLogs":[{}]}}"#, of(&[record("a", 1), record("a", 3)]));
    assert_eq!(std::str::from_utf8(&a.elements).unwrap(), expected);
    let second = format!(r#"{{"scopeLogs":[{{"logRecords":[{}]}}]}}"#, record("b", 4));
    let expected = format!(r#"{{"resourceLogs":[{},{second}]}}"#, of(&[record("b", 2)]));
    assert_eq!(std::str::from_utf8(&b.elements).unwrap(), expected);
    assert_eq!((a.merge.clone(), a.protocol), (MergeKey::Alone, Protocol::OtlpJson(Signal::Logs)));
    // The second resource alone passes unchanged.
    let alone = format!(r#"{{"resourceLogs":[{second}] ,"extra":"?"}}"#);
    let (scan, parts) = split(body(Protocol::OtlpJson(Signal::Logs), alone.clone()), &rules()).unwrap();
    assert_eq!((scan.passthrough, &parts[0].elements[..]), (true, alone.as_bytes()));
}

#[test]
fn metrics_in_json_are_taken_apart_down_to_their_points() {
    let point =
        |tenant: &str| format!(r#"{{"attributes":[{{"key":"t","value":{{"stringValue":"{tenant}"}}}}]}}"#);
    let of = |points: &[&str]| {
        let points: Vec<_> = points.iter().map(|tenant| point(tenant)).collect();
        format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","sum":{{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{}]}}}}]}}]}}]}}"#,
            points.join(",")
        )
    };
    let protocol = Protocol::OtlpJson(Signal::Metrics);
    let (_, parts) = split(body(protocol, of(&["a", "b", "a"])), &rules()).unwrap();
    let texts: Vec<_> = parts.iter().map(|part| std::str::from_utf8(&part.elements).unwrap()).collect();
    assert_eq!(texts, [of(&["a", "a"]), of(&["b"])]);
    let [first, second] = halve(&Part { tenant: parts[0].tenant.clone(), ..parts[0].clone() }).unwrap();
    assert_eq!([&first.elements[..], &second.elements], [of(&["a"]).as_bytes(), of(&["a"]).as_bytes()]);
}

#[test]
fn halves_have_half_of_the_items_each() {
    let records: &[&[(&str, &str)]] = &[&[], &[], &[], &[], &[]];
    let two = vec![
        resource(&[("t", "a")], vec![scope(&[], &records[..1]), scope(&[], &records[..2])]),
        resource(&[("t", "a"), ("x", "y")], vec![scope(&[], &records[..4])]),
    ];
    let (_, parts) = split(body(LOGS, export(two.clone())), &rules()).unwrap();
    let [first, second] = halve(&parts[0]).unwrap();
    assert_eq!((first.series, first.samples, second.series, second.samples), (1, 3, 1, 4));
    assert_eq!([decoded(&first), decoded(&second)].concat(), two);
    let [third, fourth] = halve(&second).unwrap();
    assert_eq!((third.samples, fourth.samples), (2, 2));
    let [fifth, _] = halve(&first).unwrap();
    assert_eq!(decoded(&fifth), [resource(&[("t", "a")], vec![scope(&[], &records[..1])])]);
    assert_eq!(halve(&fifth), None);
}

#[test]
fn broken_exports_are_refused_with_their_place() {
    let good = export(vec![resource(&[("t", "a")], vec![scope(&[], &[&[]])])]);
    let bad = [&good[..], &[0x0a, 3, 0x0a, 9, 9]].concat();
    let error = split(body(LOGS, bad), &rules()).unwrap_err();
    assert_eq!(error.reason(), "bad_protobuf");
    let text = format!(
        "not a valid ExportLogsServiceRequest: it ends within a field, in the resource at byte {}",
        good.len()
    );
    assert!(error.to_string().contains(&text), "{error}");
    let json = Protocol::OtlpJson(Signal::Logs);
    assert_eq!(split(body(json, &b"{"[..]), &rules()).unwrap_err().reason(), "bad_json");
    assert_eq!(split(body(json, &b"{\"resourceLogs\":1}"[..]), &rules()).unwrap_err().reason(), "bad_json");
    let twice = &b"{\"resourceLogs\":[],\"resourceLogs\":[]}"[..];
    assert_eq!(split(body(json, twice), &rules()).unwrap_err().reason(), "bad_json");
}

/// An export in JSON whose attributes name the tenants of resources or items, and which has so many of what `of` says.
fn long_export(of: &str, count: usize) -> String {
    let many = |text: &dyn Fn(usize) -> String, of_it: bool| {
        let all: Vec<String> = (0..if of_it { count } else { 2 }).map(text).collect();
        all.join(" , ")
    };
    let attribute = |key: &str, value: usize| {
        format!(r#"{{"key": "{key}", "value": {{"stringValue": "tenant-{}"}}}}"#, value % 3)
    };
    let attributes = |at| many(&|n| attribute(if n == 0 { "t" } else { "x" }, at), of == "attributes");
    let point = |at| format!(r#"{{"asInt": "1", "attributes": [{}]}}"#, attributes(at));
    let points = |at| many(&|n| point(at + n), of == "points");
    let metric = |at| format!(r#"{{"name": "m\"", "sum": {{"dataPoints": [{}]}}}}"#, points(at));
    let metrics = |at| many(&|n| metric(at + n), of == "metrics");
    let unknown = match of {
        "unknown keys" => (0..count).map(|n| format!(r#""k{n}": [{n}, {{"}}": null}}], "#)).collect(),
        "lists in lists" => (0..count / 50)
            .map(|n| format!(r#""k{n}": {}"\u00e9"{}, "#, "[".repeat(100), "]".repeat(100)))
            .collect(),
        "spaces" => " \n\t".repeat(count),
        "escapes" => format!(r#""k": "{}","#, r#"\"\\"#.repeat(count)),
        _ => String::new(),
    };
    let scope = |at| format!(r#"{{{unknown}"metrics": [{}]}}"#, metrics(at));
    let scopes = |at| many(&|n| scope(at + n), of == "scopes");
    let resource = |at| format!(r#"{{"resource": {{"attributes": []}}, "scopeMetrics": [{}]}}"#, scopes(at));
    format!(r#"{{"resourceMetrics": [{}]}}"#, many(&resource, of == "resources"))
}

#[test]
fn each_byte_of_json_is_read_as_often_in_a_longer_body_whatever_is_in_it() {
    let limits = SplitLimits { inflated_bytes_max: 64 << 20, ..LIMITS };
    let by_item = rules();
    let by_default = TenantRules { default: Some("d".into()), labels: vec![(*b"no").into()], ..rules() };
    let of = ["resources", "scopes", "metrics", "points", "attributes", "unknown keys", "lists in lists"];
    for of in of.into_iter().chain(["spaces", "escapes"]) {
        for rules in [&by_item, &by_default] {
            let read = |count| {
                let text = long_export(of, count);
                let length = text.len();
                let mut splitter = Splitter::new();
                bytes_read();
                let body = body(Protocol::OtlpJson(Signal::Metrics), text);
                splitter.scan(body, &SplitRules::new(rules, limits), None).unwrap();
                while splitter.next_part().is_some() {}
                (bytes_read(), length)
            };
            let ((once, length), (twice, twice_length)) = (read(1_000), read(2_000));
            assert!(once > 0 && once <= 20 * length, "{of}: {once} bytes are read of {length}");
            let per_byte = |read: usize, length: usize| read as f64 / length as f64;
            let (before, after) = (per_byte(once, length), per_byte(twice, twice_length));
            assert!(after <= 1.02 * before, "{of}: each byte is read {before} times, then {after} times");
        }
    }
}
