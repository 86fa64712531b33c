//! Pushes of Loki.

use super::{Seeds, field};

/// Pushes. The check takes tenants from the labels `t`, `tenant` and `__name__`, in this order.
pub(super) fn protobuf_seeds() -> Seeds {
    let pair =
        |name: &str, value: &str| field(3, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
    let entry = |metadata: &[Vec<u8>]| {
        field(2, &[field(1, &[8, 1, 16, 2]), field(2, b"line"), metadata.concat()].concat())
    };
    let stream =
        |labels: &str, fields: &[Vec<u8>]| field(1, &[field(1, labels.as_bytes()), fields.concat()].concat());
    let of = |labels: &str| stream(labels, &[entry(&[])]);
    let by = |tenant: &str| entry(&[pair("x", "y"), pair("t", tenant)]);
    let hash = || vec![3 << 3, 99];
    let group = || vec![9 << 3 | 3, 10 << 3, 1, 9 << 3 | 4];
    vec![
        ("one-tenant", [of("{t=\"a\"}"), of("{x=\"1\", t=\"a\"}")].concat()),
        ("tenants-in-turn", [of("{t='a'}"), of("{t=`b`}"), of("{t='a'}")].concat()),
        ("label-in-the-middle", of("{a=\"1\", t=\"x\", b=\"2\"}")),
        ("label-last-behind-a-comment", of("{a='1' , #c\n t='x' #d\n}")),
        ("labels-malformed", [of("{t='a'}"), of("{t=1}")].concat()),
        ("labels-twice", field(1, &[field(1, b"{t='a'}"), entry(&[]), field(1, b"{t='b'}")].concat())),
        ("no-labels", field(1, &by("a"))),
        ("metric-name", [of("up"), of("up{t='a'}"), of("{'up'}")].concat()),
        ("entries-of-two-tenants", stream("{x='1'}", &[by("a"), by("b"), by("b"), by("a")])),
        ("entries-of-one-tenant", stream("{x='1'}", &[by("a"), by("a"), hash()])),
        ("entries-some-missing", stream("{}", &[by("a"), entry(&[]), by(""), by("a/b")])),
        (
            "entries-by-second-name",
            stream("{}", &[entry(&[pair("tenant", "b"), pair("t", ""), pair("t", "a")])]),
        ),
        ("entry-broken", stream("{}", &[by("a"), field(2, &[0x1a, 9])])),
        ("entry-broken-behind-labels", stream("{t='a'}", &[field(2, &[0x1a, 9])])),
        (
            "split-with-hash-and-unknown-fields",
            stream("{}", &[hash(), by("a"), group(), field(9, b"?"), by("b"), vec![9 << 3, 7]]),
        ),
        ("stream-without-entries", [stream("{t='b'}", &[]), of("{t='a'}")].concat()),
        ("format", [of("{t='a'}"), field(2, b"loki")].concat()),
        (
            "unknown-number-with-two-tenants",
            [of("{t='a'}"), vec![9 << 3, 7], of("{t='b'}"), group()].concat(),
        ),
        ("known-field-of-another-type", stream("{t='a'}", &[vec![2 << 3, 1]])),
        ("longer-than-needed", vec![0x8a, 0, 0x88, 0, 0x8a, 0, 0x85, 0, b'{', b'}']),
        ("cut-short", of("{t='a'}")[..12].to_vec()),
        ("empty", Vec::new()),
    ]
}

/// Label sets.
pub(super) fn labels_seeds() -> Seeds {
    let texts = [
        ("plain", "{app=\"shop\", env=\"prod\"}"),
        ("trailing-comma", "{app=\"shop\",env=\"prod\",}"),
        ("three-quotes", "{a=\"1\", b='2', c=`3`}"),
        ("escapes", r#"{a="\a\b\f\n\r\t\v\\\"", b='\'', c="\x41\101\u00e9\U0001F600"}"#),
        ("escape-of-bytes", r#"{a="\xff\377"}"#),
        ("escape-unknown", r#"{a="\q"}"#),
        ("escape-surrogate", r#"{a="\ud800"}"#),
        ("escape-too-large", r#"{a="\400\U00110000"}"#),
        ("raw", "{a=`\\n \"'\n# }`}"),
        ("white-space-and-comments", "# in front\n { a = '1' , # one\n b='2' #}\n } # behind"),
        ("quoted-names", "{\"weird name\"='1', 'b'=\"2\", \"up\"}"),
        ("metric-name", "job:up:sum{a='1'}"),
        ("empty-set", "{}"),
        ("nothing", ""),
        ("only-a-comma", "{,}"),
        ("two-commas", "{a='1',,b='2'}"),
        ("matcher", "{a=~'1', b!='2'}"),
        ("open-brace", "{a='1'"),
        ("open-quote", "{a='1}"),
        ("line-ends-in-quotes", "{a='1\n'}"),
        ("something-behind", "{a='1'} 5"),
        ("replacement-character", "{a='\u{fffd}'}"),
    ];
    texts.into_iter().map(|(name, text)| (name, text.as_bytes().to_vec())).collect()
}

/// Pushes in JSON.
pub(super) fn json_seeds() -> Seeds {
    let stream = |fields: &str| format!("{{\"streams\":[{{{fields}}}]}}");
    let entry = |fields: &str| stream(&format!("\"stream\":{{\"a\":\"1\"}},\"values\":[[{fields}]]"));
    let texts = [
        ("plain", entry(r#""1700000000123456789","line""#)),
        ("metadata", entry(r#""1","line",{"b":"2","a":"1","b":"3"}"#)),
        ("values-first", stream(r#""values":[["1","x"],["2","y"]],"stream":{"b":"2","a":"1"}"#)),
        ("escapes", entry(r#""1","\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#)),
        ("lone-surrogate", entry(r#""1","\ud83d""#)),
        ("label-of-many-characters", stream("\"stream\":{\"a\":\"\u{7f}\u{85}\u{fffd}\u{e9}\\n\\\"\"}")),
        ("label-twice", stream(r#""stream":{"a":"1","b":"2","a":"3"}"#)),
        ("label-of-words-and-numbers", stream(r#""stream":{"a":true,"b":18446744073709551615,"c":-1}"#)),
        ("label-of-a-fraction", stream(r#""stream":{"a":1.5}"#)),
        ("label-name-is-no-name", stream(r#""stream":{"a-b":"1"}"#)),
        ("nulls", stream(r#""values":[null,["1","x"],null]"#)),
        ("values-null", stream(r#""stream":{},"values":null"#)),
        ("unknown-keys", stream(r#""x":{"y":[1,2.5,{}]},"stream":{},"values":[["1","x",{},4,[5]]]"#)),
        ("key-twice", stream(r#""values":[],"values":[]"#)),
        ("time-is-a-number", entry(r#"1,"x""#)),
        ("time-before-the-epoch", entry(r#""-1","x""#)),
        ("time-too-large", entry(r#""9223372036854775808","x""#)),
        ("no-line", entry(r#""1""#)),
        ("no-streams", r#"{"streams":[]}"#.to_owned()),
        ("two-documents", r#"{"streams":[]}{"streams":[]}"#.to_owned()),
        ("deep", format!("{{\"x\":{}", "[".repeat(200))),
        ("cut-short", entry(r#""1","x""#)[..30].to_owned()),
    ];
    texts.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}
