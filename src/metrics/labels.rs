//! Labels with a fixed set of values.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::cells::Label;
use crate::model::{Failure, Outcome, Source};

/// Declares an enum whose variants are the values of a label.
macro_rules! label {
    (
        $(#[$doc:meta])*
        $name:ident as $key:literal { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The text of the label.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl Label for $name {
            const KEY: &'static str = $key;

            fn index(&self) -> usize {
                *self as usize
            }

            fn text(index: usize, _: u64) -> Option<Cow<'static, str>> {
                Self::ALL.get(index).map(|value| value.name().into())
            }
        }
    };
}

label! {
    /// Why this server refused a request.
    Rejection as "reason" {
        /// Not an unambiguous HTTP request.
        BadRequest => "bad_request",
        /// Unknown path.
        NotFound => "not_found",
        /// Wrong method.
        Method => "method",
        /// Slow head or body.
        Timeout => "timeout",
        /// Body over its limit, as sent or after decompression.
        BodyTooLarge => "body_too_large",
        /// Head over its limit.
        HeadTooLarge => "head_too_large",
        /// Unsupported content type.
        Media => "media",
        /// Unsupported content encoding.
        Encoding => "encoding",
        /// Too many requests in flight.
        Concurrency => "concurrency",
        /// Too many bytes in flight.
        Memory => "memory",
        /// Too many fragments in flight.
        Fragments => "fragments",
        /// Not a snappy block, or not a write request inside.
        Malformed => "malformed",
        /// A series without a tenant.
        MissingTenant => "missing_tenant",
        /// A series with an invalid tenant ID.
        InvalidTenant => "invalid_tenant",
        /// No credentials that are accepted.
        Unauthorized => "unauthorized",
        /// Too many passwords are being checked.
        PasswordChecks => "password_checks",
        /// Credentials that may write to no tenant, or not to one of the request.
        DeniedTenant => "denied_tenant",
        /// The connection was opened under other demands of TLS.
        Renewed => "tls_renewed",
        /// The server is shutting down.
        Draining => "draining",
    }
}

label! {
    /// How an upstream request ended.
    UpstreamClass as "outcome" {
        /// 2xx.
        Delivered => "2xx",
        /// 4xx except 429, and anything that is no proper answer to a push.
        Rejected => "4xx",
        /// 429.
        Limited => "429",
        /// 5xx.
        Failed => "5xx",
        /// Refused, reset, unresolved.
        Unreachable => "unreachable",
        /// No answer in time.
        TimedOut => "timeout",
        /// Never sent: no connection came free in time.
        Expired => "expired",
    }
}

label! {
    /// Why samples of an accepted request were not stored.
    Unstored as "reason" {
        /// The upstream answered 4xx except 429. The sender drops them.
        Rejected => "rejected",
        /// The upstream answered 429.
        Limited => "limited",
        /// The upstream answered 5xx, or gave no answer. It may have stored them.
        Failed => "failed",
        /// A limit of this server was reached, so they were not sent.
        Overloaded => "overloaded",
        /// They have no tenant, an invalid one, or one that their sender may not write to.
        NoTenant => "no_tenant",
        /// The map of tenants drops them.
        Mapped => "mapped",
        /// Remote Write 1.0 cannot express them.
        Downgraded => "downgraded",
    }
}

impl Unstored {
    /// Why the samples of a part with this outcome were not stored.
    pub fn of(outcome: &Outcome) -> Self {
        match (outcome.source, outcome.status) {
            (Source::Us, _) => Self::Overloaded,
            (_, 429) => Self::Limited,
            _ if outcome.invites_retry() => Self::Failed,
            _ => Self::Rejected,
        }
    }
}

impl UpstreamClass {
    /// The class of a request without a response.
    pub fn of_failure(failure: &Failure) -> Self {
        match failure {
            Failure::OverShare
            | Failure::OverSlowShare
            | Failure::OverUpstreamShare
            | Failure::NotSpooled(_)
            | Failure::Expired
            | Failure::NoConnection => Self::Expired,
            Failure::Unresolved(_)
            | Failure::Unreachable { .. }
            | Failure::Stale { .. }
            | Failure::Broken { .. } => Self::Unreachable,
            Failure::TimedOut | Failure::Cut => Self::TimedOut,
        }
    }

    /// The class of an upstream's status.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Delivered,
            429 => Self::Limited,
            500..=599 => Self::Failed,
            _ => Self::Rejected,
        }
    }
}

/// The status of an HTTP answer. Statuses that never occurred are not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Statuses are below this number.
    pub const END: usize = 600;
}

impl Label for Status {
    const KEY: &'static str = "code";

    fn index(&self) -> usize {
        self.0.into()
    }

    fn text(index: usize, count: u64) -> Option<Cow<'static, str>> {
        (count > 0).then(|| index.to_string().into())
    }
}
