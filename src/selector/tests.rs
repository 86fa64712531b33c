use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::limits::{SELECTOR_BYTES_MAX, SELECTOR_MATCHERS_MAX};

fn parsed(text: &str) -> Vec<(String, &'static str, String)> {
    let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    selector.matchers().iter().map(|m| (show(m.name()), m.op().as_str(), show(m.value()))).collect()
}

fn matcher(name: &str, op: &'static str, value: &str) -> (String, &'static str, String) {
    (name.to_owned(), op, value.to_owned())
}

fn fault(text: &str) -> String {
    Selector::parse(text).unwrap_err().to_string()
}

#[test]
fn every_notation_of_prometheus_is_read() {
    let up = matcher("__name__", "=", "up");
    for text in ["up", " up ", "up{}", "{__name__=\"up\"}", "{\"up\"}", "{'up',}", "up # a\n{ # b\n}"] {
        assert_eq!(parsed(text), std::slice::from_ref(&up), "{text}");
    }
    assert_eq!(
        parsed("job:up:sum{a=\"1\", b!='2' ,c =~ `3\\d`,\"d e\"!~\"x\\u00e9\", }"),
        [
            matcher("__name__", "=", "job:up:sum"),
            matcher("a", "=", "1"),
            matcher("b", "!=", "2"),
            matcher("c", "=~", "3\\d"),
            matcher("d e", "!~", "xé"),
        ]
    );
    assert_eq!(parsed("{'grüße',a=\"\"}"), [matcher("__name__", "=", "grüße"), matcher("a", "=", "")]);
    assert_eq!(parsed("{}"), []);
    // Keywords are names of labels, too, and a label may have several conditions.
    assert_eq!(parsed("{by='1',by!='2'}"), [matcher("by", "=", "1"), matcher("by", "!=", "2")]);
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, expected) in [
        ("", "the text ends, but '{' should follow, at byte 0"),
        ("1a{}", "expected a metric name or '{', found '1', at byte 0"),
        ("up{", "the text ends, but a label's name should follow, at byte 3"),
        ("{a}", "expected '=', '!=', '=~' or '!~', found '}', at byte 2"),
        ("{a=}", "expected a value in quotes, found '}', at byte 3"),
        ("{a=\"1\"", "the text ends, but ',' or '}' should follow, at byte 6"),
        ("{a=\"1\" b=\"2\"}", "expected ',' or '}', found 'b', at byte 7"),
        ("{a=\"1}", "a quote is not closed, at byte 3"),
        ("{a=\"1\n\"}", "a quote is not closed, at byte 3"),
        ("{a=\"é\\q\"}", "an escape sequence is invalid, at byte 6"),
        ("{,}", "expected a label's name, found ',', at byte 1"),
        ("{a='1',,}", "expected a label's name, found ',', at byte 7"),
        ("{a:b='1'}", "expected '=', '!=', '=~' or '!~', found ':', at byte 2"),
        ("{} x", "expected nothing behind the brace, found 'x', at byte 3"),
        ("{a!'1'}", "expected '=', '!=', '=~' or '!~', found '!', at byte 2"),
        ("{\u{202e}}", "expected a label's name, found '\\u{202e}', at byte 1"),
        ("up{__name__=\"down\"}", "the metric name is given twice, at byte 3"),
        ("up{\"down\"}", "the metric name is given twice, at byte 3"),
        ("{\"up\",\"down\"}", "the metric name is given twice, at byte 6"),
        ("{__name__=~'u.',\"up\"}", "the metric name is given twice, at byte 1"),
        ("{a=~\"(\"}", "not a regular expression: unclosed group, at byte 4"),
        ("{a=~\"b)|(c\"}", "not a regular expression: unopened group, at byte 4"),
        ("{a=~\"\\xff\"}", "not a regular expression: it is not UTF-8, at byte 4"),
    ] {
        assert_eq!(fault(text), expected, "{text}");
    }
}

#[test]
fn sizes_are_bounded() {
    let long = format!("{{a=\"{}\"}}", "x".repeat(SELECTOR_BYTES_MAX - 6));
    assert_eq!(long.len(), SELECTOR_BYTES_MAX);
    assert!(Selector::parse(&long).is_ok());
    assert!(fault(&format!("{long} ")).contains("longer than"));
    let many = |count: usize| format!("{{{}}}", "a='1',".repeat(count));
    assert!(Selector::parse(&many(SELECTOR_MATCHERS_MAX)).is_ok());
    assert!(fault(&many(SELECTOR_MATCHERS_MAX + 1)).contains("more than 16 matchers"));
    assert!(fault("{a=~\"((\\\\w{50}){50}){50}\"}").contains("not a regular expression"));
}

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let value_of = |name: &[u8]| labels.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    Selector::parse(selector).unwrap().matches(value_of)
}

#[test]
fn patterns_match_whole_values_and_absent_labels_are_empty() {
    let up = [("__name__", "up"), ("namespace", "a\nb")];
    for (selector, expected) in [
        ("up", true),
        ("down", false),
        ("{}", true),
        ("{namespace=~'a'}", false),
        ("{namespace=~'a.b'}", true),
        ("{namespace=~'.*'}", true),
        ("{namespace!~'a'}", true),
        ("{namespace=~'a|a.b'}", true),
        ("{namespace=~'(?i)A.B'}", true),
        ("{x=''}", true),
        ("{x=~'.*'}", true),
        ("{x=~'.+'}", false),
        ("{x!=''}", false),
        ("{x!='y'}", true),
        ("{namespace='a\\nb',x!='y'}", true),
        ("{namespace='a\\nb',x='y'}", false),
    ] {
        assert_eq!(matches(selector, &up), expected, "{selector}");
    }
    let invalid = |_: &[u8]| Some([b'a', 0xff]);
    assert!(Selector::parse("{a=\"a\\xff\"}").unwrap().matches(invalid));
    assert!(!Selector::parse("{a=~\".*\"}").unwrap().matches(invalid), "a pattern matches UTF-8 only");
}

#[test]
fn a_series_has_one_value_for_each_label() {
    let series = Series::parse("up{namespace='a',\"é\"=\"\\xff\"}").unwrap();
    assert_eq!(series.value_of(b"__name__"), Some(&b"up"[..]));
    assert_eq!((series.value_of("é".as_bytes()), series.value_of(b"b")), (Some(&b"\xff"[..]), None));
    assert_eq!(series.to_string(), r#"{__name__="up",namespace="a","é"="\xff"}"#);
    assert_eq!(Series::parse(&series.to_string()), Ok(series));
    for (text, at_byte) in [("up{a!='1'}", 3), ("{a=~'1'}", 1), ("{b='',a!~'1'}", 6)] {
        assert_eq!(Series::parse(text), Err(Malformed { fault: Fault::NoValue, at_byte }));
    }
    let twice = Malformed { fault: Fault::LabelTwice, at_byte: 7 };
    assert_eq!(Series::parse("{a='1',a='1'}"), Err(twice));
}

/// A matcher as the naive evaluator sees it.
type Condition = (Vec<u8>, &'static str, Vec<u8>);

/// Few names, so that series have them; patterns are alternatives of plain words.
fn condition() -> impl Strategy<Value = Condition> {
    let name = prop_oneof![4 => select(vec!["a", "b", "__name__"]).prop_map(|n| n.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..4)];
    let plain = prop_oneof![3 => "[xy]{0,2}".prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..4)];
    let words = vec("[xy]{0,2}", 1..4).prop_map(|words| words.join("|").into_bytes());
    let value =
        prop_oneof![(select(vec!["=", "!="]), plain).boxed(), (select(vec!["=~", "!~"]), words).boxed()];
    (name, value).prop_map(|(name, (op, value))| (name, op, value))
}

fn naive(conditions: &[Condition], labels: &[(Vec<u8>, Vec<u8>)]) -> bool {
    conditions.iter().all(|(name, op, value)| {
        let of_series = labels.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, v)| v);
        let one_of = || value.split(|&byte| byte == b'|').any(|word| word == of_series);
        match *op {
            "=" => value == of_series,
            "!=" => value != of_series,
            "=~" => one_of(),
            _ => !one_of(),
        }
    })
}

proptest! {
    #[test]
    fn what_is_printed_reads_back_and_matches_as_it_should(
        conditions in vec(condition(), 0..5),
        labels in vec((select(vec!["a", "b", "__name__"]), "[xy]{0,2}"), 0..4),
    ) {
        let ops = [("=", Op::Equal), ("!=", Op::NotEqual), ("=~", Op::Match), ("!~", Op::NoMatch)];
        let op = |text: &str| ops.iter().find(|(known, _)| *known == text).unwrap().1;
        let text = in_braces(conditions.iter().map(|(name, text, value)| (&**name, op(text), &**value)));
        let selector = Selector::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        prop_assert_eq!(selector.to_string(), text.clone());
        let labels: Vec<_> =
            labels.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value.into_bytes())).collect();
        let value_of = |name: &[u8]| labels.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        prop_assert_eq!(selector.matches(value_of), naive(&conditions, &labels), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-b{}=~!\"'`,\\\\ #\n]{0,24}") {
        match Selector::parse(&text) {
            Ok(selector) => prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector)),
            Err(error) => prop_assert!(error.at_byte <= text.len() && !error.to_string().contains('\n')),
        }
    }
}
