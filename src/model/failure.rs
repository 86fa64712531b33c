//! Why a part has no answer from its upstream.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use super::{Outcome, Source};

/// Why a part was not sent to its upstream, or was sent and not answered.
///
/// Nothing is wrong with the part itself, so a retry helps in every case. [`source`](Self::source) tells whether the
/// upstream or a limit of this process is at fault, and [`outcome`](Self::outcome) what the sender gets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The tenant holds its share of this process. The part was not sent.
    #[error("overloaded: this tenant has its share in flight (limits.tenant_share_percent)")]
    OverShare,
    /// The tenant's upstream is slow, and all slow tenants hold their share. The part was not sent.
    #[error(
        "overloaded: this tenant's upstream is slow, and slow tenants have their share in flight \
         (limits.slow_share_percent)"
    )]
    OverSlowShare,
    /// The parts for this upstream hold what they may while those for others need room. The part was not sent.
    #[error("overloaded: this upstream has its share in flight, and others need the rest")]
    OverUpstreamShare,
    /// The tenant's parts are spooled, and the spool takes no more of them. The part was not sent.
    #[error("this tenant's upstream takes nothing, and the spool cannot take it: {0}")]
    NotSpooled(String),
    /// The part waited in its lane until its time was up. It was not sent.
    #[error("overloaded: it could not be sent to the upstream in time")]
    Expired,
    /// The request waited for a connection until its time was up. It was not sent.
    #[error("overloaded: no connection to the upstream came free in time")]
    NoConnection,
    /// The upstream's name has never resolved. The request was not sent.
    #[error("the upstream could not be reached: its name does not resolve: {0}")]
    Unresolved(String),
    /// No connection could be opened. The request was not sent.
    #[error("the upstream could not be reached: {address}: {reason}")]
    Unreachable {
        /// The address that was tried last.
        address: SocketAddr,
        /// The kernel's error.
        reason: String,
    },
    /// A reused connection broke before the first byte of a response, or was answered 408: the upstream had most likely
    /// closed it already. The request is worth one more attempt over a new connection at once.
    #[error("the connection to the upstream had gone stale: {address}: {reason}")]
    Stale {
        /// The upstream's address.
        address: SocketAddr,
        /// The kernel's error, or what was wrong with the response.
        reason: String,
    },
    /// The connection broke, or the response was malformed. The upstream may have stored the request.
    #[error("the connection to the upstream broke: {address}: {reason}")]
    Broken {
        /// The upstream's address.
        address: SocketAddr,
        /// The kernel's error, or what was wrong with the response.
        reason: String,
    },
    /// No response came before the deadline. The upstream may have stored the request.
    #[error("the upstream gave no answer in time")]
    TimedOut,
    /// The request took far longer than usual for its address, and other tenants needed its connection. The upstream
    /// may have stored it.
    #[error("the upstream was slow to answer this tenant, and others needed the connection")]
    Cut,
}

impl Failure {
    /// Returns who is at fault.
    pub fn source(&self) -> Source {
        match self {
            Self::OverShare
            | Self::OverSlowShare
            | Self::OverUpstreamShare
            | Self::NotSpooled(_)
            | Self::Expired
            | Self::NoConnection => Source::Us,
            Self::Unresolved(_)
            | Self::Unreachable { .. }
            | Self::Stale { .. }
            | Self::Broken { .. }
            | Self::TimedOut
            | Self::Cut => Source::Upstream,
        }
    }

    /// Returns what the sender of the part gets; `timeout` is how long the upstream had to answer.
    pub fn outcome(&self, timeout: Duration) -> Outcome {
        match self {
            Self::TimedOut => Outcome::failed(
                Source::Upstream,
                504,
                &format!("the upstream did not answer within {timeout:?}"),
            ),
            Self::Cut => Outcome::failed(Source::Upstream, 504, &self.to_string()),
            _ if self.source() == Source::Us => Outcome::failed(Source::Us, 503, &self.to_string()),
            _ => Outcome::failed(Source::Upstream, 502, &self.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::OVERLOAD_RETRY_AFTER_SECS;

    fn all() -> Vec<Failure> {
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let reason = || "connection refused".to_owned();
        vec![
            Failure::OverShare,
            Failure::OverSlowShare,
            Failure::Expired,
            Failure::NoConnection,
            Failure::Unresolved(reason()),
            Failure::Unreachable { address, reason: reason() },
            Failure::Stale { address, reason: reason() },
            Failure::Broken { address, reason: reason() },
            Failure::TimedOut,
            Failure::Cut,
            Failure::OverUpstreamShare,
            Failure::NotSpooled(reason()),
        ]
    }

    #[test]
    fn every_failure_invites_a_retry_and_names_its_source() {
        for failure in all() {
            let outcome = failure.outcome(Duration::from_secs(10));
            assert!(outcome.invites_retry() && !outcome.is_delivered(), "{failure}");
            assert_eq!(outcome.source, failure.source(), "{failure}");
            let expected = match failure {
                Failure::OverShare
                | Failure::OverSlowShare
                | Failure::OverUpstreamShare
                | Failure::NotSpooled(_)
                | Failure::Expired
                | Failure::NoConnection => 503,
                Failure::TimedOut | Failure::Cut => 504,
                _ => 502,
            };
            assert_eq!(outcome.status, expected, "{failure}");
            let retry_after = (expected == 503).then_some(OVERLOAD_RETRY_AFTER_SECS);
            assert_eq!(outcome.retry_after_secs, retry_after, "{failure}");
        }
    }

    #[test]
    fn texts_say_once_what_happened_and_where() {
        let texts =
            all().iter().map(|failure| failure.outcome(Duration::from_secs(10)).message).collect::<Vec<_>>();
        assert_eq!(
            &*texts[4],
            "the upstream could not be reached: its name does not resolve: connection refused"
        );
        assert_eq!(&*texts[5], "the upstream could not be reached: 127.0.0.1:9: connection refused");
        assert_eq!(&*texts[8], "the upstream did not answer within 10s");
    }
}
