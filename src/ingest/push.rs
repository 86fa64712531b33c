//! A push request: admitted by its head, split, dispatched, and answered when all its parts have their outcomes.
//!
//! The CPU's work is done here, on the core where the bytes are in cache; a tenant's home core gets them ready to
//! be sent. A request that inflates to much gives other tasks a turn between its parts.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Ingest;
use super::pending::Ticket;
use crate::config::plan::Plan;
use crate::exchange::fragment::{Delivered, Fragment, Message, RequestId, home_core};
use crate::http::Passed;
use crate::http::head::{Encoding, Framing, Media, RequestHead};
use crate::http::refusal::Refusal;
use crate::limits::{FRAGMENTS_IN_FLIGHT_MAX, SPLITTERS_KEPT_MAX};
use crate::metrics::Rejection;
use crate::model::Written;
use crate::model::{Answer, Outcome};
use crate::model::{Destination, MetadataRule, Part, Protocol, RefusedSeries};
use crate::shared::budget::Charge;
use crate::shared::receipt::{Receipt, ReceiptKey};
use crate::split::{Body, Compression, Lost, Metadata, Scan, SplitError, SplitRules, Splitter};
use crate::tenant::{TenantError, TenantId};
use crate::verdict::conclude;

/// A push request, read whole.
pub(super) struct Push {
    /// What held when it began.
    pub(super) plan: Arc<Plan>,
    /// What its body says.
    pub(super) protocol: Protocol,
    /// How that is compressed.
    pub(super) compression: Compression,
    /// The body.
    pub(super) body: Vec<u8>,
    /// What the body was charged.
    pub(super) charge: Charge,
    /// Its place among the requests in work.
    pub(super) in_work: Charge,
    /// The inbound tenant header's value.
    pub(super) source: Option<Vec<u8>>,
    /// Headers that go on to the upstream.
    pub(super) passed: Option<Arc<Passed>>,
    /// Who sent it.
    pub(super) client: SocketAddr,
    /// When its head had arrived.
    pub(super) arrived: Instant,
}

/// What a request carries, if it is something that its path takes.
///
/// Without a Content-Encoding, protobuf is snappy (Remote Write prescribes it, and Loki takes nothing else), and JSON
/// is plain.
///
/// # Errors
/// [`Refusal::UnsupportedMedia`], [`Refusal::RemoteWriteV2`] or [`Refusal::UnsupportedEncoding`].
pub(super) fn kind(
    destination: Destination,
    head: &RequestHead,
    takes_v2: bool,
) -> Result<(Protocol, Compression), Refusal> {
    let protocol = match (destination, head.media) {
        (Destination::Metrics, Media::Protobuf | Media::RemoteWriteV1) => Protocol::RemoteWriteV1,
        (Destination::Metrics, Media::RemoteWriteV2) if takes_v2 => Protocol::RemoteWriteV2,
        (Destination::Metrics, Media::RemoteWriteV2) => return Err(Refusal::RemoteWriteV2),
        (Destination::Logs, Media::Protobuf) => Protocol::Loki,
        (Destination::Logs, Media::Json) => Protocol::LokiJson,
        (Destination::Metrics, _) => {
            return Err(Refusal::UnsupportedMedia {
                taken: "application/x-protobuf (prometheus.WriteRequest)",
            });
        }
        (Destination::Logs, _) => {
            let taken = "application/x-protobuf (logproto.PushRequest) and application/json";
            return Err(Refusal::UnsupportedMedia { taken });
        }
    };
    let compression = match (protocol, head.encoding) {
        (Protocol::LokiJson, Encoding::Absent | Encoding::Identity) => Compression::Identity,
        (Protocol::LokiJson, Encoding::Gzip) => Compression::Gzip,
        (Protocol::LokiJson, _) => return Err(Refusal::UnsupportedEncoding { taken: "gzip for JSON" }),
        (_, Encoding::Absent | Encoding::Snappy) => Compression::Snappy,
        (_, Encoding::Zstd) => Compression::Zstd,
        _ => return Err(Refusal::UnsupportedEncoding { taken: "snappy and zstd for protobuf" }),
    };
    Ok((protocol, compression))
}

/// A request that has been scanned: what its fragments have in common, and what its answer will need.
struct Dispatch<'a> {
    ingest: &'a Ingest,
    plan: Arc<Plan>,
    protocol: Protocol,
    ticket: Ticket,
    charge: Charge,
    /// Its place among the requests in work, until it is answered.
    _in_work: Charge,
    passed: Option<Arc<Passed>>,
    client: SocketAddr,
    arrived: Instant,
    request_id: RequestId,
    /// Whether receipts may be needed, and how to make them.
    receipts: Option<ReceiptKey>,
    refused: RefusedSeries,
    sent: Vec<SentPart>,
}

/// A part on its way.
struct SentPart {
    tenant: TenantId,
    /// See [`Fragment::receipt`].
    receipt: Option<Receipt>,
    /// What its upstream will have written when it takes it, where the upstream won't say and the sender wants to know.
    written: Option<Written>,
}

impl Ingest {
    /// Admits a request or not, by its head alone: before its body is read, so that shedding costs little. Nothing is
    /// set aside for it: whoever sends a head and no body would keep others out.
    pub(super) fn admit(&self, head: &RequestHead, plan: &Plan) -> Result<(), Refusal> {
        let limit = plan.limits.body_bytes_max;
        let declared = match head.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::None | Framing::Chunked => 0,
        };
        if declared > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        if !self.shared.requests.has_room(1) {
            return Err(self.too_many_requests());
        }
        if !self.shared.bytes.has_room(declared) {
            return Err(self.out_of_memory());
        }
        Ok(())
    }

    /// A place among the requests in work, for one that has been read.
    pub(super) fn take_on(&self) -> Result<Charge, Refusal> {
        self.shared.requests.charge(1).ok_or_else(|| self.too_many_requests())
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
            Refusal::RemoteWriteV2 => {
                self.tell_of_refused_v2();
                Rejection::Media
            }
            Refusal::UnsupportedMedia { .. } => Rejection::Media,
            Refusal::UnsupportedEncoding { .. } => Rejection::Encoding,
            Refusal::Draining => Rejection::Draining,
            Refusal::Overloaded { .. } => return,
        };
        self.counters().rejected(rejection);
    }

    /// A sender that does not fall back has just lost its data, and may not tell anybody.
    fn tell_of_refused_v2(&self) {
        if let Some(suppressed) = self.limiter.borrow_mut().allow("", Instant::now()) {
            tracing::warn!(
                suppressed,
                "a Remote Write 2.0 request was refused (remote_write_v2 is refuse): Prometheus 3 does not fall back \
                 to 1.0, it drops what it sent"
            );
        }
    }

    /// Splits a request, sends its parts on their way, and waits for their outcomes.
    pub(super) async fn push(self: &Rc<Self>, push: Push) -> Answer {
        let arrived = push.arrived;
        let counters = self.counters();
        counters.requests.add(1);
        counters.batch_bytes.of(push.protocol.destination()).observe(push.body.len() as f64);
        let mut splitter = self.splitters.borrow_mut().pop().unwrap_or_default();
        let answer = match self.prepare(&mut splitter, push).await {
            Ok((mut dispatch, inflated)) => {
                loop {
                    self.tasks.turn().await;
                    let Some(part) = splitter.next_part() else { break };
                    self.tasks.has_worked_on(part.inflated_bytes as usize);
                    dispatch.send(part);
                }
                drop(inflated);
                self.keep_splitter(splitter);
                dispatch.answer().await
            }
            Err(answer) => {
                splitter.release();
                self.keep_splitter(splitter);
                answer
            }
        };
        self.counters().request_duration.observe(arrived.elapsed().as_secs_f64());
        answer
    }

    /// Scans a request and makes room for its parts. The charge is for what it inflated to, until it has been split.
    async fn prepare(&self, splitter: &mut Splitter, push: Push) -> Result<(Dispatch<'_>, Charge), Answer> {
        let Push { plan, protocol, compression, body, charge, in_work, source, passed, client, arrived } =
            push;
        let body = Body { protocol, compression, bytes: body.into() };
        self.tasks.turn().await;
        let scan = self.scan(splitter, body, source.as_deref(), &plan).map_err(|e| {
            self.counters().rejected(rejection_of(&e));
            Answer::from(&e)
        })?;
        self.tasks.has_worked_on(scan.inflated_bytes);
        // Only now does every compression tell how much it is: a core may hold one body more than the budget knows of.
        let inflated = self.shared.bytes.charge(scan.inflated_bytes);
        let inflated = inflated.ok_or_else(|| Answer::from(&self.out_of_memory()))?;
        self.count(&scan);
        let ticket = self.pending.open(scan.tenants, FRAGMENTS_IN_FLIGHT_MAX).ok_or_else(|| {
            self.counters().rejected(Rejection::Fragments);
            Answer::from(&Refusal::Overloaded { why: "too many fragments in flight" })
        })?;
        let dispatch = Dispatch {
            ingest: self,
            plan,
            protocol,
            ticket,
            charge,
            _in_work: in_work,
            passed,
            client,
            arrived,
            request_id: self.request_id(),
            receipts: (scan.tenants > 1).then_some(self.shared.receipt_key),
            refused: scan.refused,
            sent: Vec::with_capacity(scan.tenants),
        };
        Ok((dispatch, inflated))
    }

    fn scan(
        &self,
        splitter: &mut Splitter,
        body: Body,
        source: Option<&[u8]>,
        plan: &Plan,
    ) -> Result<Scan, SplitError> {
        let rules = SplitRules {
            tenant: &plan.tenant,
            metadata: self.metadata(plan),
            ha: plan.merge.ha_labels.as_ref(),
            loki_label_remove: plan.loki_label_remove,
            remote_write_v2: plan.remote_write_v2.unwrap_or_default(),
            limits: plan.split_limits(),
        };
        // A header value that is no UTF-8 is no tenant ID either; the lossy form keeps it from becoming one.
        let source = source.map(String::from_utf8_lossy);
        splitter.scan(body, &rules, source.as_deref())
    }

    fn metadata(&self, plan: &Plan) -> Metadata<'_> {
        match plan.metadata {
            MetadataRule::Drop => Metadata::Drop,
            MetadataRule::ToDefault => Metadata::ToDefault,
            MetadataRule::Route => {
                self.shared.families.turn(Instant::now());
                Metadata::Route(&self.shared.families)
            }
        }
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
        counters.series_dropped_mapped.add(scan.refused.dropped);
        let lost = &scan.lost;
        counters.lost_custom_histograms.add(lost.custom_histograms);
        counters.lost_start_timestamps.add(lost.start_timestamps);
        counters.lost_series.add(lost.series);
        counters.lost_fields.add(lost.fields);
        if *lost != Lost::default() && !self.shared.warned_of_lost_data.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?lost,
                "remote_write_v2 is `downgrade`, and a request held what 1.0 can't say; \
                 tenantry_downgrade_lost_total counts it from now on"
            );
        }
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
    /// Sends a part to its tenant's home core.
    fn send(&mut self, part: Part) {
        let ingest = self.ingest;
        let home = home_core(&part.tenant, ingest.exchange.cores());
        let number = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
        let receipt =
            self.receipts.and_then(|key| key.receipt(&part, self.plan.terms.place, self.passed.as_deref()));
        // Remote Write 2.0 that goes on as 1.0.
        let written = (self.protocol.tells_written() && !part.protocol.tells_written()).then(|| Written {
            samples: u64::from(part.samples - part.histograms),
            histograms: part.histograms.into(),
            exemplars: part.exemplars.into(),
        });
        self.sent.push(SentPart { tenant: part.tenant.clone(), receipt, written });
        let charge = self.charge.part(part.elements.len());
        let fragment = Fragment {
            part,
            terms: Arc::clone(&self.plan.terms),
            passed: self.passed.clone(),
            sender: self.ticket.return_address(ingest.core(), number),
            start_by: Instant::now() + self.plan.timeout,
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

    /// Waits for the outcomes of all parts that were sent, and concludes the answer.
    async fn answer(self) -> Answer {
        // The parts have charges of their own; the body is gone.
        drop(self.charge);
        let mut outcomes: Vec<Outcome> = self.ticket.outcomes().await;
        for (part, outcome) in self.sent.iter().zip(&mut outcomes).filter(|(_, o)| o.is_delivered()) {
            outcome.written = outcome.written.or(part.written);
        }
        let tenants = self.sent.iter().map(|part| &part.tenant);
        let destination = self.protocol.destination();
        let answer = conclude(destination, tenants.zip(&outcomes), &self.refused, self.plan.accept_all);
        let answer = answer.with_wait_at_most(self.plan.retry_after_max);
        if answer.invites_retry() {
            let delivered = self.sent.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_delivered());
            delivered.for_each(|(part, outcome)| self.ingest.remember(self.protocol, part, outcome));
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
