//! What there is to ask for on the data port.

use crate::http::head::Method;
use crate::http::refusal::Refusal;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Remote write, under cortex-tenant's path or that of an upstream whose URL a sender may have had.
    Push,
    /// Loki's push, under cortex-tenant's path or Loki's own.
    LokiPush,
    /// Whether to send requests here.
    Alive,
}

/// The paths under which remote write is taken.
const PUSH: [&[u8]; 4] = [b"/push", b"/api/v1/push", b"/api/v1/write", b"/api/v1/receive"];

/// The paths under which Loki pushes are taken.
const LOKI_PUSH: [&[u8]; 2] = [b"/loki/push", b"/loki/api/v1/push"];

/// Finds the route of a request; a query behind the path doesn't matter.
///
/// # Errors
/// [`Refusal::NotFound`], or [`Refusal::MethodNotAllowed`] with the methods that are.
pub(super) fn route(method: Method, target: &[u8]) -> Result<Route, Refusal> {
    let path = target.split(|&b| b == b'?').next().unwrap_or_default();
    for (paths, route) in [(&PUSH[..], Route::Push), (&LOKI_PUSH[..], Route::LokiPush)] {
        if paths.contains(&path) {
            return match method {
                Method::Post => Ok(route),
                _ => Err(Refusal::MethodNotAllowed { allow: "POST" }),
            };
        }
    }
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
    fn every_path_under_which_a_sender_may_know_us_is_taken() {
        for path in PUSH {
            assert_eq!(route(Method::Post, path).unwrap(), Route::Push);
        }
        for path in LOKI_PUSH {
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
