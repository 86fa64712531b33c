//! Exports of OTLP.

use super::{Check, Seeds, field, otlp};

/// A target with its check and its seeds.
type Target = (&'static str, Check, fn() -> Seeds);

/// All targets.
pub(super) const ALL: [Target; 4] = [
    ("otlp_metrics", otlp::check_metrics, metrics),
    ("otlp_logs", otlp::check_logs, logs),
    ("otlp_traces", otlp::check_traces, traces),
    ("otlp_json", otlp::check_json, json),
];

/// An attribute in this field.
fn attribute(number: u32, key: &str, any: &[u8]) -> Vec<u8> {
    field(number, &[field(1, key.as_bytes()), field(2, any)].concat())
}

fn text(number: u32, key: &str, value: &str) -> Vec<u8> {
    attribute(number, key, &field(1, value.as_bytes()))
}

/// A resource with this attribute, and the fields behind it.
fn resource(attributes: &[Vec<u8>], more: &[Vec<u8>]) -> Vec<u8> {
    field(1, &[field(1, &[attributes.concat(), vec![2 << 3, 3]].concat()), more.concat()].concat())
}

fn scope(attributes: &[Vec<u8>], items: &[Vec<u8>]) -> Vec<u8> {
    field(
        2,
        &[field(1, &[field(1, b"lib"), attributes.concat()].concat()), items.concat(), field(3, b"url")]
            .concat(),
    )
}

/// Exports whose items have their attributes in the field `number`.
fn of_items(number: u32) -> Seeds {
    let by = |tenant: &str| field(2, &[text(number, "x", "y"), text(number, "t", tenant)].concat());
    let plain = || field(2, &[9, 1, 0, 0, 0, 0, 0, 0, 0]);
    vec![
        ("one-tenant", resource(&[text(1, "t", "a")], &[scope(&[], &[plain(), by("b")])])),
        (
            "tenants-in-turn",
            ["a", "b", "a"]
                .map(|tenant| resource(&[text(1, "t", tenant)], &[scope(&[], &[plain()])]))
                .concat(),
        ),
        ("by-second-name", resource(&[text(1, "tenant", "b"), text(1, "t", "")], &[scope(&[], &[plain()])])),
        (
            "values-of-all-kinds",
            [vec![2 << 3, 1], vec![3 << 3, 7], field(5, b""), field(7, b"a")]
                .map(|any| resource(&[attribute(1, "t", &any)], &[scope(&[], &[plain()])]))
                .concat(),
        ),
        (
            "by-scope",
            resource(
                &[],
                &[scope(&[text(3, "t", "a")], &[by("b")]), scope(&[text(3, "t", "b")], &[plain()])],
            ),
        ),
        ("by-items", resource(&[], &[scope(&[], &[by("a"), by("b"), by("a")]), field(3, b"schema")])),
        ("items-of-one-tenant", resource(&[], &[scope(&[], &[by("a")]), scope(&[], &[by("a")])])),
        ("some-missing", resource(&[], &[scope(&[], &[by("a"), plain(), by("a/b")])])),
        ("no-items", [resource(&[], &[]), resource(&[text(1, "t", "a")], &[scope(&[], &[])])].concat()),
        (
            "unknown-fields",
            [
                resource(&[], &[scope(&[], &[by("a"), by("b")]), field(9, b"?"), vec![10 << 3, 1]]),
                vec![9 << 3, 7],
            ]
            .concat(),
        ),
        (
            "resource-twice",
            field(1, &[field(1, b""), field(1, &text(1, "t", "a")), scope(&[], &[plain()])].concat()),
        ),
        (
            "value-twice",
            resource(
                &[field(1, &[field(1, b"t"), field(2, &field(1, b"a")), field(2, b"")].concat())],
                &[scope(&[], &[plain()])],
            ),
        ),
        ("item-broken", resource(&[], &[scope(&[], &[by("a"), field(2, &[0x0a, 9])])])),
        ("cut-short", vec![0x0a, 5, 0x0a]),
    ]
}

fn logs() -> Seeds {
    of_items(6)
}

fn traces() -> Seeds {
    of_items(9)
}

fn metrics() -> Seeds {
    let metric = |data: u32, attributes: u32, tenants: &[&str]| {
        let points: Vec<_> = tenants.iter().map(|tenant| field(1, &text(attributes, "t", tenant))).collect();
        let data = field(data, &[points.concat(), vec![2 << 3, 2]].concat());
        field(2, &[field(1, b"name"), data, field(3, b"unit"), text(12, "t", "not this")].concat())
    };
    let all = [(5, 7), (7, 7), (9, 9), (10, 1), (11, 7)];
    let each = |tenants: &[&str]| all.map(|(data, attributes)| metric(data, attributes, tenants));
    vec![
        ("one-tenant", resource(&[text(1, "t", "a")], &[scope(&[], &each(&["b", "c"]))])),
        ("points-of-two-tenants", resource(&[], &[scope(&[], &each(&["a", "b", "a"]))])),
        (
            "metrics-of-two-tenants",
            resource(&[], &[scope(&[], &[metric(5, 7, &["a", "a"]), metric(10, 1, &["b"])])]),
        ),
        ("points-in-the-wrong-field", resource(&[], &[scope(&[], &[metric(10, 7, &["a", "b"])])])),
        (
            "no-points",
            resource(&[], &[scope(&[], &[metric(5, 7, &[]), metric(7, 7, &["a"]), metric(9, 9, &["b"])])]),
        ),
        (
            "two-kinds-of-data",
            resource(&[], &[scope(&[], &[field(2, &[field(5, b""), field(7, b"")].concat())])]),
        ),
        ("data-is-a-number", resource(&[], &[scope(&[], &[field(2, &[5 << 3, 1])])])),
    ]
}

fn json() -> Seeds {
    let record =
        |tenant: &str| format!(r#"{{"attributes":[{{"key":"t","value":{{"stringValue":"{tenant}"}}}}]}}"#);
    let logs = |resource: &str, records: &[String]| {
        format!(
            r#"{{"resourceLogs":[{{{resource}"scopeLogs":[{{"scope":{{"name":"l"}},"logRecords":[{}]}}]}}]}}"#,
            records.join(", ")
        )
    };
    let named = r#""resource":{"attributes":[{"key":"x"}, {"key":"t","value":{"stringValue":"\u0061"}}]},"#;
    let point = record("a") + "," + &record("b");
    let all = [
        ("one-tenant", logs(named, &[record("b"), "{}".into()])),
        ("items-of-two-tenants", logs("", &[record("a"), record("b"), record("a")])),
        ("snake-case", logs(named, &["{}".into()]).replace("resourceLogs", "resource_logs").replace("logRecords", "log_records")),
        ("other-case", logs(named, &["{}".into()]).replace("resourceLogs", "ResourceLogs")),
        ("key-twice", format!("{{\"resourceLogs\":[],{}", &logs(named, &["{}".into()])[1..])),
        ("nulls", r#"{"resourceSpans":[{"resource":null,"scopeSpans":null}],"resourceLogs":null}"#.into()),
        ("spans", r#"{"resourceSpans":[{"scopeSpans":[{"scope":{"attributes":[{"key":"t","value":{"intValue":"5"}}]},"spans":[{"kind":1}]}]}]}"#.into()),
        ("points", format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","sum":{{"isMonotonic":true,"dataPoints":[{point}]}}}}]}}],"schemaUrl":"}}]"}}]}}"#)),
        ("wrong-kind", r#"{"resourceLogs":[{"scopeLogs":{}}]}"#.into()),
        ("cut-short", r#"{"resourceLogs":[{"scopeLogs":["#.into()),
        ("empty", "{}".into()),
    ];
    all.map(|(name, text): (_, String)| (name, text.into_bytes())).into()
}
