//! What open taps are shown of a request.
//!
//! This runs only while a tap is open. It reads the body once more, by itself, so that the way of a request stays the
//! same whether it is watched or not. What it reads comes before the splitter has checked it, so it is bounded here:
//! when [`TAP_SERIES_MAX`] series of a request are shown, it ends, and counts that the tap has lost something.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use crate::config::plan::Plan;
use crate::exchange::fragment::RequestId;
use crate::limits::{NOTE_BYTES_MAX, TAP_LABELS_BYTES_MAX, TAP_LABELS_MAX, TAP_SERIES_MAX};
use crate::model::{Answer, Destination, Fate, Outcome, cut};
use crate::selector::show_series;
use crate::shared::taps::{Event, Filter, State, Taps};
use crate::split::{Body, Labelled, each_series};
use crate::tenant::{Decision, Grant, TenantId};

/// A series that a tap shows.
struct Shown {
    tap: Arc<State>,
    series: String,
    decision: Decision,
}

/// The series of a request that taps show.
pub(super) struct Tapped {
    shown: Vec<Shown>,
    plan: Arc<Plan>,
    client: SocketAddr,
    arrived: Instant,
    request_id: RequestId,
}

/// A request, as taps see it.
pub(super) struct Request<'a> {
    pub(super) plan: &'a Arc<Plan>,
    pub(super) body: Body,
    pub(super) source: Option<&'a [u8]>,
    pub(super) grant: &'a Grant,
    pub(super) client: SocketAddr,
    pub(super) arrived: Instant,
    pub(super) request_id: RequestId,
}

impl Tapped {
    /// Finds the series that open taps show; `None` if there are none.
    pub(super) fn find(taps: &Taps, request: Request<'_>) -> Option<Self> {
        let Request { plan, body, source, grant, client, arrived, request_id } = request;
        let (all, destination) = (taps.all(), body.protocol.destination());
        let (rules, label_remove) = (plan.tenant_rules(destination), plan.removes_label(destination));
        let source = source.map(String::from_utf8_lossy);
        let mut shown = Vec::new();
        // A body that cannot be read is refused by the splitter. What was found until then is shown.
        let _ = each_series(body, plan.split_limits(), TAP_LABELS_MAX, |series| {
            let mut decision = None;
            for tap in all.iter().filter(|tap| may_match(&tap.filter, series, destination)) {
                let decide = || series.decide(rules, source.as_deref(), grant, label_remove);
                let decision: &Decision = decision.get_or_insert_with(decide);
                if is_of(&tap.filter, decision) {
                    if shown.len() >= TAP_SERIES_MAX {
                        tap.lose(1);
                        return ControlFlow::Break(());
                    }
                    let (tap, series) = (Arc::clone(tap), text_of(series));
                    shown.push(Shown { tap, series, decision: decision.clone() });
                }
            }
            ControlFlow::Continue(())
        });
        (!shown.is_empty()).then(|| Self { shown, plan: Arc::clone(plan), client, arrived, request_id })
    }

    /// Shows what became of the series of a request that was refused as a whole.
    pub(super) fn refused(self, answer: &Answer) {
        let (fate, reason) = (Fate::of(answer.status), noted(&answer.body));
        self.show(|_| End { fate, status: answer.status, reason: Some(reason.clone()), ..End::default() });
    }

    /// Shows what became of the series by the outcomes of their tenants' parts.
    pub(super) fn settled<'a>(self, outcomes: impl Iterator<Item = (&'a TenantId, &'a Outcome)> + Clone) {
        self.show(|decision| match &decision.tenant {
            Err(error) => End { status: 400, reason: Some(noted(&error.to_string())), ..End::default() },
            Ok(tenant) => outcomes
                .clone()
                .find(|(of, _)| *of == tenant)
                .map_or(End::default(), |(_, outcome)| End::of(outcome)),
        });
    }

    fn show(self, end: impl Fn(&Decision) -> End) {
        let at = Instant::now();
        for Shown { tap, series, decision } in self.shown {
            let End { fate, status, merged_with, address, reason } = end(&decision);
            let rule = decision.rule.map(|rule| (rule.kind(), self.plan.tenant.describe(rule)));
            tap.show(Event {
                at,
                request_id: self.request_id.0,
                client: self.client,
                series,
                tenant: decision.tenant.as_ref().ok().map(|tenant| tenant.as_str().to_owned()),
                rule,
                merged_with,
                address,
                status,
                took: at.saturating_duration_since(self.arrived),
                fate,
                reason,
            });
        }
    }
}

/// How it ended for a series.
struct End {
    fate: Fate,
    status: u16,
    merged_with: usize,
    address: Option<SocketAddr>,
    reason: Option<String>,
}

impl Default for End {
    fn default() -> Self {
        Self { fate: Fate::Rejected, status: 0, merged_with: 0, address: None, reason: None }
    }
}

impl End {
    fn of(outcome: &Outcome) -> Self {
        let fate = Fate::of(outcome.sender_status());
        Self {
            fate,
            status: outcome.status,
            merged_with: outcome.via.map_or(0, |via| via.fragments.saturating_sub(1)),
            address: outcome.via.map(|via| via.address),
            reason: (fate != Fate::Delivered).then(|| noted(&outcome.message)),
        }
    }
}

/// A series as text, with as many of its labels as there is room for.
fn text_of(series: &Labelled<'_>) -> String {
    let mut left = Some(TAP_LABELS_BYTES_MAX);
    let within = series.labels().take_while(|(name, value)| {
        left = left.and_then(|left| left.checked_sub(name.len() + value.len()));
        left.is_some()
    });
    let mut text = show_series(within);
    if left.is_none() {
        text.push('…');
    }
    text
}

/// Whether a tap shows a series, as far as its labels tell.
fn may_match(filter: &Filter, series: &Labelled<'_>, destination: Destination) -> bool {
    match filter {
        Filter::Tenant(of, _) => *of == destination,
        Filter::Series(selector) => selector.matches(|name| {
            series.labels().find(|(known, _)| *known == name).map(|(_, value)| Cow::Borrowed(value))
        }),
    }
}

/// Whether a tap shows a series for which this is decided.
fn is_of(filter: &Filter, decision: &Decision) -> bool {
    match filter {
        Filter::Series(_) => true,
        Filter::Tenant(_, id) => decision.tenant.as_ref().is_ok_and(|tenant| tenant.as_str() == &**id),
    }
}

/// A reason as events show it.
fn noted(text: &str) -> String {
    cut(text, NOTE_BYTES_MAX).to_owned()
}
