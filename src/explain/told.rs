//! What the sender of a refused series is told.
#![forbid(unsafe_code)]

use serde_json::{Value, json};

use crate::config::Plan;
use crate::http::Refusal;
use crate::model::{Answer, Destination, Outcome, Part, RefusedSeries};
use crate::split::SplitError;
use crate::tenant::{Policy, TenantError, excerpt};
use crate::verdict::{conclude, otlp};

/// An answer that refuses a request, or series of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The status. vmagent and Fluent Bit are told the one on which they drop the data.
    pub status: u16,
    /// The body.
    pub text: String,
    /// The reason as one word.
    pub reason: &'static str,
    /// Whether nothing of the request is forwarded.
    pub whole_request: bool,
}

impl Told {
    /// The answer to a request that cannot be split.
    pub(super) fn of_error(error: &SplitError) -> Self {
        let Answer { status, body, .. } = Answer::from(error);
        Self { status, text: body, reason: error.reason(), whole_request: true }
    }

    /// The answer to a request that is refused by its head or its size.
    pub(super) fn of_refusal(refusal: &Refusal) -> Self {
        let Answer { status, body, .. } = Answer::from(refusal);
        let reason = match refusal {
            Refusal::BodyTooLarge { .. } => "too_large",
            Refusal::NotFound | Refusal::NoTarget { .. } => "path",
            Refusal::UnsupportedMedia { .. } | Refusal::RemoteWriteV2 => "media",
            Refusal::UnsupportedEncoding { .. } => "encoding",
            Refusal::Forbidden { .. } => "forbidden",
            _ => "refused",
        };
        Self { status, text: body, reason, whole_request: true }
    }

    /// The answer to a request with one series that has no usable tenant; `None` if the map drops it, which no sender
    /// is told. `name` is the metric's name, or the stream's labels.
    pub(super) fn of_series(
        plan: &Plan,
        destination: Destination,
        name: &[u8],
        error: &TenantError,
    ) -> Option<Self> {
        let (policy, [missing, invalid, denied]) = match error {
            TenantError::Missing { .. } => (plan.tenant.on_missing, [1, 0, 0]),
            TenantError::Invalid { .. } => (plan.tenant.on_invalid, [0, 1, 0]),
            TenantError::Denied { .. } => (plan.tenant.on_invalid, [0, 0, 1]),
            TenantError::Dropped { .. } => return None,
        };
        let noun = destination.nouns().one;
        let error = SplitError::Tenant { noun, place: 1, name: excerpt(name), error: error.clone() };
        if policy == Policy::Reject {
            return Some(Self::of_error(&error));
        }
        let example = Some(error.to_string());
        let refused = RefusedSeries { missing, invalid, denied, samples: 1, example, ..Default::default() };
        Self::of_left_out(plan, destination, &[], &refused, error.reason())
    }

    /// The answer if these series are left out and all `parts` are stored; `None` if it is a 2xx that tells of nothing
    /// rejected.
    pub(super) fn of_left_out(
        plan: &Plan,
        destination: Destination,
        parts: &[Part],
        refused: &RefusedSeries,
        reason: &'static str,
    ) -> Option<Self> {
        let stored = Outcome::delivered(200, b"");
        let parts = parts.iter().map(|part| (&part.tenant, part.samples, &stored));
        let Answer { status, body, rejected, .. } = match destination.signal() {
            Some(_) => otlp::conclude(destination, parts, refused, plan.accept_all),
            None => conclude(destination, [], refused, plan.accept_all),
        };
        let told = Self { status, text: body, reason, whole_request: false };
        (rejected > 0 || !(200..300).contains(&status)).then_some(told)
    }

    /// All of it as JSON.
    pub fn json(&self) -> Value {
        let Self { status, text, reason, whole_request } = self;
        json!({"status": status, "text": text, "reason": reason, "whole_request": whole_request})
    }
}
