//! What a key's text can mean: the kinds of values, how each is read, and how it is shown again.
//!
//! Durations are read as Go's `time.ParseDuration` reads them and booleans in the environment as
//! `strconv.ParseBool` does, since the configurations that we take over were written for these.
//!
//! An error says what was found and what is wanted; whoever asked adds file, line and key.
#![forbid(unsafe_code)]

use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::RemoteWriteV2;
use super::yaml::{Content, Node};
use crate::model::MetadataRule;
use crate::tenant::Policy;

/// A value as somebody wrote it. The two places have rules of their own for booleans and lists.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written<'a> {
    /// In the file.
    Yaml(&'a Node),
    /// In an environment variable.
    Variable(&'a str),
}

impl<'a> Written<'a> {
    /// The single text, or what was found instead of one.
    fn text(self) -> Result<&'a str, String> {
        match self {
            Self::Variable(text) => Ok(text),
            Self::Yaml(Node { content: Content::Text(text), .. }) => Ok(text),
            Self::Yaml(node) => Err(format!("wants a single value, not {}", node.kind())),
        }
    }
}

/// A kind of value.
pub(super) trait Value: Sized + PartialEq {
    /// Whether an empty text is a value of this kind. Else it is the same as none.
    const MAY_BE_EMPTY: bool = false;
    /// Reads what was written; the error is a text for people.
    fn read(written: Written<'_>) -> Result<Self, String>;
    /// The value as YAML, on one line.
    fn show(&self) -> String;
    /// Whether this is the 0 or the empty value of its kind.
    fn is_zero(&self) -> bool;
    /// A target without what may be secret in it; other kinds have nothing to hide.
    fn masked(&self) -> String {
        self.show()
    }
}

impl Value for String {
    const MAY_BE_EMPTY: bool = true;

    fn read(written: Written<'_>) -> Result<Self, String> {
        written.text().map(str::to_owned)
    }

    fn show(&self) -> String {
        quoted(self)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn masked(&self) -> String {
        super::target::masked(self)
    }
}

impl Value for bool {
    fn read(written: Written<'_>) -> Result<Self, String> {
        let text = written.text()?;
        match written {
            Written::Variable(_) => parse_bool(text)
                .ok_or_else(|| format!("{} is neither true nor false (nor 1, t, 0, f)", found(text))),
            Written::Yaml(_) => {
                yaml_bool(text).ok_or_else(|| format!("{} is neither true nor false", found(text)))
            }
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn is_zero(&self) -> bool {
        !self
    }
}

impl Value for MetadataRule {
    fn read(written: Written<'_>) -> Result<Self, String> {
        let text = written.text()?;
        if text == "route" {
            return Ok(Self::Route);
        }
        match bool::read(written) {
            Ok(forwarded) => Ok(if forwarded { Self::ToDefault } else { Self::Drop }),
            Err(_) => Err(format!("{} is none of false, true and route", found(text))),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Drop => "false",
            Self::ToDefault => "true",
            Self::Route => "route",
        }
        .to_owned()
    }

    fn is_zero(&self) -> bool {
        *self == Self::Drop
    }
}

impl Value for usize {
    fn read(written: Written<'_>) -> Result<Self, String> {
        whole_number(written.text()?)
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl Value for Duration {
    fn read(written: Written<'_>) -> Result<Self, String> {
        go_duration(written.text()?)
    }

    fn show(&self) -> String {
        show_duration(*self)
    }

    fn is_zero(&self) -> bool {
        Duration::is_zero(self)
    }
}

/// Several words: a YAML list, or words with commas between them.
impl Value for Vec<String> {
    fn read(written: Written<'_>) -> Result<Self, String> {
        let Written::Yaml(Node { content: Content::List(items), .. }) = written else {
            return match written.text() {
                Ok("") => Ok(Vec::new()),
                Ok(text) => Ok(text.split(',').map(|item| item.trim().to_owned()).collect()),
                Err(_) => Err("wants a list of words, not a section".into()),
            };
        };
        let word = |item| Written::Yaml(item).text().map(str::to_owned);
        items
            .iter()
            .map(word)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("an item of the list {error}"))
    }

    fn show(&self) -> String {
        let items: Vec<_> = self.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

/// A number of bytes: plain, or with Ki, Mi, Gi behind it (KiB, MiB, GiB mean the same).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) usize);

/// Suffixes of a size by power of 1,024, the largest first.
const SIZE_UNITS: [(&str, usize); 3] = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];

impl Value for ByteSize {
    fn read(written: Written<'_>) -> Result<Self, String> {
        let text = written.text()?.trim();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
        let unit = text.get(digits.len()..).unwrap_or_default().trim_start();
        if digits.is_empty() {
            return Err(format!("{} is not a number of bytes; write it like 8388608 or 8Mi", found(text)));
        }
        let factor = match unit.strip_suffix('B').unwrap_or(unit) {
            "" => 1,
            unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(
                || format!("{} has an unknown unit; write bytes, or Ki, Mi, Gi behind a number", found(text)),
            )?,
        };
        let number = whole_number(digits)?;
        number.checked_mul(factor).map(Self).ok_or_else(|| format!("{} is too large", found(text)))
    }

    fn show(&self) -> String {
        let unit = SIZE_UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        match unit {
            Some((name, factor)) => format!("{}{name}", self.0 / factor),
            None => self.0.to_string(),
        }
    }

    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

/// A kind of value that is one of a few words.
trait Choice: Copy + PartialEq + 'static {
    /// Each value under the names it goes by; the first name of a value is the one shown.
    const WORDS: &'static [(&'static str, Self)];
    /// The words to tell people about.
    const WANTED: &'static str;
}

impl<T: Choice> Value for T {
    fn read(written: Written<'_>) -> Result<Self, String> {
        let text = written.text()?;
        let word = T::WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        word.map(|(_, value)| *value).ok_or_else(|| format!("{} is none of {}", found(text), T::WANTED))
    }

    fn show(&self) -> String {
        let word = T::WORDS.iter().find(|(_, value)| value == self);
        word.map_or_else(String::new, |(name, _)| (*name).to_owned())
    }

    fn is_zero(&self) -> bool {
        false
    }
}

/// Which lines are logged. The names are those of logrus; `fatal` and `panic` have no lines of their own
/// here.
impl Choice for LevelFilter {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("trace", Self::TRACE),
        ("debug", Self::DEBUG),
        ("info", Self::INFO),
        ("warn", Self::WARN),
        ("warning", Self::WARN),
        ("error", Self::ERROR),
        ("fatal", Self::ERROR),
        ("panic", Self::ERROR),
    ];
    const WANTED: &'static str = "trace, debug, info, warn, error";
}

/// What drives a core's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel has it, else epoll.
    Auto,
    /// io_uring, or no start at all.
    IoUring,
    /// epoll, even where io_uring would be there.
    Epoll,
}

impl Choice for Driver {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("io_uring", Self::IoUring), ("epoll", Self::Epoll)];
    const WANTED: &'static str = "auto, io_uring, epoll";
}

/// The setting `tenant.id_rules` as written; [`super::plan`] makes [`crate::tenant::IdRules`] of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdRulesChoice {
    /// Those that go with the tenant header: Mimir's with X-Scope-OrgID, VictoriaMetrics' with its two, else those of
    /// Thanos.
    Auto,
    /// Mimir's.
    Mimir,
    /// Those of Thanos.
    Thanos,
    /// Those of VictoriaMetrics.
    VictoriaMetrics,
}

impl Choice for IdRulesChoice {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("mimir", Self::Mimir),
        ("thanos", Self::Thanos),
        ("victoriametrics", Self::VictoriaMetrics),
    ];
    const WANTED: &'static str = "auto, mimir, thanos, victoriametrics";
}

impl Choice for RemoteWriteV2 {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pass", Self::Pass), ("downgrade", Self::Downgrade), ("refuse", Self::Refuse)];
    const WANTED: &'static str = "pass, downgrade, refuse";
}

impl Choice for Policy {
    const WORDS: &'static [(&'static str, Self)] = &[("reject", Self::Reject), ("drop", Self::Drop)];
    const WANTED: &'static str = "reject, drop";
}

/// Somebody's text in an error: quoted, escaped, cut.
pub(super) fn found(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// The spellings of Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// YAML 1.2's spellings and, as Go's yaml.v2 takes them where a boolean is wanted, those of 1.1.
fn yaml_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn whole_number(text: &str) -> Result<usize, String> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.starts_with('-') {
        return Err(format!("{} is negative", found(text)));
    }
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} is not a whole number", found(text)));
    }
    digits.parse().map_err(|_| format!("{} is too large", found(text)))
}

/// Units of a Go duration, in nanoseconds. Longer names come before their own beginnings.
const DURATION_UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Go's `time.ParseDuration` without negative values: `10s`, `1m30s`, `1.5h`, `500ms`, `0`. The longest is
/// Go's own, 2^63-1 nanoseconds (292 years).
pub(super) fn go_duration(text: &str) -> Result<Duration, String> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if let Some(positive) = unsigned.strip_prefix('-') {
        let what = if go_duration(positive).is_ok() { "is negative" } else { "is not a duration" };
        return Err(format!("{} {what}; write it like 10s, 1m30s or 500ms", found(text)));
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "{} has no unit; write {unsigned}s for seconds, {unsigned}ms for milliseconds",
            found(text)
        ));
    }
    let not_one = || format!("{} is not a duration; write it like 10s, 1m30s, 1.5h or 500ms", found(text));
    let too_long = || format!("{} is too long for a duration", found(text));
    let mut rest = unsigned;
    let mut nanos: u64 = 0;
    loop {
        let (term, behind) = duration_term(rest).ok_or_else(not_one)?;
        let term = term.ok_or_else(too_long)?;
        nanos = nanos.checked_add(term).filter(|&sum| i64::try_from(sum).is_ok()).ok_or_else(too_long)?;
        if behind.is_empty() {
            return Ok(Duration::from_nanos(nanos));
        }
        rest = behind;
    }
}

/// One number with its unit, in nanoseconds (`None` when it is too long), and what stands behind it.
fn duration_term(text: &str) -> Option<(Option<u64>, &str)> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(behind) => split_digits(behind),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at_checked(end)?;
    let (_, unit_nanos) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    Some((term_nanos(whole, fraction, *unit_nanos), rest))
}

/// `whole.fraction` units; digits beyond the nanosecond are cut off.
fn term_nanos(whole: &str, fraction: &str, unit_nanos: u64) -> Option<u64> {
    /// As many digits of a fraction as can matter: an hour has 3.6·10^12 nanoseconds.
    const FRACTION_DIGITS_MAX: usize = 18;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = u128::from(whole) * u128::from(unit_nanos);
    let digits = fraction.get(..FRACTION_DIGITS_MAX).unwrap_or(fraction);
    if let Ok(value) = digits.parse::<u64>() {
        let scale = 10_u128.checked_pow(u32::try_from(digits.len()).ok()?)?;
        nanos += u128::from(value) * u128::from(unit_nanos) / scale;
    }
    u64::try_from(nanos).ok()
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// A duration as Go would take it back: `1h30m`, `10s`, `500ms`, `0s`.
fn show_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    let mut shown = String::new();
    for unit in ["h", "m", "s", "ms", "us", "ns"] {
        let Some((_, unit_nanos)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else { continue };
        let count = nanos / u128::from(*unit_nanos);
        if count > 0 {
            shown += &format!("{count}{unit}");
            nanos %= u128::from(*unit_nanos);
        }
    }
    shown
}

/// A text as YAML: bare where nobody can misread it, else in double quotes.
fn quoted(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./:".contains(c);
    let begins_bare = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_/.".contains(c));
    let misread =
        text.ends_with(':') || yaml_bool(text).is_some() || ["null", "Null", "NULL"].contains(&text);
    if begins_bare && text.chars().all(bare) && !misread {
        return text.to_owned();
    }
    let mut shown = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => shown.extend(['\\', c]),
            c if c.is_control() => shown += &format!("\\u{:04x}", u32::from(c)),
            c => shown.push(c),
        }
    }
    shown.push('"');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_go_refuses_is_refused_with_a_word_of_help() {
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
    fn a_duration_is_shown_so_that_it_reads_back() {
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
    fn choices_tell_what_there_is_to_choose() {
        assert_eq!(in_file("io_uring"), Ok(Driver::IoUring));
        assert_eq!(in_variable("EPOLL"), Ok(Driver::Epoll));
        assert_eq!(in_file("drop"), Ok(Policy::Drop));
        assert_eq!(in_file("thanos"), Ok(IdRulesChoice::Thanos));
        let error = in_file::<Driver>("kqueue").unwrap_err();
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
    fn a_section_is_no_value() {
        let node = Node { line: 1, content: Content::Map(Vec::new()) };
        let errors = [
            String::read(Written::Yaml(&node)).unwrap_err(),
            bool::read(Written::Yaml(&node)).unwrap_err(),
            usize::read(Written::Yaml(&node)).unwrap_err(),
            Duration::read(Written::Yaml(&node)).unwrap_err(),
            ByteSize::read(Written::Yaml(&node)).unwrap_err(),
            Driver::read(Written::Yaml(&node)).unwrap_err(),
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
        fn no_text_breaks_a_reader(text in "[0-9.+\\-a-zA-Z\u{b5} ]{0,24}|\\PC{0,24}") {
            let _ = (go_duration(&text), in_file::<usize>(&text), in_file::<ByteSize>(&text));
            let _ = (in_variable::<bool>(&text), in_variable::<Vec<String>>(&text));
        }
    }
}
