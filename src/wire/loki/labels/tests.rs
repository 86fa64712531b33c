use super::*;

/// All labels of a text, or what is wrong with it.
fn read(text: &[u8]) -> Result<Vec<Label<'_>>, Malformed> {
    let mut labels = Labels::new(text);
    let mut all = Vec::new();
    while let Some(label) = labels.take()? {
        all.push(label);
    }
    Ok(all)
}

fn pairs(text: &str) -> Vec<(String, String)> {
    let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let labels = read(text.as_bytes()).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    labels.iter().map(|label| (text_of(&label.name), text_of(&label.value))).collect()
}

/// What the text is without its label number `at`.
fn without(text: &str, at: usize) -> String {
    let cut = read(text.as_bytes()).unwrap()[at].cut.clone();
    format!("{}{}", &text[..cut.start], &text[cut.end..])
}

fn assert_pairs(text: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    assert_eq!(pairs(text), expected, "{text}");
}

fn fault(text: &str) -> Malformed {
    read(text.as_bytes()).unwrap_err()
}

#[test]
fn accepts_what_loki_accepts() {
    for text in ["", "  ", "{}", " { } ", "# nothing\n{# at all\n}", "\t\r\n{\n}\n"] {
        assert_pairs(text, &[]);
    }
    for text in [
        r#"{a="1", b_2="x y"}"#,
        r#"{a="1",b_2="x y"}"#,
        r#"{a="1",b_2="x y",}"#,
        "{a='1', b_2=`x y`}",
        "\n{\ta = \"1\"\r\n , # the first\n b_2\n=\n'x y' , }\n # done",
        r#"{"a"="1", 'b_2'="x y"}"#,
    ] {
        assert_pairs(text, &[("a", "1"), ("b_2", "x y")]);
    }
    // Keywords of PromQL are names here.
    assert_pairs(
        r#"{by="1", _="2", __x__="3", A1="4"}"#,
        &[("by", "1"), ("_", "2"), ("__x__", "3"), ("A1", "4")],
    );
    // The same name twice, and empty values: for others to judge.
    assert_pairs(r#"{a="1", a="", a="2"}"#, &[("a", "1"), ("a", ""), ("a", "2")]);
    assert_pairs(r#"{"weird name.é"="1"}"#, &[("weird name.é", "1")]);
}

#[test]
fn a_metric_name_is_a_label() {
    assert_pairs("up", &[("__name__", "up")]);
    assert_pairs(r#" job:up:sum {a="1"}"#, &[("__name__", "job:up:sum"), ("a", "1")]);
    assert_pairs(r#"{"up"}"#, &[("__name__", "up")]);
    assert_pairs(r#"{"up", a="1", }"#, &[("__name__", "up"), ("a", "1")]);
    assert_eq!(without(r#"up{a="1"}"#, 0), r#"{a="1"}"#);
    assert_eq!(without(r#"{"up", a="1"}"#, 0), r#"{a="1"}"#);
}

#[test]
fn escapes_are_those_of_go() {
    assert_pairs(r#"{a="\a\b\f\n\r\t\v\\\""}"#, &[("a", "\u{7}\u{8}\u{c}\n\r\t\u{b}\\\"")]);
    assert_pairs(r#"{a='it\'s "so"'}"#, &[("a", "it's \"so\"")]);
    assert_pairs(r#"{a="\x41\101\u00e9\U0001F600é"}"#, &[("a", "AAé😀é")]);
    assert_pairs(r"{a=`no \n escape # here }`}", &[("a", r"no \n escape # here }")]);
    assert_pairs("{a=`two\nlines`}", &[("a", "two\nlines")]);
    let bytes = read(br#"{a="\xff\377"}"#).unwrap();
    assert_eq!(*bytes[0].value, [0xff, 0xff]);
    for escape in [
        r"\'",
        r"\q",
        r"\x4",
        r"\xg1",
        r"\u12",
        r"\ud800",
        r"\U00110000",
        r"\400",
        r"\18",
        r"\8",
        "\\é",
        r"\",
    ] {
        let text = format!("{{a=\"1{escape}\"}}");
        let malformed = fault(&text);
        assert!(matches!(malformed.fault, Fault::Escape | Fault::Quote), "{text}: {malformed}");
    }
    assert_eq!(fault(r#"{a="x\q"}"#), Malformed { fault: Fault::Escape, at_byte: 5 });
}

#[test]
fn copies_only_escaped_text() {
    let labels = read(br#"{a="plain", b=`\raw`, c="\n"}"#).unwrap();
    let borrowed: Vec<bool> = labels.iter().map(|label| matches!(label.value, Cow::Borrowed(_))).collect();
    assert_eq!(borrowed, [true, true, false]);
    assert!(labels.iter().all(|label| matches!(label.name, Cow::Borrowed(_))));
}

#[test]
fn refuses_what_loki_refuses() {
    for (text, expected) in [
        ("{", "it ends before its closing brace, at byte 1"),
        ("{a", "it ends before its closing brace, at byte 2"),
        ("{a=", "it ends before its closing brace, at byte 3"),
        (r#"{a="1""#, "it ends before its closing brace, at byte 6"),
        (r#"{a="1","#, "it ends before its closing brace, at byte 7"),
        (r#"{a="1"#, "a quote is not closed, at byte 3"),
        ("{a='1\n'}", "a quote is not closed, at byte 3"),
        ("{a='\\n1\n'}", "a quote is not closed, at byte 3"),
        ("{a=`1}", "a quote is not closed, at byte 3"),
        ("{,}", "expected a label's name, found ',', at byte 1"),
        (r#"{a="1",,}"#, "expected a label's name, found ',', at byte 7"),
        (r#"{1a="1"}"#, "expected a label's name, found '1', at byte 1"),
        (r#"{a:b="1"}"#, "expected '=', found ':', at byte 2"),
        (r#"{a b="1"}"#, "expected '=', found 'b', at byte 3"),
        (r#"{a!="1"}"#, "expected '=', found '!', at byte 2"),
        (r#"{a=~"1"}"#, "expected a value in quotes, found '~', at byte 3"),
        (r#"{a=="1"}"#, "expected a value in quotes, found '=', at byte 3"),
        ("{a=1}", "expected a value in quotes, found '1', at byte 3"),
        (r#"{a="1" b="2"}"#, "expected ',' or '}', found 'b', at byte 7"),
        (r#"{a="1"}}"#, "expected nothing behind the brace, found '}', at byte 7"),
        (r#"{a="1"}{}"#, "expected nothing behind the brace, found '{', at byte 7"),
        (r#"{a="1"} 5"#, "expected nothing behind the brace, found '5', at byte 8"),
        (r#"a="1""#, "expected '{', found '=', at byte 1"),
        (r#""up"{}"#, "expected '{', found '\\\"', at byte 0"),
        ("[]", "expected '{', found '[', at byte 0"),
        ("\0", "expected '{', found '\\x00', at byte 0"),
    ] {
        assert_eq!(fault(text).to_string(), expected, "{text}");
    }
}

#[test]
fn a_label_can_be_cut_out() {
    let text = r#"{a="1", b="2", c="3"}"#;
    assert_eq!(without(text, 0), r#"{b="2", c="3"}"#);
    assert_eq!(without(text, 1), r#"{a="1", c="3"}"#);
    assert_eq!(without(text, 2), r#"{a="1", b="2"}"#);
    assert_eq!(without(r#"{a="1"}"#, 0), "{}");
    assert_eq!(without(r#"{ a="1" , }"#, 0), "{ }");
    assert_eq!(without(r#"{a="1", b="2",}"#, 1), r#"{a="1", }"#);
    // What stands around it stays, quotes and all.
    assert_eq!(without("{a=`x\\`,  b='2' , #c\n c=\"\\x41\"}", 1), "{a=`x\\`,  c=\"\\x41\"}");
    assert_eq!(without("{a=\"1\" , #c\n b=\"2\" #d\n}", 1), "{a=\"1\"  #d\n}");
}

#[test]
fn quoted_text_parses_back() {
    let quoted = |value: &str| {
        let mut out = Vec::new();
        quote(value, &mut out);
        String::from_utf8(out).unwrap()
    };
    // As Go writes it.
    assert_eq!(quoted("plain"), r#""plain""#);
    assert_eq!(quoted("\"\\\u{7}\u{8}\u{c}\n\r\t\u{b}"), r#""\"\\\a\b\f\n\r\t\v""#);
    assert_eq!(quoted("\0\u{1b}\u{7f}"), r#""\x00\x1b\x7f""#);
    assert_eq!(quoted("é'`😀"), r#""é'`😀""#);
    assert_eq!(quoted("\u{85}\u{2028}\u{fffd}"), r#""\u0085\u2028\ufffd""#);
    for value in
        (0..0x300).filter_map(char::from_u32).chain(['\u{2028}', '\u{fffd}', '\u{fffe}', '\u{10ffff}'])
    {
        let value = format!("x{value}1");
        let text = format!("{{a={}}}", quoted(&value));
        assert_eq!(pairs(&text), [("a".to_owned(), value)]);
    }
}
