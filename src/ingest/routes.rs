//! Paths of the data port.

use crate::format::destination_of;
use crate::http::head::Method;
use crate::http::refusal::Refusal;
use crate::model::Destination;

/// The endpoint that a request addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Remote write.
    Push,
    /// Loki push.
    LokiPush,
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
            (Method::Post, Destination::Metrics) => Ok(Route::Push),
            (Method::Post, Destination::Logs) => Ok(Route::LokiPush),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_supported_paths_have_routes() {
        for path in [&b"/push"[..], b"/api/v1/push", b"/api/v1/write", b"/api/v1/receive"] {
            assert_eq!(route(Method::Post, path).unwrap(), Route::Push);
        }
        for path in [&b"/loki/push"[..], b"/loki/api/v1/push"] {
            assert_eq!(route(Method::Post, path).unwrap(), Route::LokiPush);
        }
        assert_eq!(route(Method::Post, b"/push?source=a").unwrap(), Route::Push);
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
        for path in [&b"/"[..], b"", b"/pushy", b"/push/", b"/PUSH", b"/alive/x"] {
            assert!(matches!(route(Method::Post, path), Err(Refusal::NotFound)), "{path:?}");
        }
    }
}
