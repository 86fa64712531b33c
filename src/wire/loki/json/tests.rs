use proptest::prelude::*;

use super::*;
use crate::wire::loki::labels::Labels;
use crate::wire::loki::{Field, Fields, StreamField, StreamFields};

fn convert(json: &str) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    to_protobuf(json.as_bytes(), usize::MAX, &mut out)?;
    Ok(out)
}

fn fault(json: &str) -> String {
    convert(json).unwrap_err().to_string()
}

/// A push of one stream with one entry, given its three fields.
fn entry(fields: &str) -> String {
    format!(r#"{{"streams":[{{"stream":{{}},"values":[[{fields}]]}}]}}"#)
}

/// The streams of a push, as the text of their labels and their entries' bytes.
fn streams(request: &[u8]) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut fields = Fields::new(request);
    let mut all = Vec::new();
    while let Some(Field::Stream(stream)) = fields.take().unwrap() {
        let (mut labels, mut entries) = (String::new(), Vec::new());
        let mut fields = StreamFields::new(stream);
        while let Some((field, _)) = fields.take().unwrap() {
            match field {
                StreamField::Labels(text) => labels = String::from_utf8(text.to_vec()).unwrap(),
                StreamField::Entry(entry) => entries.push(entry.to_vec()),
                other => panic!("{other:?}"),
            }
        }
        all.push((labels, entries));
    }
    all
}

#[test]
fn a_push_becomes_the_bytes_that_promtail_would_send() {
    let json = r#" {"streams": [
        {"stream": {"b": "2", "a": "1"}, "values": [["1000000002", "x"], ["3", "", {"k": "v"}]]},
        {"values": [["-1", "\u00e9"]], "stream": {"a": "3"}}
    ]} "#;
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0x0a, 43,
            0x0a, 14, b'{', b'a', b'=', b'"', b'1', b'"', b',', b' ', b'b', b'=', b'"', b'2', b'"', b'}',
            0x12, 9, 0x0a, 4, 0x08, 1, 0x10, 2, 0x12, 1, b'x',
            0x12, 14, 0x0a, 2, 0x10, 3, 0x12, 0, 0x1a, 6, 0x0a, 1, b'k', 0x12, 1, b'v',
    ];
    let got = convert(json).unwrap();
    assert_eq!(got[..expected.len()], *expected);
    assert_eq!(streams(&got).len(), 2);
    let (labels, entries) = &streams(&got)[1];
    assert_eq!(labels, r#"{a="3"}"#);
    let before_the_epoch = [
        &[0x0a, 17, 0x08][..],
        &[0xff; 9],
        &[0x01, 0x10, 0xff, 0x93, 0xeb, 0xdc, 0x03],
        &[0x12, 2, 0xc3, 0xa9],
    ];
    assert_eq!(*entries, [before_the_epoch.concat()]);
}

#[test]
fn labels_are_sorted_and_quoted() {
    let json = r#"{"streams":[{"stream":{"z":"\"\\\n}","a":"é\u0000","a":"last","b":7,"c":-7,"d":true}}]}"#;
    let [(labels, _)] = &streams(&convert(json).unwrap())[..] else { panic!("one stream") };
    assert_eq!(labels, r#"{a="last", b="7", c="-7", d="true", z="\"\\\n}"}"#);
    let mut read = Labels::new(labels.as_bytes());
    let mut values = Vec::new();
    while let Some(label) = read.take().unwrap() {
        values.push(String::from_utf8(label.value.into_owned()).unwrap());
    }
    assert_eq!(values, ["last", "7", "-7", "true", "\"\\\n}"]);
}

#[test]
fn skips_what_loki_skips() {
    for (json, count) in [
        (r#"{}"#, 0),
        (r#"{"streams":null}"#, 0),
        (r#"{"streams":[]}"#, 0),
        (r#"{"other":{"deep":[1,{"x":null}]},"streams":[{}],"more":1.5}"#, 1),
        (r#"{"streams":[{"stream":{"a":"1"},"values":null,"x":[]}]}"#, 1),
        (r#"{"streams":[{"stream":{"a":"1"},"values":[null,null]}]}"#, 1),
    ] {
        let request = convert(json).unwrap();
        let streams = streams(&request);
        assert_eq!(streams.len(), count, "{json}");
        assert!(streams.iter().all(|(_, entries)| entries.is_empty()));
    }
    assert_eq!(convert(&entry(r#""1","x",{},4,[5]"#)), convert(&entry(r#""1","x""#)));
}

#[test]
fn metadata_keeps_its_order_and_every_pair() {
    let request = convert(&entry(r#""1","x",{"b":"2","a":"1","b":"3"}"#)).unwrap();
    let pair = |name: u8, value: u8| [METADATA_KEY, 6, 0x0a, 1, name, 0x12, 1, value];
    let expected = [pair(b'b', b'2'), pair(b'a', b'1'), pair(b'b', b'3')].concat();
    assert!(streams(&request)[0].1[0].ends_with(&expected));
}

#[test]
fn errors_have_a_position_and_a_reason() {
    let place = "the body is not a Loki push in JSON (line 1, column ";
    for (json, expected) in [
        ("", "0): EOF while parsing a value"),
        ("[]", "0): invalid type: sequence, expected an object with `streams`"),
        ("{\"streams\":[]} {}", "16): trailing characters"),
        ("{\"streams\":[],\"streams\":[]}", "23): duplicate field `streams`"),
        ("{\"streams\":{}}", "13): invalid type: map, expected a list of streams"),
        ("{\"streams\":[null]}", "16): invalid type: null, expected an object with `stream` and `values`"),
        ("{\"streams\":[{\"stream\":null}]}", "26): invalid type: null, expected an object of labels"),
        (
            "{\"streams\":[{\"stream\":{\"a\":1.5}}]}",
            "30): invalid type: floating point `1.5`, expected a label's value, as a string",
        ),
        (
            "{\"streams\":[{\"stream\":{\"a\":[]}}]}",
            "29): invalid type: sequence, expected a label's value, as a string",
        ),
        ("{\"streams\":[{\"values\":[],\"values\":[]}]}", "33): duplicate field `values`"),
        ("{\"streams\":[{\"values\":[[]]}]}", "25): an entry without a timestamp"),
        ("{\"streams\":[{\"values\":[[\"1\"]]}]}", "28): an entry without a line"),
        (
            "{\"streams\":[{\"values\":[[\"1\",2]]}]}",
            "29): invalid type: integer `2`, expected a line, as a string",
        ),
        (
            "{\"streams\":[{\"values\":[[1,\"x\"]]}]}",
            "25): invalid type: integer `1`, expected a timestamp: nanoseconds since the epoch, as a string",
        ),
        (
            "{\"streams\":[{\"values\":[[\"1\",\"x\",null]]}]}",
            "36): invalid type: null, expected an object of structured metadata",
        ),
        (
            "{\"streams\":[{\"values\":[[\"1\",\"x\",{\"a\":1}]]}]}",
            "38): invalid type: integer `1`, expected a value of structured metadata, as a string",
        ),
    ] {
        assert_eq!(fault(json), format!("{place}{expected}"), "{json}");
    }
    assert!(fault("{\n \"streams\": [x").contains("(line 2, column 14): expected value"));
}

#[test]
fn timestamps_are_64_bit_nanoseconds() {
    for time in
        ["", " 1", "1 ", "+1", "1.5", "1e9", "0x1", "9223372036854775808", "-9223372036854775809", "now"]
    {
        let text = fault(&entry(&format!("\"{time}\",\"x\"")));
        assert!(text.contains(&format!("invalid value: string \"{time}\", expected a timestamp")), "{text}");
    }
    for time in [i64::MIN, -1, 0, 1, 999_999_999, 1_000_000_000, i64::MAX] {
        assert!(convert(&entry(&format!("\"{time}\",\"x\""))).is_ok());
    }
}

#[test]
fn label_names_are_checked() {
    for name in ["", "1a", "a-b", "a b", "a.b", "é", "a:b", "a=\\\"x\\\", t"] {
        let json = format!(r#"{{"streams":[{{"stream":{{"{name}":"1"}}}}]}}"#);
        assert!(fault(&json).contains("a label's name has to be letters"), "{name}");
    }
}

#[test]
fn errors_are_one_short_line() {
    let long = format!("{{\"streams\":\"{}\\n{}\"}}", "\\u0007".repeat(10), "ü".repeat(10_000));
    let text = fault(&long);
    assert!(text.len() < 600 && text.ends_with('…'), "{text}");
    assert!(!text.contains(char::is_control));
    let JsonError::Malformed { fault, .. } = convert(&long).unwrap_err() else { panic!("not malformed") };
    assert_eq!(fault.chars().count(), JSON_FAULT_CHARS_MAX + 1);
}

#[test]
fn nesting_and_size_are_bounded() {
    let deep = |key: &str| format!("{{\"{key}\":{}", "[".repeat(1_000_000));
    assert!(convert(&deep("x")).is_err());
    assert!(convert(&deep("streams")).is_err());
    let json = entry(&format!("\"1\",\"{}\"", "x".repeat(100)));
    let whole = convert(&json).unwrap();
    let mut out = Vec::new();
    assert_eq!(to_protobuf(json.as_bytes(), whole.len(), &mut out), Ok(()));
    let bytes_max = whole.len() - 1;
    let too_large = to_protobuf(json.as_bytes(), bytes_max, &mut Vec::new());
    assert_eq!(too_large, Err(JsonError::TooLarge { bytes_max }));
    // Labels grow by escaping: they count as soon as they are there.
    let json = format!(r#"{{"streams":[{{"stream":{{"a":"{}"}},"values":[x"#, "\u{7f}".repeat(1000));
    assert_eq!(
        to_protobuf(json.as_bytes(), 3_999, &mut Vec::new()),
        Err(JsonError::TooLarge { bytes_max: 3_999 })
    );
}

/// The push as [`plain`] converts it, which must be as the other way does.
fn plain(json: &str, bytes_max: usize) -> Option<Vec<u8>> {
    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    plain::to_protobuf(json, bytes_max, &mut fast)?;
    assert_eq!(any_to_protobuf(json.as_bytes(), bytes_max, &mut slow), Ok(()), "{json}");
    assert_eq!(fast, slow, "{json}");
    Some(fast)
}

#[test]
fn what_senders_write_is_plain() {
    for (labels, values) in [
        (r#""app":"shop","env":"prod""#, r#"["1760000000000000000","a line"]"#),
        (
            r#""b":"é\u00e9\ud83d\ude00\"\\\/\b\f\n\r\t","a":"","a":"\u007f~""#,
            r#"["1","{\"level\":\"info\"}"],["0",""]"#,
        ),
        ("", r#"["9223372036854775807","x",{}],["2","y",{"trace_id":"4b","a b":"\n"}]"#),
        (r#""a":"1""#, ""),
    ] {
        let stream = format!(r#"{{"stream":{{{labels}}},"values":[{values}]}}"#);
        let reversed = format!("\t{{ \"values\" : [{values}] , \"stream\" :\r\n {{{labels}}} }}");
        for streams in ["", &stream, &reversed, r#"{"values":[]}"#, &format!("{stream},{reversed},{stream}")]
        {
            let json = format!(r#"{{"streams":[{streams}]}}"#);
            assert!(plain(&json, usize::MAX).is_some(), "{json}");
        }
    }
    // Streams with other labels than those before them.
    let streams = [r#""a":"1""#, r#""a":"1","b":"2""#, r#""b":"3","a":"4""#, r#""c":"5","c":"6","a":"7""#];
    let streams: Vec<_> = streams
        .iter()
        .cycle()
        .take(20)
        .enumerate()
        .map(|(at, labels)| format!(r#"{{"stream":{{{labels},"d":"{at}"}}}}"#))
        .collect();
    assert!(plain(&format!(r#"{{"streams":[{}]}}"#, streams.join(",")), usize::MAX).is_some());
}

#[test]
fn what_is_not_plain_is_left_to_the_other_way() {
    for json in [
        "{}",
        r#"{"streams":[],"streams":[]}"#,
        r#"{"streams":[]} {}"#,
        r#"{"streams":[{"stream":{"a":1}}]}"#,
        r#"{"streams":[{"stream":{"1a":"b"}}]}"#,
        r#"{"streams":[{"stream":{"":"b"}}]}"#,
        r#"{"streams":[{"values":[null]}]}"#,
        r#"{"streams":[{"values":[],"values":[]}]}"#,
        r#"{"streams":[{"values":[["9223372036854775808","x"]]}]}"#,
        r#"{"streams":[{"values":[["00000000000000000001","x"]]}]}"#,
        r#"{"streams":[{"values":[["1","\ud800"]]}]}"#,
        r#"{"streams":[{"values":[["1","\udc00"]]}]}"#,
        r#"{"streams":[{"values":[["1","\ud800\u0041"]]}]}"#,
        "{\"streams\":[{\"values\":[[\"1\",\"\n\"]]}]}",
        r#"{"streams":[{"values":[["1"]]}]}"#,
        r#"{"streams":[{},]}"#,
    ] {
        assert_eq!(plain(json, usize::MAX), None, "{json}");
    }
}

/// Pushes of all shapes.
const PUSHES: [&str; 8] = [
    r#"{"streams":[{"stream":{"app":"shop","env":"prod"},"values":[["1760000000000000001","a line"],["2","{\"a\":1}"]]}]}"#,
    r#"{"streams":[{"stream":{"b":"2","a":"1"},"values":[["3","x",{"k":"v","l":"\u00e9\ud83d\ude00"}]]},{"stream":{"b":"3"}}]}"#,
    r#" { "streams" : [ { "values" : [ [ "-1" , "é" ] , null , [ "5" , "" , { } , 7 ] ] , "stream" : { "a" : "\n\t" } } ] } "#,
    r#"{"streams":[{"stream":{"a":"1","a":"2","b":true,"c":-7},"values":null}]}"#,
    r#"{"other":{"deep":[1,{"x":null}]},"streams":[{},{"stream":{"z":"\u0000\u007f"}}],"more":1.5}"#,
    r#"{"streams":[{"stream":{"b":"2","a":"1","d":"","c":"3"},"values":[]},{"stream":{"b":"4","a":"5","d":"6","c":"7"}}]}"#,
    r#"{"streams":[],"streams":[]}"#,
    r#"{"streams":[{"stream":{"a_very_long_name":"and a value that is longer, too, than a byte of its length can say, which is to say, more than a hundred and twenty-seven bytes"},"values":[["9223372036854775807","x"]]}]} {}"#,
];

proptest! {
    /// Pushes, and pushes with pieces of each other.
    #[test]
    fn both_ways_convert_alike(
        seeds in prop::collection::vec(any::<prop::sample::Index>(), 2),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 3),
        with in prop::sample::select(vec![
            "", "\"", "\\", "\\u00e9", "\\ud83d\\ude00", "\u{7f}", "é", "\0", " ", ",", "{", "}", "[", "]", ":", "null", "1",
            "\"a\":\"b\",", "{\"stream\":{\"a\":\"b\"}},", "[\"1\",\"x\"],", ",{\"k\":\"v\"}",
        ]),
        bytes_max in prop_oneof![Just(usize::MAX), 0_usize..300],
    ) {
        let [one, other] = [0, 1].map(|at| *seeds[at].get(&PUSHES));
        let cut = |text: &str, at: usize| {
            let at = cuts[at].index(text.len() + 1);
            (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap()
        };
        let (begin, end) = (cut(other, 1), cut(other, 2));
        let piece = other.get(begin..end).unwrap_or_default();
        let at = cut(one, 0);
        plain(one, bytes_max);
        plain(&[&one[..at], with, &one[at..]].concat(), bytes_max);
        plain(&[&one[..at], piece, &one[at..]].concat(), bytes_max);
    }
}
