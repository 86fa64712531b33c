use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::duration::{go_duration, show_duration};
use super::*;
use crate::tenant::Policy;

fn in_file<T: Value>(text: &str) -> Result<T, String> {
    T::read(Written::Yaml(&Node { line: 1, content: Content::Text(text.into()) }))
}

fn in_variable<T: Value>(text: &str) -> Result<T, String> {
    T::read(Written::Variable(text))
}

#[test]
fn durations_are_those_of_go() {
    for (text, nanos) in [
        ("0", 0),
        ("+0", 0),
        ("0s", 0),
        ("5s", 5_000_000_000),
        ("+5s", 5_000_000_000),
        ("10s", 10_000_000_000),
        ("1m30s", 90_000_000_000),
        ("1.5h", 5_400_000_000_000),
        ("500ms", 500_000_000),
        ("1h15m30.918273645s", 4_530_918_273_645),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("10ns", 10),
        ("11us", 11_000),
        ("12\u{b5}s", 12_000),
        ("12\u{3bc}s", 12_000),
        ("2s1m", 62_000_000_000),
        ("0.3333333333333333333h", 1_200_000_000_000 - 1),
        ("9223372036854775807ns", 9_223_372_036_854_775_807),
        ("0.9ns", 0),
    ] {
        assert_eq!(go_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
    }
}

#[test]
fn durations_that_go_refuses_are_refused_with_a_hint() {
    for (text, said) in [
        ("-5s", "is negative"),
        ("-0.5h", "is negative"),
        ("-x", "is not a duration"),
        ("10", "has no unit; write 10s for seconds"),
        ("", "is not a duration"),
        ("s", "is not a duration"),
        (".", "is not a duration"),
        (".s", "is not a duration"),
        ("+", "is not a duration"),
        ("10 s", "is not a duration"),
        ("10sec", "is not a duration"),
        ("1d", "is not a duration"),
        ("1m30", "is not a duration"),
        ("1.2.3s", "is not a duration"),
        ("1e3s", "is not a duration"),
        ("ten", "is not a duration"),
        ("9223372036854775808ns", "is too long"),
        ("99999999999999999999s", "is too long"),
        ("3000000h", "is too long"),
        ("2562047h9999999999s", "is too long"),
    ] {
        let error = go_duration(text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn shown_durations_parse_back() {
    for (text, shown) in [
        ("0", "0s"),
        ("60s", "1m"),
        ("90s", "1m30s"),
        ("36h", "36h"),
        ("1.5s", "1s500ms"),
        ("1001us", "1ms1us"),
    ] {
        let duration = go_duration(text).unwrap();
        assert_eq!(show_duration(duration), shown);
        assert_eq!(go_duration(shown), Ok(duration));
    }
}

#[test]
fn booleans_of_the_environment_are_those_of_go() {
    for text in ["1", "t", "T", "true", "TRUE", "True"] {
        assert_eq!(in_variable(text), Ok(true), "{text}");
    }
    for text in ["0", "f", "F", "false", "FALSE", "False"] {
        assert_eq!(in_variable(text), Ok(false), "{text}");
    }
    for text in ["yes", "on", "tRUE", "2", " true"] {
        assert!(in_variable::<bool>(text).unwrap_err().contains("neither true nor false"), "{text}");
    }
}

#[test]
fn booleans_of_the_file_are_those_of_both_yamls() {
    for text in ["true", "True", "yes", "On", "y"] {
        assert_eq!(in_file(text), Ok(true), "{text}");
    }
    for text in ["false", "FALSE", "no", "off", "N"] {
        assert_eq!(in_file(text), Ok(false), "{text}");
    }
    for text in ["1", "0", "t", "ja"] {
        assert!(in_file::<bool>(text).unwrap_err().contains("neither true nor false"), "{text}");
    }
}

#[test]
fn whole_numbers() {
    assert_eq!(in_file("512"), Ok(512_usize));
    assert_eq!(in_file("+0"), Ok(0_usize));
    for (text, said) in [
        ("-1", "is negative"),
        ("1.0", "not a whole number"),
        ("1e3", "not a whole number"),
        ("1_000", "not a whole number"),
        ("0x10", "not a whole number"),
        ("many", "not a whole number"),
        ("+", "not a whole number"),
        ("18446744073709551616", "too large"),
    ] {
        assert!(in_file::<usize>(text).unwrap_err().contains(said), "{text}");
    }
}

#[test]
fn sizes() {
    for (text, bytes, shown) in [
        ("0", 0, "0"),
        ("1000", 1000, "1000"),
        ("1023B", 1023, "1023"),
        ("4Ki", 4096, "4Ki"),
        ("4KiB", 4096, "4Ki"),
        ("4 KiB", 4096, "4Ki"),
        ("8Mi", 8 << 20, "8Mi"),
        ("1024Mi", 1 << 30, "1Gi"),
        ("1536Ki", 1536 << 10, "1536Ki"),
        ("3GiB", 3 << 30, "3Gi"),
    ] {
        assert_eq!(in_file(text), Ok(ByteSize(bytes)), "{text}");
        assert_eq!(ByteSize(bytes).show(), shown);
        assert_eq!(in_file(shown), Ok(ByteSize(bytes)));
    }
    for (text, said) in [
        ("8MB", "unknown unit"),
        ("8M", "unknown unit"),
        ("8mi", "unknown unit"),
        ("Mi", "not a number of bytes"),
        ("", "not a number of bytes"),
        ("1.5Gi", "not a whole number"),
        ("-1Ki", "is negative"),
        ("18446744073709551615Ki", "too large"),
    ] {
        assert!(in_file::<ByteSize>(text).unwrap_err().contains(said), "{text}");
    }
}

#[test]
fn lists() {
    let words = |list: &[&str]| Ok(list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
    assert_eq!(in_variable("a,b"), words(&["a", "b"]));
    assert_eq!(in_variable(" a , b "), words(&["a", "b"]));
    assert_eq!(in_variable("a"), words(&["a"]));
    assert_eq!(in_variable("a,,b"), words(&["a", "", "b"]));
    assert_eq!(in_file("a,b"), words(&["a", "b"]));
    assert_eq!(words(&["a", "b c"]).unwrap().show(), "[a, \"b c\"]");
}

#[test]
fn errors_list_the_choices() {
    assert_eq!(in_file("io_uring"), Ok(DriverChoice::IoUring));
    assert_eq!(in_variable("EPOLL"), Ok(DriverChoice::Epoll));
    assert_eq!(in_file("drop"), Ok(Policy::Drop));
    assert_eq!(in_file("thanos"), Ok(IdRulesChoice::Thanos));
    let error = in_file::<DriverChoice>("kqueue").unwrap_err();
    assert_eq!(error, "\"kqueue\" is none of auto, io_uring, epoll");
}

#[test]
fn log_levels_are_those_of_logrus() {
    for (text, level) in [
        ("panic", LevelFilter::ERROR),
        ("fatal", LevelFilter::ERROR),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("Warning", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ] {
        assert_eq!(in_file(text), Ok(level), "{text}");
    }
    assert!(in_file::<LevelFilter>("loud").unwrap_err().contains("trace, debug, info, warn, error"));
    assert_eq!(LevelFilter::WARN.show(), "warn");
    assert_eq!(LevelFilter::ERROR.show(), "error");
}

#[test]
fn a_section_is_not_a_value() {
    let node = Node { line: 1, content: Content::Map(Vec::new()) };
    let errors = [
        String::read(Written::Yaml(&node)).unwrap_err(),
        bool::read(Written::Yaml(&node)).unwrap_err(),
        usize::read(Written::Yaml(&node)).unwrap_err(),
        Duration::read(Written::Yaml(&node)).unwrap_err(),
        ByteSize::read(Written::Yaml(&node)).unwrap_err(),
        DriverChoice::read(Written::Yaml(&node)).unwrap_err(),
        Vec::<String>::read(Written::Yaml(&node)).unwrap_err(),
    ];
    for error in errors {
        assert!(error.contains("not a section"), "{error}");
    }
}

#[test]
fn texts_are_quoted_where_they_could_be_misread() {
    for (text, shown) in [
        ("http://h:1/a_b", "http://h:1/a_b"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("", "\"\""),
        ("yes", "\"yes\""),
        ("null", "\"null\""),
        ("a b", "\"a b\""),
        ("a:", "\"a:\""),
        ("-", "\"-\""),
        ("[::]:80", "\"[::]:80\""),
        ("{tenant}", "\"{tenant}\""),
        ("say \"no\"\\\n", "\"say \\\"no\\\"\\\\\\u000a\""),
        ("a,b", "\"a,b\""),
    ] {
        assert_eq!(quoted(text), shown);
        let document = crate::config::yaml::read(&format!("key: {shown}")).unwrap();
        let Content::Map(entries) = document.content else { panic!("{shown} is no value") };
        assert_eq!(entries[0].1.content, Content::Text(text.into()), "{shown} reads back");
    }
}

#[test]
fn a_long_text_is_cut_in_an_error() {
    let error = in_file::<usize>(&"ü".repeat(10_000)).unwrap_err();
    assert!(error.len() < 250 && error.contains('…'), "{error}");
}

proptest::proptest! {
    #[test]
    fn every_duration_reads_back_from_what_is_shown(nanos in 0..=i64::MAX.unsigned_abs()) {
        let duration = Duration::from_nanos(nanos);
        proptest::prop_assert_eq!(go_duration(&show_duration(duration)), Ok(duration));
    }

    #[test]
    fn every_text_reads_back_from_what_is_shown(text in "[ -~\\n\\t\u{e9}]{0,20}") {
        let document = crate::config::yaml::read(&format!("key: {}", quoted(&text))).unwrap();
        let Content::Map(entries) = document.content else { panic!("no mapping") };
        proptest::prop_assert_eq!(&entries[0].1.content, &Content::Text(text));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "[0-9.+\\-a-zA-Z\u{b5} ]{0,24}|\\PC{0,24}") {
        let _ = (go_duration(&text), in_file::<usize>(&text), in_file::<ByteSize>(&text));
        let _ = (in_variable::<bool>(&text), in_variable::<Vec<String>>(&text));
    }
}
