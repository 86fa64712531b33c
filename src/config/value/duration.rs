//! Durations in Go's notation.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Value, Written};
use crate::config::excerpt::found;

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

/// Units of a Go duration in nanoseconds. Longer names come before their own prefixes.
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

/// Go's `time.ParseDuration` without negative values: `10s`, `1m30s`, `1.5h`, `500ms`, `0`. The maximum is Go's own,
/// 2^63-1 nanoseconds (292 years).
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

/// One number with its unit in nanoseconds (`None` if it is too long), and the rest of the text.
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

/// `whole.fraction` units. Digits beyond the nanosecond are cut off.
fn term_nanos(whole: &str, fraction: &str, unit_nanos: u64) -> Option<u64> {
    /// The most digits of a fraction that can matter: an hour has 3.6·10^12 nanoseconds.
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

/// A duration in a form that Go parses: `1h30m`, `10s`, `500ms`, `0s`.
pub(super) fn show_duration(duration: Duration) -> String {
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
