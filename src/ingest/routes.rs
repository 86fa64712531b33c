//! Paths of the data port.

use crate::config::plan::Plan;
use crate::format::destination_of;
use crate::http::head::Method;
use crate::http::refusal::Refusal;
use crate::model::Destination;

/// The endpoint that a request addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Data for this destination.
    Push(Destination),
    /// The readiness check for load balancers.
    Alive,
}

/// Finds the route of a request. A query after the path is ignored.
///
/// # Errors
/// [`Refusal::NotFound`], or [`Refusal::MethodNotAllowed`] with the methods that the path supports.
pub(super) fn route(method: Method, target: &[u8]) -> Result<Route, Refusal> {
    if let Some(destination) = destination_of(target) {
        return match (method, destination) {
            (Method::Post, destination) => Ok(Route::Push(destination)),
            _ => Err(Refusal::MethodNotAllowed { allow: "POST" }),
        };
    }
    let path = target.split(|&b| b == b'?').next().unwrap_or_default();
    if path == b"/alive" {
        return match method {
            Method::Get | Method::Head => Ok(Route::Alive),
            _ => Err(Refusal::MethodNotAllowed { allow: "GET, HEAD" }),
        };
    }
    Err(Refusal::NotFound)
}

/// Returns the destination if its data has a target.
///
/// # Errors
/// [`Refusal::NoTarget`].
pub(super) fn taken(destination: Destination, plan: &Plan) -> Result<Destination, Refusal> {
    match plan.takes(destination) {
        true => Ok(destination),
        false => Err(Refusal::NoTarget { key: destination.key() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_target_is_not_taken() {
        let plan = crate::config::parse("f", "listen: :4318", []).unwrap();
        assert_eq!(taken(Destination::Logs, &plan).unwrap(), Destination::Logs);
        let refusal = taken(Destination::OtlpLogs, &plan).unwrap_err();
        assert!(refusal.to_string().contains("target_otlp_logs is not set"), "{refusal}");
    }

    #[test]
    fn all_supported_paths_have_routes() {
        for path in [&b"/push"[..], b"/api/v1/push", b"/api/v1/write", b"/api/v1/receive"] {
            assert_eq!(route(Method::Post, path).unwrap(), Route::Push(Destination::Metrics));
        }
        for path in [&b"/loki/push"[..], b"/loki/api/v1/push"] {
            assert_eq!(route(Method::Post, path).unwrap(), Route::Push(Destination::Logs));
        }
        for path in [
            &b"/v1/metrics"[..],
            b"/otlp/v1/metrics",
            b"/api/v1/otlp/v1/metrics",
            b"/opentelemetry/v1/metrics",
        ] {
            assert_eq!(route(Method::Post, path).unwrap(), Route::Push(Destination::OtlpMetrics));
        }
        for path in [&b"/v1/logs"[..], b"/otlp/v1/logs"] {
            assert_eq!(route(Method::Post, path).unwrap(), Route::Push(Destination::OtlpLogs));
        }
        assert_eq!(route(Method::Post, b"/v1/traces").unwrap(), Route::Push(Destination::OtlpTraces));
        assert_eq!(route(Method::Post, b"/push?source=a").unwrap(), Route::Push(Destination::Metrics));
        assert_eq!(route(Method::Get, b"/alive").unwrap(), Route::Alive);
        assert_eq!(route(Method::Head, b"/alive").unwrap(), Route::Alive);
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        assert!(matches!(route(Method::Get, b"/push"), Err(Refusal::MethodNotAllowed { allow: "POST" })));
        assert!(matches!(
            route(Method::Post, b"/alive"),
            Err(Refusal::MethodNotAllowed { allow: "GET, HEAD" })
        ));
        for path in
            [&b"/"[..], b"", b"/v1/profiles", b"/v1/metrics/", b"/pushy", b"/push/", b"/PUSH", b"/alive/x"]
        {
            assert!(matches!(route(Method::Post, path), Err(Refusal::NotFound)), "{path:?}");
        }
    }
}
