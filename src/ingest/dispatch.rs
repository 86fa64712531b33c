//! A request that has been split: sends its parts to their home cores, waits for their outcomes, and concludes the
//! answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Ingest;
use super::announcements::Announcements;
use super::credential::Credential;
use super::pending::Ticket;
use super::tapped::Tapped;
use crate::config::plan::Plan;
use crate::exchange::fragment::{Delivered, Fragment, Message, RequestId, home_core};
use crate::http::Passed;
use crate::limits::TRACED_PARTS_MAX;
use crate::metrics::Unstored;
use crate::metrics::ledger::Entry;
use crate::model::{
    Answer, Destination, Failure, Outcome, Part, Protocol, RefusedSeries, UpstreamId, Written,
};
use crate::shared::budget::Charge;
use crate::shared::load::Held;
use crate::shared::receipt::{Receipt, ReceiptKey};
use crate::split::Splitter;
use crate::tenant::TenantId;
use crate::trace::Traced;
use crate::verdict::{conclude, otlp};

/// A scanned request: the data that its fragments share, and the data that its answer needs.
pub(super) struct Dispatch<'a> {
    pub(super) ingest: &'a Ingest,
    pub(super) plan: Arc<Plan>,
    pub(super) credential: Credential,
    pub(super) protocol: Protocol,
    pub(super) ticket: Ticket,
    pub(super) body_charge: Charge,
    /// Series of it that somebody watches.
    pub(super) tapped: Option<Box<Tapped>>,
    /// Samples of parts that are not sent yet.
    pub(super) unsent: u64,
    pub(super) announcements: Announcements,
    /// See [`Fragment::start_by`]. It is renewed when home cores are rung: the clock is not read for each part.
    pub(super) start_by: Instant,
    /// Held until the request is answered.
    pub(super) _request_charge: Charge,
    /// The value of the inbound tenant header.
    pub(super) source: Option<Vec<u8>>,
    pub(super) passed: Option<Arc<Passed>>,
    pub(super) client: SocketAddr,
    pub(super) arrived: Instant,
    pub(super) request_id: RequestId,
    pub(super) traced: Option<Box<Traced>>,
    /// The key for receipts, if the request may need them.
    pub(super) receipts: Option<ReceiptKey>,
    pub(super) refused: RefusedSeries,
    pub(super) sent: Vec<SentPart>,
    /// What its parts hold, by the numbers of their upstreams; `None` for an upstream whose share they exceed. Empty if
    /// there is only one upstream.
    pub(super) held: Vec<(usize, Option<Arc<Held>>)>,
}

/// A part that was sent to its home core.
pub(super) struct SentPart {
    pub(super) tenant: TenantId,
    pub(super) samples: u32,
    pub(super) upstream: UpstreamId,
    /// See [`Fragment::receipt`].
    pub(super) receipt: Option<Receipt>,
    /// The counts to report if the upstream accepts the part. Set only if the sender expects counts and the upstream
    /// does not report any.
    pub(super) written: Option<Written>,
}

impl Ingest {
    /// Asks the home core to remember that a part was delivered, so that a retry of the request does not resend it.
    fn remember(&self, part: &SentPart, outcome: Outcome) {
        let Some(receipt) = part.receipt else { return };
        let home = home_core(&part.tenant, self.exchange.cores());
        let delivered = Delivered { upstream: part.upstream, receipt, outcome };
        let rung = self.exchange.send(home, Message::Remember(Box::new(delivered)));
        self.counters().doorbells_rung.add(rung);
    }
}

impl Dispatch<'_> {
    /// Builds the next part, coded as its target wants it.
    pub(super) fn next_part(&self, splitter: &mut Splitter) -> Option<Part> {
        let destination = self.protocol.destination();
        let part = splitter.next_part_as(|tenant| {
            let (_, terms) =
                self.plan.upstream_of(tenant, self.source.as_deref(), &self.credential.grant, destination);
            *terms.codings.of(destination)
        })?;
        self.ingest.counters().passthrough.add(u64::from(splitter.has_passed_on()));
        Some(part)
    }

    /// Sends a part to its tenant's home core.
    pub(super) fn send(&mut self, part: Part) {
        let ingest = self.ingest;
        ingest.count_by_credential(&self.credential, &part);
        let samples = u64::from(part.samples);
        self.unsent = self.unsent.wrapping_sub(samples);
        let home = home_core(&part.tenant, ingest.exchange.cores());
        let number = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
        let sender = self.ticket.return_address(ingest.core(), number);
        let (upstream, terms) = self.plan.upstream_of(
            &part.tenant,
            self.source.as_deref(),
            &self.credential.grant,
            self.protocol.destination(),
        );
        let terms = Arc::clone(terms);
        let receipt = self.receipts.and_then(|key| key.receipt(&part, terms.place, self.passed.as_deref()));
        // Remote Write 2.0 that is forwarded as 1.0.
        let written =
            (self.protocol.reports_written() && !part.protocol.reports_written()).then(|| Written {
                samples: u64::from(part.samples - part.histograms),
                histograms: part.histograms.into(),
                exemplars: part.exemplars.into(),
            });
        let tenant = part.tenant.clone();
        self.sent.push(SentPart { tenant, samples: part.samples, upstream, receipt, written });
        let Ok(held) = self.hold(upstream, part.elements.len()) else {
            ingest.counters().upstream_refused.add(1);
            ingest.counters().ledger_open.down_by(samples);
            ingest.counters().ledger_refused.add(Unstored::Overloaded, samples);
            let outcome = Failure::OverUpstreamShare.outcome(self.plan.timeout);
            return ingest.pending.resolve(sender, outcome);
        };
        let charge = self.body_charge.split_off(part.elements.len());
        let rings = self.announcements.add(part.inflated_bytes);
        if rings {
            self.start_by = Instant::now() + self.plan.timeout;
        }
        let fragment = Fragment {
            part,
            upstream,
            terms,
            passed: self.passed.clone(),
            sender: Some(sender),
            start_by: self.start_by,
            arrived: self.arrived,
            client: self.client,
            request_id: self.request_id,
            receipt,
            alone: false,
            traced: self.traced.clone().filter(|_| self.sent.len() <= TRACED_PARTS_MAX),
            entry: Entry::default(),
            charge,
            held,
        };
        // Side by side, as in all balances: a reading in between would see a difference.
        ingest.counters().ledger_open.down_by(samples);
        ingest.counters().ledger_transit.up_by(samples);
        ingest.exchange.push(home, Message::Fragment(Box::new(fragment)));
        if rings {
            self.ring();
        }
    }

    /// Wakes the home cores of the parts that were sent.
    pub(super) fn ring(&mut self) {
        self.announcements.made();
        self.ingest.counters().doorbells_rung.add(self.ingest.exchange.ring());
    }

    /// Reserves room for a part among those of its upstream; see [`load`](crate::shared::load). `Err` if there is none.
    fn hold(&mut self, upstream: UpstreamId, bytes: usize) -> Result<Option<Arc<Held>>, ()> {
        let shared = &self.ingest.shared;
        if !shared.loads.are_used() {
            return Ok(None);
        }
        let index = upstream.index();
        let known = self.held.iter().find(|(of, _)| *of == index).map(|(_, held)| held.clone());
        let held = known.unwrap_or_else(|| {
            let held = shared.loads.begin(index, &shared.requests);
            self.held.push((index, held.clone()));
            held
        });
        held.filter(|held| held.add(bytes, &shared.bytes)).map(Some).ok_or(())
    }

    /// Waits for the outcomes of all sent parts, and concludes the answer.
    pub(super) async fn answer(self) -> Answer {
        // Samples that are in no part are lost: they leave what is open, and come to nothing else.
        self.ingest.counters().ledger_open.down_by(self.unsent);
        // The body is gone, and the parts have their own charges and what they hold.
        drop((self.body_charge, self.held));
        let mut outcomes: Vec<Outcome> = self.ticket.outcomes().await;
        for (part, outcome) in self.sent.iter().zip(&mut outcomes).filter(|(_, o)| o.is_delivered()) {
            outcome.written = outcome.written.or(part.written);
        }
        let (destination, accept_all) = (self.protocol.destination(), self.plan.accept_all);
        let answer = conclude_parts(destination, &self.sent, &outcomes, &self.refused, accept_all);
        let answer = answer.with_retry_after_max(self.plan.retry_after_max);
        if let Some(tapped) = self.tapped {
            tapped.settled(self.sent.iter().map(|part| &part.tenant).zip(&outcomes));
        }
        if answer.invites_retry() {
            let delivered = self.sent.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_delivered());
            delivered.for_each(|(part, outcome)| self.ingest.remember(part, outcome));
        }
        Answer { written: answer.written.filter(|_| self.protocol.reports_written()), ..answer }
    }
}

/// Concludes the answer from the outcomes of all sent parts.
fn conclude_parts(
    destination: Destination,
    sent: &[SentPart],
    outcomes: &[Outcome],
    refused: &RefusedSeries,
    accept_all: bool,
) -> Answer {
    if destination.signal().is_some() {
        let parts = sent.iter().zip(outcomes);
        let parts = parts.map(|(part, outcome)| (&part.tenant, part.samples, outcome));
        return otlp::conclude(destination, parts, refused, accept_all);
    }
    let tenants = sent.iter().map(|part| &part.tenant);
    conclude(destination, tenants.zip(outcomes), refused, accept_all)
}
