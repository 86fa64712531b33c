//! The kinds of data that servers take at paths of their own.

use std::fmt;

use serde::Serialize;

/// Where a request goes: servers keep what goes to one apart from what goes to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destination {
    /// Where metrics go by remote write.
    Metrics,
    /// Where logs are pushed as to Loki.
    Logs,
    /// Metrics by OTLP.
    OtlpMetrics,
    /// Logs by OTLP.
    OtlpLogs,
    /// Traces by OTLP.
    OtlpTraces,
}

impl Destination {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Metrics, Self::Logs, Self::OtlpMetrics, Self::OtlpLogs, Self::OtlpTraces];

    /// The path that Tenantry and those behind it have in common.
    pub fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/api/v1/push",
            Self::Logs => "/loki/api/v1/push",
            Self::OtlpMetrics => "/v1/metrics",
            Self::OtlpLogs => "/v1/logs",
            Self::OtlpTraces => "/v1/traces",
        }
    }

    /// Of a request with this path, whatever stands before or after what tells it: remote write, if nothing does.
    pub fn of(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let exports = [Self::OtlpMetrics, Self::OtlpLogs, Self::OtlpTraces];
        match exports.into_iter().find(|export| path.ends_with(export.path())) {
            Some(export) => export,
            None if path.contains("/loki/") => Self::Logs,
            None => Self::Metrics,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metrics => "remote write",
            Self::Logs => "Loki",
            Self::OtlpMetrics => "OTLP metrics",
            Self::OtlpLogs => "OTLP logs",
            Self::OtlpTraces => "OTLP traces",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_destination() {
        for destination in Destination::ALL {
            assert_eq!(Destination::of(destination.path()), destination);
            assert_eq!(Destination::of(&format!("{}?x=/loki/", destination.path())), destination);
        }
        assert_eq!(Destination::of("/otlp/v1/logs"), Destination::OtlpLogs);
        for path in ["/push", "/", "/v1/metrics/", "/v1metrics", "metrics"] {
            assert_eq!(Destination::of(path), Destination::Metrics, "{path}");
        }
    }
}
