//! Durations as people write them.

use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no duration such as 10s, 1m30s or 500ms")]
pub struct DurationError(String);

/// Reads a duration as Go writes it (`1m30s`, `500ms`), or a number of seconds.
///
/// # Errors
/// When it is neither, negative, or longer than can be told.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError(text.to_owned());
    let seconds = |number: f64| Duration::try_from_secs_f64(number).map_err(|_| wrong());
    if let Ok(number) = text.parse() {
        return seconds(number);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, unit_on) = rest.split_at(number_end);
        let unit_end = unit_on.find(|c: char| c.is_ascii_digit()).unwrap_or(unit_on.len());
        let (unit, after) = unit_on.split_at(unit_end);
        let scale = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        total = total.checked_add(seconds(number * scale)?).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// For `#[serde(deserialize_with)]`: such a text, or a bare number of seconds.
///
/// # Errors
/// When it is neither.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    struct Either;

    impl Visitor<'_> for Either {
        type Value = Duration;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a duration such as 10s, 1m30s or 500ms, or a number of seconds")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }

        fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
            Ok(Duration::from_secs(seconds))
        }

        fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
            parse(&seconds.to_string()).map_err(E::custom)
        }

        fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Duration, E> {
            parse(&seconds.to_string()).map_err(E::custom)
        }
    }

    from.deserialize_any(Either)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("2.5"), Ok(Duration::from_millis(2500)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
        for wrong in ["", "s", "-1s", "5x", "1m30", "1e400s", "NaN"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
