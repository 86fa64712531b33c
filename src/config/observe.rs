//! What is told about single requests: the access log, and traces.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use super::keys::Config;
use super::target::Target;
use crate::trace::Endpoint;

/// Which requests have a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Whether any has.
    pub enabled: bool,
    /// Requests with this status or a higher one have a line.
    pub status_min: Option<u16>,
    /// Requests that take this long or longer have a line.
    pub duration_min: Option<Duration>,
    /// Of the requests that have a line by these, one of so many gets it. At least 1.
    pub one_in: usize,
}

impl AccessLog {
    /// Whether a request has a line, before sampling. Without any minimum, each has.
    pub fn is_for(&self, status: u16, took: Duration) -> bool {
        let by_status = self.status_min.map(|min| status >= min);
        let by_duration = self.duration_min.map(|min| took >= min);
        match (by_status, by_duration) {
            (None, None) => true,
            (status, duration) => status == Some(true) || duration == Some(true),
        }
    }
}

/// Which requests are traced, and where the spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// `None`: nothing is traced.
    pub endpoint: Option<Endpoint>,
    /// Of the requests without a trace, one of so many begins one; `None`: none does.
    pub one_in: Option<usize>,
}

/// Reads the access log's settings. The error is what is wrong with `access_log.status_min`.
pub(super) fn access_log(config: &Config) -> Result<AccessLog, String> {
    let status_min = match config.access_log_status_min.value {
        0 => None,
        value => {
            let status = u16::try_from(value).ok().filter(|status| (100..=599).contains(status));
            Some(status.ok_or_else(|| format!("{value} is no status: it must be 100 to 599, or 0 for any"))?)
        }
    };
    Ok(AccessLog {
        enabled: config.access_log_enabled.value,
        status_min,
        duration_min: Some(config.access_log_duration_min.value).filter(|min| !min.is_zero()),
        one_in: config.access_log_sample_one_in.value.max(1),
    })
}

/// Reads the settings of traces. The error is what is wrong with `tracing.otlp.endpoint`. `listen` is our own address.
pub(super) fn tracing(config: &Config, listen: Option<SocketAddr>) -> Result<Tracing, String> {
    let endpoint = match config.tracing_otlp_endpoint.value.as_str() {
        "" => None,
        text => Some(endpoint(text, listen)?),
    };
    let one_in = Some(config.tracing_sample_one_in.value).filter(|one_in| *one_in > 0);
    Ok(Tracing { endpoint, one_in })
}

/// The path that OTLP prescribes where none is given.
const TRACES_PATH: &str = "/v1/traces";

fn endpoint(text: &str, listen: Option<SocketAddr>) -> Result<Endpoint, String> {
    let target = Target::parse(text)?;
    if let Some(listen) = listen.filter(|listen| target.is_at(*listen)) {
        return Err(format!(
            "it is our own listen address ({listen}): each request with spans would make spans"
        ));
    }
    if target.tls {
        return Err("https is not spoken to it: give the address of an OpenTelemetry Collector nearby".into());
    }
    if target.names_tenant() {
        return Err("all tenants' spans go to one place: there is no {tenant} in it".into());
    }
    let path = match target.path() {
        "" | "/" => TRACES_PATH,
        path => path,
    };
    let path = path.to_owned();
    Ok(Endpoint { host: target.host, port: target.port, host_header: target.host_header, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_otlp_is_added_where_none_is_given() {
        for (text, host, port, path) in [
            ("http://collector:4318", "collector", 4318, "/v1/traces"),
            ("collector:4318/", "collector", 4318, "/v1/traces"),
            ("http://[::1]:4318/a/b?c=d", "::1", 4318, "/a/b?c=d"),
        ] {
            let found = endpoint(text, None).unwrap();
            assert_eq!((found.host.as_str(), found.port, found.path.as_str()), (host, port, path), "{text}");
        }
        for wrong in ["https://collector:4318", "http://c/{tenant}", "http://", "http://a:b", "http://u:p@c"]
        {
            assert!(endpoint(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_is_for_requests_by_status_or_by_duration() {
        let second = Duration::from_secs(1);
        let log = |status_min, duration_min| AccessLog { enabled: true, status_min, duration_min, one_in: 1 };
        assert!(log(None, None).is_for(200, Duration::ZERO));
        assert!(log(Some(400), None).is_for(400, Duration::ZERO));
        assert!(!log(Some(400), None).is_for(399, 9 * second));
        assert!(log(Some(400), Some(second)).is_for(200, second));
        assert!(!log(Some(400), Some(second)).is_for(200, second / 2));
        assert!(
            log(None, Some(second)).is_for(200, second) && !log(None, Some(second)).is_for(500, second / 2)
        );
    }
}
