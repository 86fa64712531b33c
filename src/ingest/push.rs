//! A push request: admitted by its head, split, dispatched, and answered when all its parts have their outcomes.
//!
//! The CPU's work is done here, on the core where the bytes are in cache; a tenant's home core gets them ready to
//! be sent. A request that inflates to much gives other tasks a turn between its parts.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::connection::Ingest;
use crate::core::tasks::yield_now;
use crate::http::head::{Encoding, Framing, Media, RequestHead};
use crate::http::refusal::Refusal;
use crate::limits::{CPU_SLICE_BYTES, FRAGMENTS_IN_FLIGHT_MAX, SPLITTERS_KEPT_MAX};
use crate::metrics::Rejection;
use crate::queue::budget::Charge;
use crate::queue::fragment::{Delivered, Fragment, Message, RequestId, home_core};
use crate::queue::receipt::{Receipt, ReceiptKey};
use crate::split::{Body, Compression, Part, Protocol, Refused, Scan, SplitError, SplitRules, Splitter};
use crate::tenant::{TenantError, TenantId};
use crate::verdict::{Answer, Outcome, conclude};

/// A push request, read whole.
pub(super) struct Push {
    /// What its body says.
    pub(super) protocol: Protocol,
    /// How that is compressed.
    pub(super) compression: Compression,
    /// The body.
    pub(super) body: Vec<u8>,
    /// What the body was charged.
    pub(super) charge: Charge,
    /// The inbound tenant header's value.
    pub(super) source: Option<Vec<u8>>,
    /// Who sent it.
    pub(super) client: SocketAddr,
    /// When its head had arrived.
    pub(super) arrived: Instant,
}

/// What a request holds while it is worked on.
pub(super) struct Admission {
    /// Its place among the requests in flight.
    pub(super) request: Charge,
    /// Its body's bytes, as far as they are known by now.
    pub(super) bytes: Charge,
}

/// What a request to the remote write path carries, if we can read it. Without a Content-Encoding it is snappy, which
/// the specification prescribes.
///
/// # Errors
/// [`Refusal::UnsupportedMedia`], [`Refusal::RemoteWriteV2`] or [`Refusal::UnsupportedEncoding`].
pub(super) fn remote_write_kind(head: &RequestHead) -> Result<(Protocol, Compression), Refusal> {
    let protocol = match head.media {
        Media::Protobuf | Media::RemoteWriteV1 => Protocol::RemoteWriteV1,
        Media::RemoteWriteV2 => return Err(Refusal::RemoteWriteV2),
        Media::Json | Media::Other => return Err(Refusal::UnsupportedMedia),
    };
    let compression = match head.encoding {
        Encoding::Absent | Encoding::Snappy => Compression::Snappy,
        Encoding::Zstd => Compression::Zstd,
        Encoding::Gzip | Encoding::Identity | Encoding::Other => return Err(Refusal::UnsupportedEncoding),
    };
    Ok((protocol, compression))
}

/// A request on its way: what its fragments have in common.
struct Dispatch<'a> {
    ingest: &'a Ingest,
    ticket: &'a super::pending::Ticket,
    charge: Charge,
    client: SocketAddr,
    arrived: Instant,
    request_id: RequestId,
    /// Whether receipts may be needed, and how to make them.
    receipts: Option<ReceiptKey>,
    sent: Vec<SentPart>,
}

/// A part on its way.
struct SentPart {
    tenant: TenantId,
    /// See [`Fragment::receipt`].
    receipt: Option<Receipt>,
}

impl Ingest {
    /// Admits a request or not, by its head alone: before its body is read, so that shedding costs little.
    pub(super) fn admit(&self, head: &RequestHead) -> Result<Admission, Refusal> {
        let limit = self.settings.body_bytes_max;
        let declared = match head.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::None | Framing::Chunked => 0,
        };
        if declared > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        let request = self.commons.requests.charge(1).ok_or_else(|| self.too_many_requests())?;
        let bytes = self.commons.bytes.charge(declared).ok_or_else(|| self.out_of_memory())?;
        Ok(Admission { request, bytes })
    }

    fn too_many_requests(&self) -> Refusal {
        self.counters().rejected(Rejection::Concurrency);
        Refusal::Overloaded { why: "too many requests in flight (setting `concurrency`)" }
    }

    pub(super) fn out_of_memory(&self) -> Refusal {
        self.counters().rejected(Rejection::Memory);
        Refusal::Overloaded { why: "too many bytes in flight (setting `limits.in_flight_bytes_max`)" }
    }

    /// Counts a refusal, unless it was counted where its reason was known best.
    pub(super) fn count_refusal(&self, refusal: &Refusal) {
        let rejection = match refusal {
            Refusal::BadRequest(_) => Rejection::BadRequest,
            Refusal::NotFound => Rejection::NotFound,
            Refusal::MethodNotAllowed { .. } => Rejection::Method,
            Refusal::Timeout(_) => Rejection::Timeout,
            Refusal::BodyTooLarge { .. } => Rejection::BodyTooLarge,
            Refusal::HeadTooLarge { .. } | Refusal::TooManyFields => Rejection::HeadTooLarge,
            Refusal::UnsupportedMedia | Refusal::RemoteWriteV2 => Rejection::Media,
            Refusal::UnsupportedEncoding => Rejection::Encoding,
            Refusal::Draining => Rejection::Draining,
            Refusal::Overloaded { .. } => return,
        };
        self.counters().rejected(rejection);
    }

    /// Splits and dispatches a request, and waits for its outcomes.
    pub(super) async fn push(self: &Rc<Self>, push: Push) -> Answer {
        let arrived = push.arrived;
        let counters = self.counters();
        counters.requests.add(1);
        counters.batch_bytes.of(push.protocol.destination()).observe(push.body.len() as f64);
        let mut splitter = self.splitters.borrow_mut().pop().unwrap_or_default();
        let answer = self.split_and_send(&mut splitter, push).await;
        self.keep_splitter(splitter);
        let answer = match answer {
            Ok(sent) => sent.answer(self).await,
            Err(answer) => answer,
        };
        self.counters().request_duration.observe(arrived.elapsed().as_secs_f64());
        answer
    }

    async fn split_and_send(&self, splitter: &mut Splitter, push: Push) -> Result<Sent, Answer> {
        let Push { protocol, compression, body, charge, source, client, arrived } = push;
        let body = Body { protocol, compression, bytes: body.into() };
        let scan = self.scan(splitter, body, source.as_deref()).map_err(|e| {
            self.counters().rejected(rejection_of(&e));
            Answer::from(&e)
        })?;
        self.count(&scan);
        let ticket = self.pending.open(scan.tenants, FRAGMENTS_IN_FLIGHT_MAX).ok_or_else(|| {
            self.counters().rejected(Rejection::Fragments);
            Answer::from(&Refusal::Overloaded { why: "too many fragments in flight" })
        })?;
        let sent = Vec::with_capacity(scan.tenants);
        let receipts = (scan.tenants > 1).then_some(self.commons.receipt_key);
        let request_id = self.request_id();
        let mut dispatch =
            Dispatch { ingest: self, ticket: &ticket, charge, client, arrived, request_id, receipts, sent };
        let mut since_yield = scan.inflated_bytes;
        loop {
            if since_yield >= CPU_SLICE_BYTES {
                since_yield = 0;
                yield_now().await;
            }
            let Some(part) = splitter.next_part() else { break };
            since_yield += part.inflated_bytes as usize;
            dispatch.send(part);
        }
        let parts = dispatch.sent;
        Ok(Sent { protocol, ticket, parts, refused: scan.refused })
    }

    fn scan(&self, splitter: &mut Splitter, body: Body, source: Option<&[u8]>) -> Result<Scan, SplitError> {
        let settings = &self.settings;
        let rules = SplitRules {
            tenant: &settings.tenant,
            metadata: settings.metadata,
            ha: settings.ha_labels.as_ref(),
            loki_label_remove: false,
            limits: settings.split,
        };
        // A header value that is no UTF-8 is no tenant ID either; the lossy form keeps it from becoming one.
        let source = source.map(String::from_utf8_lossy);
        splitter.scan(body, &rules, source.as_deref())
    }

    fn count(&self, scan: &Scan) {
        let counters = self.counters();
        counters.inflated_bytes.add(scan.inflated_bytes as u64);
        counters.series.add(scan.series);
        counters.samples.add(scan.samples);
        counters.series_dropped_missing.add(scan.refused.missing);
        counters.series_dropped_invalid.add(scan.refused.invalid);
        counters.metadata_dropped.add(scan.metadata_dropped);
        counters.unknown_fields_dropped.add(scan.unknown_fields_dropped);
        counters.passthrough.add(u64::from(scan.passthrough));
        counters.fragments.add(scan.tenants as u64);
    }

    /// Sees to it that a part that got through is not sent again when its request is.
    fn remember(&self, protocol: Protocol, part: &SentPart, outcome: Outcome) {
        let Some(receipt) = part.receipt else { return };
        let home = home_core(&part.tenant, self.exchange.cores());
        let delivered = Delivered { destination: protocol.destination(), receipt, outcome };
        let rung = self.exchange.send(home, Message::Remember(Box::new(delivered)));
        self.counters().doorbells_rung.add(u64::from(rung));
    }

    fn keep_splitter(&self, splitter: Splitter) {
        let mut splitters = self.splitters.borrow_mut();
        if splitters.len() < SPLITTERS_KEPT_MAX {
            splitters.push(splitter);
        }
    }

    /// A random UUID (RFC 9562 version 4).
    fn request_id(&self) -> RequestId {
        let random = RandomState::new();
        let id = (u128::from(random.hash_one(0u8)) << 64) | u128::from(random.hash_one(1u8));
        let version_and_variant = (0x4u128 << 76) | (0x2u128 << 62);
        RequestId(id & !((0xfu128 << 76) | (0x3u128 << 62)) | version_and_variant)
    }
}

impl Dispatch<'_> {
    fn send(&mut self, part: Part) {
        let ingest = self.ingest;
        let home = home_core(&part.tenant, ingest.exchange.cores());
        let number = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
        let receipt = self.receipts.map(|key| key.receipt(&part));
        self.sent.push(SentPart { tenant: part.tenant.clone(), receipt });
        let charge = self.charge.split(part.elements.len());
        let fragment = Fragment {
            part,
            sender: self.ticket.return_address(ingest.core(), number),
            start_by: Instant::now() + ingest.settings.timeout,
            arrived: self.arrived,
            client: self.client,
            request_id: self.request_id,
            receipt,
            alone: false,
            charge,
        };
        let rung = ingest.exchange.send(home, Message::Fragment(Box::new(fragment)));
        ingest.counters().doorbells_rung.add(u64::from(rung));
    }
}

/// A request whose parts are all on their way.
struct Sent {
    protocol: Protocol,
    ticket: super::pending::Ticket,
    parts: Vec<SentPart>,
    refused: Refused,
}

impl Sent {
    async fn answer(self, ingest: &Ingest) -> Answer {
        let outcomes: Vec<Outcome> = self.ticket.outcomes().await;
        let tenants = self.parts.iter().map(|part| &part.tenant);
        let answer = conclude(tenants.zip(&outcomes), &self.refused, ingest.settings.accept_all);
        if answer.invites_retry() {
            let delivered = self.parts.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_delivered());
            delivered.for_each(|(part, outcome)| ingest.remember(self.protocol, part, outcome));
        }
        Answer { written: answer.written.filter(|_| self.protocol.tells_written()), ..answer }
    }
}

fn rejection_of(error: &SplitError) -> Rejection {
    match error {
        SplitError::Tenant { error: TenantError::Missing { .. }, .. } => Rejection::MissingTenant,
        SplitError::Tenant { error: TenantError::Invalid { .. }, .. } => Rejection::InvalidTenant,
        SplitError::Inflate(error) if error.is_too_large() => Rejection::BodyTooLarge,
        _ => Rejection::Malformed,
    }
}
