//! Why there is no reply from an upstream, and what its sender is told then.

use std::net::SocketAddr;
use std::time::Duration;

use crate::metrics::UpstreamClass;
use crate::model::Outcome;
use crate::upstream::client::NoReply;
use crate::upstream::pool::NoLease;

/// Why a batch has no reply from the upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the upstream's name does not resolve: {0}")]
    Unresolved(String),
    #[error("the upstream can't be reached: {0}")]
    Unreachable(String),
    #[error("the connection to the upstream broke: {0}")]
    Broken(String),
    #[error("the upstream gave no answer in time")]
    TimedOut,
    #[error("the upstream was slow to answer this tenant, and others needed the connection")]
    Cut,
    #[error("no connection to the upstream came free in time")]
    NoConnection,
}

impl Failure {
    pub(super) fn from_no_reply(error: NoReply, address: SocketAddr) -> Self {
        match error {
            NoReply::TimedOut => Self::TimedOut,
            NoReply::Cut => Self::Cut,
            e => Self::Broken(format!("{address}: {e}")),
        }
    }

    pub(super) fn class(&self) -> UpstreamClass {
        match self {
            Self::Unresolved(_) | Self::Unreachable(_) | Self::Broken(_) => UpstreamClass::Unreachable,
            Self::TimedOut | Self::Cut => UpstreamClass::TimedOut,
            Self::NoConnection => UpstreamClass::Expired,
        }
    }

    pub(super) fn outcome(&self, timeout: Duration) -> Outcome {
        match self {
            Self::Unresolved(_) | Self::Unreachable(_) | Self::Broken(_) => {
                Outcome::unreachable(&self.to_string())
            }
            Self::TimedOut => Outcome::timed_out(timeout),
            Self::Cut => Outcome::gave_up(&self.to_string()),
            Self::NoConnection => Outcome::overloaded(&self.to_string()),
        }
    }
}

impl From<NoLease> for Failure {
    fn from(error: NoLease) -> Self {
        match error {
            NoLease::Unresolved(why) => Self::Unresolved(why),
            NoLease::TimedOut => Self::NoConnection,
        }
    }
}
