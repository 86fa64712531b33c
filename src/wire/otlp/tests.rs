//! Reads hand-made exports.

use super::*;

/// A length-delimited field with a number below 16.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    crate::wire::varint::put(&mut field, bytes.len() as u64);
    field.extend_from_slice(bytes);
    field
}

/// An attribute with this `AnyValue`.
fn attribute(number: u8, key: &str, any: &[u8]) -> Vec<u8> {
    field(number, &[field(1, key.as_bytes()), field(2, any)].concat())
}

/// The levels of an export whose items are read below.
const SIGNALS: [(Signal, Level); 3] = [
    (Signal::Metrics, Level::Point(Points::Exponential)),
    (Signal::Logs, Level::LogRecord),
    (Signal::Traces, Level::Span),
];

#[test]
fn fields_are_looked_up_as_the_levels_list_them() {
    let all = [Points::Gauge, Points::Sum, Points::Histogram, Points::Exponential, Points::Summary];
    let levels = [Level::Export, Level::Resource, Level::Scope, Level::Metric, Level::LogRecord, Level::Span];
    let of_points = all.into_iter().flat_map(|points| [Level::Data(points), Level::Point(points)]);
    for level in levels.into_iter().chain(of_points) {
        for (signal, field) in Signal::ALL.into_iter().flat_map(|signal| (0..32).map(move |at| (signal, at)))
        {
            let listed = level.children(signal).iter().find(|child| child.field() == field);
            assert_eq!(level.child(signal, field), listed.copied(), "{level:?} {signal:?} {field}");
            let is_common = level.common().iter().any(|(common, _)| *common == field);
            assert_eq!(level.is_common(field), is_common, "{level:?} {field}");
        }
    }
}

fn found(notation: Notation, level: Level, message: &[u8]) -> Result<Option<String>, Fault> {
    let names: Vec<Box<[u8]>> = vec![(*b"t").into(), (*b"u").into()];
    let holder = level.owner().or(level.holder()).unwrap();
    let found = find_attribute(notation, holder, message, &names)?;
    Ok(found.map(|(_, value)| String::from_utf8(value.into_text().into_owned()).unwrap()))
}

#[test]
fn texts_numbers_and_truth_values_name_a_tenant_by_priority() {
    let minus_three = [&[3 << 3][..], &[0xfd], &[0xff; 8], &[1]].concat();
    for (any, expected) in [
        (field(1, b"a"), Some("a")),
        (vec![2 << 3, 1], Some("true")),
        (vec![2 << 3, 0], Some("false")),
        (vec![3 << 3, 0xac, 2], Some("300")),
        (minus_three, Some("-3")),
        (field(1, b""), None),
        ([&[4 << 3 | 1][..], &[0; 8]].concat(), None),
        (field(5, b""), None),
        (field(7, b"x"), None),
        (vec![], None),
        // A `oneof`: the last counts.
        ([field(1, b"a"), vec![3 << 3, 7]].concat(), Some("7")),
    ] {
        for (_, level) in SIGNALS {
            let number = level.holder().unwrap().field.try_into().unwrap();
            let message = [attribute(number, "x", &field(1, b"z")), attribute(number, "u", &any)].concat();
            assert_eq!(found(Notation::Protobuf, level, &message).unwrap().as_deref(), expected);
            let first = [message, attribute(number, "t", &field(1, b"first"))].concat();
            assert_eq!(found(Notation::Protobuf, level, &first).unwrap().as_deref(), Some("first"));
        }
    }
}

#[test]
fn attributes_that_decoders_read_differently_are_refused() {
    let pair = |bytes: &[u8]| found(Notation::Protobuf, Level::LogRecord, &field(6, bytes));
    let twice = [field(1, b"t"), field(2, &field(1, b"a")), field(2, &field(1, b"b"))].concat();
    assert_eq!(pair(&twice), Err(Fault::Repeated));
    assert_eq!(pair(&[2 << 3, 1]), Err(Fault::Protobuf(protobuf::Fault::KnownWireType)));
    let fixed = [field(1, b"t"), field(2, &[3 << 3 | 5, 0, 0, 0, 0])].concat();
    assert_eq!(pair(&fixed), Err(Fault::Protobuf(protobuf::Fault::KnownWireType)));
    assert!(pair(&[0x0a, 9]).is_err());
}

#[test]
fn items_are_counted_whatever_they_are_in() {
    let logs =
        field(1, &[field(2, &[field(2, b""), field(2, b"")].concat()), field(2, &field(2, b""))].concat());
    for signal in [Signal::Logs, Signal::Traces] {
        assert_eq!(count_items(Notation::Protobuf, signal, Level::Export, &logs), Ok(3));
    }
    let metric = |data: u8, points: usize| field(2, &field(data, &field(1, b"").repeat(points)));
    let metrics = [5, 7, 9, 10, 11].map(|data| metric(data, usize::from(data))).concat();
    let metrics = field(1, &field(2, &metrics));
    assert_eq!(count_items(Notation::Protobuf, Signal::Metrics, Level::Export, &metrics), Ok(42));
}

#[test]
fn what_may_be_there_once_is_refused_twice() {
    let count = |signal, export: &[u8]| count_items(Notation::Protobuf, signal, Level::Export, export);
    let two_resources = field(1, &field(1, b"").repeat(2));
    assert_eq!(count(Signal::Logs, &two_resources), Err(Fault::Repeated));
    let two_scopes = field(1, &field(2, &field(1, b"").repeat(2)));
    assert_eq!(count(Signal::Traces, &two_scopes), Err(Fault::Repeated));
    let gauge_and_sum = field(1, &field(2, &field(2, &[field(5, b""), field(7, b"")].concat())));
    assert_eq!(count(Signal::Metrics, &gauge_and_sum), Err(Fault::Repeated));
    assert_eq!(count(Signal::Logs, &[1 << 3, 1]), Err(Fault::Protobuf(protobuf::Fault::KnownWireType)));
}

fn members(level: Level, signal: Signal, text: &str) -> Result<Vec<String>, Fault> {
    json::check(text.as_bytes()).unwrap();
    let mut members = Members::new(Notation::Json, signal, level, text.as_bytes());
    let mut all = Vec::new();
    while let Some((member, range)) = members.take()? {
        let kind = match member {
            Member::Child(..) => "child",
            Member::Owner(_) => "owner",
            Member::Common => "common",
            Member::Scalar => "scalar",
            Member::Other => "other",
        };
        all.push(format!("{kind} {}", &text[range]));
    }
    Ok(all)
}

#[test]
fn json_is_read_in_its_pieces() {
    let text = r#" { "scopeLogs" : [ {"a":"}]"} , {} ] ,"x":{"y":[1,{"\"":2}]}, "n": 1e3, "resource":{"k":1},
        "schema_url":"s", "z":null , "t":"\\"}"#;
    assert_eq!(
        members(Level::Resource, Signal::Logs, text).unwrap(),
        [
            r#"child {"a":"}]"}"#,
            "child {}",
            r#"other "x":{"y":[1,{"\"":2}]}"#,
            r#"scalar "n": 1e3"#,
            r#"owner "resource":{"k":1}"#,
            r#"common "schema_url":"s""#,
            r#"scalar "z":null"#,
            r#"other "t":"\\""#,
        ]
    );
    let metric = r#"{"name":"m","sum":{"dataPoints":[]},"unit":"1"}"#;
    assert_eq!(
        members(Level::Metric, Signal::Metrics, metric).unwrap(),
        [r#"common "name":"m""#, r#"child "sum":{"dataPoints":[]}"#, r#"common "unit":"1""#]
    );
    let escaped = "{\"resource_\\u0073pans\":[{}],\"resource\": null}";
    assert_eq!(
        members(Level::Export, Signal::Traces, escaped).unwrap(),
        ["child {}", "scalar \"resource\": null"]
    );
    assert_eq!(members(Level::Export, Signal::Logs, "{\"resourceLogs\":null}").unwrap(), [""; 0]);
}

#[test]
fn json_that_decoders_read_differently_is_refused() {
    for (text, fault) in [
        ("[]", "a value is not an object"),
        (r#"{"resourceLogs":{}}"#, "a value is not a list"),
        (r#"{"resourceLogs":[1]}"#, "a value is not an object"),
        (r#"{"resourceLogs":[null]}"#, "a value is not an object"),
        (r#"{"ResourceLogs":[]}"#, "a known key is spelled in an unknown way"),
        (r#"{"resourcelogs":[]}"#, "a known key is spelled in an unknown way"),
        (r#"{"resource__logs":[]}"#, "a known key is spelled in an unknown way"),
    ] {
        assert_eq!(members(Level::Export, Signal::Logs, text).unwrap_err(), Fault::Json(fault), "{text}");
    }
    for (level, text) in [
        (Level::Export, r#"{"resourceMetrics":[],"resourceMetrics":[]}"#),
        (Level::Export, r#"{"resourceMetrics":[],"resource_metrics":null}"#),
        (Level::Resource, r#"{"resource":null,"resource":{}}"#),
        (Level::Resource, r#"{"resource":{},"resource":null}"#),
        (Level::Metric, r#"{"gauge":null,"gauge":{}}"#),
        (Level::Metric, r#"{"name":"a","name":null}"#),
        (Level::Metric, r#"{"gauge":{},"sum":{}}"#),
    ] {
        assert_eq!(members(level, Signal::Metrics, text).unwrap_err(), Fault::Repeated, "{text}");
    }
    let one = r#"{"gauge":null,"sum":{}}"#;
    assert_eq!(members(Level::Metric, Signal::Metrics, one).unwrap(), [r#"child "sum":{}"#]);
    let list = br#"{"attributes":null,"attributes":[]}"#;
    assert_eq!(found(Notation::Json, Level::LogRecord, list), Err(Fault::Repeated));
    for text in ["", "{", "{\"a\":1}x", "{\"a\":\"\u{1}\"}", "{'a':1}", "NaN", &"[".repeat(200)] {
        assert!(json::check(text.as_bytes()).is_err(), "{text}");
    }
    assert!(json::check(b"\"\xff\"").is_err());
}

#[test]
fn json_is_not_nested_deeply_and_has_whole_characters() {
    let nested = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
    assert_eq!(json::check(nested(128).as_bytes()), Ok(()));
    let error = json::check(nested(129).as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "the body is not JSON: it is nested too deeply at byte 128");
    assert_eq!(json::check(format!("[\"{}\", \"\\\"[\"]", "[".repeat(200)).as_bytes()), Ok(()));
    for text in [r#""\ud83d\uDE00""#, r#""\\ud800""#, r#"{"\u0074":"\n\u00e9"}"#] {
        assert_eq!(json::check(text.as_bytes()), Ok(()), "{text}");
    }
    for text in [
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\u0041""#,
        r#""\uDBFFx""#,
        r#"{"\ud800":1}"#,
        r#"["\ud800\ud800"]"#,
    ] {
        let error = json::check(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("half of a surrogate pair"), "{text}: {error}");
    }
}

#[test]
fn attributes_in_json_are_found_and_cut_with_a_comma() {
    let value = |any: &str| {
        let text = format!(r#"{{"attributes":[{{"key":"t","value":{any}}}]}}"#);
        found(Notation::Json, Level::LogRecord, text.as_bytes())
    };
    for (any, expected) in [
        (r#"{"stringValue":"a\u0062\n"}"#, Some("ab\n")),
        (r#"{"string_value":"a"}"#, Some("a")),
        (r#"{"intValue":"-12"}"#, Some("-12")),
        (r#"{"intValue":12}"#, Some("12")),
        (r#"{"boolValue":true}"#, Some("true")),
        (r#"{"doubleValue":1.5}"#, None),
        (r#"{"arrayValue":{"values":[]}}"#, None),
        (r#"{"intValue":5.0}"#, Some("5")),
        (r#"{"intValue":1e3}"#, Some("1000")),
        (r#"{"intValue":"-1.5E+1"}"#, Some("-15")),
        (r#"{"intValue":1200e-2}"#, Some("12")),
        (r#"{"intValue":-0.0e9}"#, Some("0")),
        (r#"{"intValue":9223372036854775807.0}"#, Some("9223372036854775807")),
        (r#"{"intValue":"-9223372036854775808"}"#, Some("-9223372036854775808")),
        (r#"{"stringValue":null}"#, None),
        (r#"{"intValue":null}"#, None),
        (r#"{"boolValue":null,"doubleValue":null,"intValue":3}"#, Some("3")),
        (r#"{"stringValue":"a","arrayValue":null,"kvlistValue":null,"bytesValue":null}"#, Some("a")),
        ("null", None),
        ("{}", None),
    ] {
        assert_eq!(value(any).unwrap().as_deref(), expected, "{any}");
    }
    for any in [
        r#"{"stringValue":"a","intValue":1}"#,
        r#"{"stringValue":"a","stringValue":"b"}"#,
        r#"{"stringValue":1}"#,
        r#"{"intValue":1.5}"#,
        r#"{"intValue":15e-1}"#,
        r#"{"intValue":1e999999999999}"#,
        r#"{"intValue":9223372036854775808}"#,
        r#"{"intValue":"+5"}"#,
        r#"{"intValue":""}"#,
        r#"{"intValue":"5 "}"#,
        r#"{"stringValue":null,"stringValue":"a"}"#,
        r#"{"stringValue":"a","string_value":null}"#,
        r#"{"boolValue":"true"}"#,
        r#"{"StringValue":"a"}"#,
        "[]",
    ] {
        assert!(value(any).is_err(), "{any}");
        // What is not asked for is not read.
        let other = format!(r#"{{"attributes":[{{"key":"x","value":{any}}}]}}"#);
        assert_eq!(found(Notation::Json, Level::LogRecord, other.as_bytes()), Ok(None), "{any}");
    }
    let pairs = r#"{"key":"t","value":{"stringValue":"a"}}"#;
    let others = r#"{"key":"x"}"#;
    for (list, without) in [
        (format!("[ {pairs} ]"), "[  ]".to_owned()),
        (format!("[{pairs} , {others}]"), format!("[ {others}]")),
        (format!("[{others} , {pairs}]"), format!("[{others}]")),
        (format!("[{others},{pairs}, {others}]"), format!("[{others}, {others}]")),
        (format!("[{pairs},{pairs}]"), "[]".to_owned()),
        (format!("[{pairs}, {pairs} , {others}]"), format!("[  {others}]")),
        (format!("[{others}, {pairs},{pairs}]"), format!("[{others}]")),
        (format!("[{pairs},{others},{pairs},{others}]"), format!("[{others},{others}]")),
    ] {
        let text = format!(r#"{{"z":[1],"attributes": {list} }}"#);
        let holder = Level::Resource.owner().unwrap();
        let (mut cut, mut kept_at) = (String::new(), 0);
        let each = |range: Range<usize>| {
            cut.push_str(&text[kept_at..range.start]);
            kept_at = range.end;
        };
        each_cut(Notation::Json, holder, text.as_bytes(), b"t", each).unwrap();
        cut.push_str(&text[kept_at..]);
        assert_eq!(cut, format!(r#"{{"z":[1],"attributes": {without} }}"#));
    }
}
