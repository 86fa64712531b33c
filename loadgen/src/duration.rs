//! Durations as people write them.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no duration such as 10s, 1m30s or 500ms")]
pub struct DurationError(String);

/// Reads a duration such as `1m30s` or `500ms`, or a number of seconds.
///
/// # Errors
/// When it is neither, negative, or longer than can be told.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let seconds = text.parse().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
    let duration = seconds.or_else(|| humantime::parse_duration(text).ok());
    duration.ok_or_else(|| DurationError(text.to_owned()))
}

/// A duration in whole milliseconds.
pub fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A duration in a file.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "a duration such as 10s, 1m30s or 500ms, or a number of seconds")]
pub(crate) enum Written {
    Seconds(f64),
    Text(String),
}

/// As a text that [`parse`] reads.
impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl TryFrom<Written> for Duration {
    type Error = DurationError;

    fn try_from(written: Written) -> Result<Self, DurationError> {
        parse(&written.to_string())
    }
}

/// For `#[serde(deserialize_with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Duration::try_from(Written::deserialize(from)?).map_err(D::Error::custom)
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
