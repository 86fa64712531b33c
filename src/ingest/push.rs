//! Processing of a push request: admit it by its head, split it, send its parts, and conclude the answer.
//!
//! CPU work happens here, on the core that has the bytes in its cache. A tenant's home core receives parts that are
//! ready to be sent. A request with a large inflated body yields to other tasks between its parts.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Ingest;
use super::announcements::Announcements;
use super::credential::Credential;
use super::dispatch::Dispatch;
use super::note::Note;
use super::pending::Ticket;
use super::tapped::{Request, Tapped};
use crate::config::plan::Plan;
use crate::exchange::fragment::RequestId;
use crate::http::Passed;
use crate::http::head::{Framing, RequestHead};
use crate::http::refusal::Refusal;
use crate::limits::{FRAGMENTS_IN_FLIGHT_MAX, SPLITTERS_KEPT_MAX};
use crate::metrics::{Exemplar, Rejection, Unstored};
use crate::model::{Answer, MetadataRule, Protocol};
use crate::shared::budget::Charge;
use crate::split::{Body, Compression, Lost, Metadata, Scan, SplitError, SplitRules, Splitter};
use crate::tenant::{Grant, TenantError};
use crate::trace::Traced;

/// A push request that was read completely.
pub(super) struct Push {
    /// The plan at the time of its first byte.
    pub(super) plan: Arc<Plan>,
    /// The format of its body.
    pub(super) protocol: Protocol,
    /// The compression of its body.
    pub(super) compression: Compression,
    /// The body.
    pub(super) body: Vec<u8>,
    /// The body's share of the memory budget.
    pub(super) body_charge: Charge,
    /// Its place among the `concurrency` requests in flight.
    pub(super) request_charge: Charge,
    /// The value of the inbound tenant header.
    pub(super) source: Option<Vec<u8>>,
    /// The sender's credential, and what it may write.
    pub(super) credential: Credential,
    /// Headers to forward to the upstream.
    pub(super) passed: Option<Arc<Passed>>,
    /// The sender's address.
    pub(super) client: SocketAddr,
    /// The time of its first byte.
    pub(super) arrived: Instant,
    /// What is noted about it, if anything is.
    pub(super) note: Option<Box<Note>>,
}

/// What a scan has found, and the room for its parts.
struct Prepared {
    scan: Scan,
    /// Samples of all its parts.
    unsent: u64,
    traced: Option<Box<Traced>>,
    ticket: Ticket,
}

impl Ingest {
    /// Checks by its head whether a request can be admitted. This happens before its body is read, so that load
    /// shedding is cheap. It reserves nothing: a client that sends a head but no body must not keep others out.
    ///
    /// # Errors
    /// [`Refusal::BodyTooLarge`] or [`Refusal::Overloaded`].
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

    /// Reserves a place among the `concurrency` requests in flight, for a request that was read completely.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`].
    pub(super) fn reserve_request(&self) -> Result<Charge, Refusal> {
        self.shared.requests.charge(1).ok_or_else(|| self.too_many_requests())
    }

    fn too_many_requests(&self) -> Refusal {
        self.counters().rejected(Rejection::Concurrency);
        Refusal::Overloaded { why: "too many requests in flight (setting `concurrency`)" }
    }

    /// Counts and returns a refusal for lack of memory budget.
    pub(super) fn out_of_memory(&self) -> Refusal {
        self.counters().rejected(Rejection::Memory);
        Refusal::Overloaded { why: "too many bytes in flight (setting `limits.in_flight_bytes_max`)" }
    }

    /// Counts a refusal. An [`Refusal::Overloaded`] was counted already, where the exhausted limit was known.
    pub(super) fn count_refusal(&self, refusal: &Refusal) {
        let rejection = match refusal {
            Refusal::BadRequest(_) => Rejection::BadRequest,
            Refusal::NotFound | Refusal::NoTarget { .. } => Rejection::NotFound,
            Refusal::MethodNotAllowed { .. } => Rejection::Method,
            Refusal::Timeout(_) => Rejection::Timeout,
            Refusal::BodyTooLarge { .. } => Rejection::BodyTooLarge,
            Refusal::HeadTooLarge { .. } | Refusal::TooManyFields => Rejection::HeadTooLarge,
            Refusal::RemoteWriteV2 => {
                self.warn_of_refused_v2();
                Rejection::Media
            }
            Refusal::UnsupportedMedia { .. } => Rejection::Media,
            Refusal::UnsupportedEncoding { .. } => Rejection::Encoding,
            Refusal::Unauthorized { .. } => Rejection::Unauthorized,
            Refusal::Forbidden { .. } => Rejection::DeniedTenant,
            Refusal::Renewed => Rejection::Renewed,
            Refusal::Draining => Rejection::Draining,
            Refusal::Overloaded { .. } => return,
        };
        self.counters().rejected(rejection);
    }

    /// Warns the operator: a sender that does not fall back to 1.0 has just lost data, possibly without logging it.
    fn warn_of_refused_v2(&self) {
        if let Some(suppressed) = self.limiter.borrow_mut().allow("", Instant::now()) {
            tracing::warn!(
                suppressed,
                "a Remote Write 2.0 request was refused (remote_write_v2 is refuse): Prometheus 3 does not fall back \
                 to 1.0, it drops what it sent"
            );
        }
    }

    /// Splits a request, sends its parts to their home cores, and waits for their outcomes.
    /// Returns the notes with the answer.
    pub(super) async fn push(self: &Rc<Self>, mut push: Push) -> (Answer, Option<Box<Note>>) {
        let (arrived, mut note) = (push.arrived, push.note.take());
        let began = note.is_some().then(Instant::now);
        let counters = self.counters();
        counters.requests.add(1);
        self.count_request_of(push.client.ip());
        counters.batch_bytes.of(push.protocol.destination()).observe(push.body.len() as f64);
        let mut splitter = self.splitters.borrow_mut().pop().unwrap_or_default();
        let mut request_id = None;
        let answer = match self.prepare(&mut splitter, push, note.as_deref_mut()).await {
            Ok((mut dispatch, inflated)) => {
                request_id = Some(dispatch.request_id);
                loop {
                    if self.tasks.are_busy() {
                        dispatch.ring();
                        self.tasks.yield_if_busy().await;
                        dispatch.start_by = Instant::now() + dispatch.plan.timeout;
                    }
                    let Some(part) = dispatch.next_part(&mut splitter) else { break };
                    self.tasks.record_work(splitter.work());
                    dispatch.send(part);
                }
                dispatch.ring();
                drop(inflated);
                if let (Some(note), Some(began)) = (&note, began) {
                    self.note_split(note, began);
                }
                self.keep_splitter(splitter);
                dispatch.answer().await
            }
            Err(answer) => {
                splitter.release();
                self.keep_splitter(splitter);
                answer
            }
        };
        self.observe_duration(arrived, request_id);
        (answer, note)
    }

    /// Counts a request that was read from this address.
    fn count_request_of(&self, address: IpAddr) {
        let place = self.senders.borrow_mut().place(address, &self.metrics);
        self.metrics.count_request_of(self.core(), place);
    }

    /// Counts samples of such a request.
    fn count_samples_of(&self, address: IpAddr, samples: u64) {
        let place = self.senders.borrow_mut().place(address, &self.metrics);
        self.metrics.count_samples_of(self.core(), place, samples);
    }

    /// Counts the time since a request's head. A request without parts has no ID.
    fn observe_duration(&self, arrived: Instant, request_id: Option<RequestId>) {
        let (now, duration) = (Instant::now(), &self.counters().request_duration);
        let seconds = (now - arrived).as_secs_f64();
        match request_id {
            Some(RequestId(id)) => duration.observe_as(&Exemplar::new(id, seconds, now)),
            None => duration.observe(seconds),
        }
    }

    /// Scans a request and reserves room for its parts. The returned charge is for the inflated body until it is split.
    async fn prepare(
        &self,
        splitter: &mut Splitter,
        mut push: Push,
        note: Option<&mut Note>,
    ) -> Result<(Dispatch<'_>, Charge), Answer> {
        let (protocol, compression) = (push.protocol, push.compression);
        let body = Body { protocol, compression, bytes: std::mem::take(&mut push.body).into() };
        self.tasks.yield_if_busy().await;
        let request_id = note.as_deref().map_or_else(|| self.request_id(), |note| note.request_id);
        let is_tapped = self.shared.taps.are_open();
        let tapped = if is_tapped { self.look_for_taps(&push, &body, request_id) } else { None };
        match self.reserve(splitter, body, &push, is_tapped, note) {
            Ok((prepared, inflated)) => {
                Ok((self.dispatch(push, prepared, request_id, tapped.map(Box::new)), inflated))
            }
            Err(answer) => {
                tapped.into_iter().for_each(|tapped| tapped.refused(&answer));
                Err(answer)
            }
        }
    }

    /// Finds the series of a request that somebody watches.
    fn look_for_taps(&self, push: &Push, body: &Body, request_id: RequestId) -> Option<Tapped> {
        let Push { plan, source, credential, client, arrived, .. } = push;
        let request = Request {
            plan,
            body: body.clone(),
            source: source.as_deref(),
            grant: &credential.grant,
            client: *client,
            arrived: *arrived,
            request_id,
        };
        Tapped::find(&self.shared.taps, request)
    }

    /// Scans a body, counts what it holds, and reserves memory for it and places for its parts.
    fn reserve(
        &self,
        splitter: &mut Splitter,
        body: Body,
        push: &Push,
        is_tapped: bool,
        note: Option<&mut Note>,
    ) -> Result<(Prepared, Charge), Answer> {
        let Push { plan, source, credential, client, .. } = push;
        let scanned = self.scan(splitter, body, source.as_deref(), &credential.grant, plan);
        // Refused bodies take their time, too. Taps have read them before.
        self.tasks.record_work(splitter.work() * if is_tapped { 4 } else { 1 });
        let scan = scanned.map_err(|e| {
            self.counters().rejected(rejection_of(&e));
            if matches!(rejection_of(&e), Rejection::DeniedTenant) {
                self.log_denied_tenant(*client, credential, &e.to_string());
            }
            Answer::from(&e)
        })?;
        // Not every compression declares the inflated size, so it is charged only now. Until here a core may hold one
        // inflated body beyond the budget.
        let inflated = self.shared.bytes.charge(scan.inflated_bytes);
        let inflated = inflated.ok_or_else(|| Answer::from(&self.out_of_memory()))?;
        self.count_scan(&scan);
        self.count_samples_of(client.ip(), scan.samples);
        let traced = note.and_then(|note| {
            note.scanned(&scan);
            note.traced().map(Box::new)
        });
        let unsent = self.enter_in_ledger(&scan);
        if let Some(example) = scan.refused.example.as_deref().filter(|_| scan.refused.denied > 0) {
            self.log_denied_tenant(*client, credential, example);
        }
        let ticket = self.pending.open(scan.tenants, FRAGMENTS_IN_FLIGHT_MAX).ok_or_else(|| {
            self.counters().rejected(Rejection::Fragments);
            self.counters().ledger_open.down_by(unsent);
            self.counters().ledger_refused.add(Unstored::Overloaded, unsent);
            Answer::from(&Refusal::Overloaded { why: "too many fragments in flight" })
        })?;
        Ok((Prepared { scan, unsent, traced, ticket }, inflated))
    }

    /// Puts together what sending the parts of a request needs.
    fn dispatch(
        &self,
        push: Push,
        prepared: Prepared,
        request_id: RequestId,
        tapped: Option<Box<Tapped>>,
    ) -> Dispatch<'_> {
        let Prepared { scan, unsent, traced, ticket } = prepared;
        let start_by = Instant::now() + push.plan.timeout;
        Dispatch {
            ingest: self,
            plan: push.plan,
            credential: push.credential,
            protocol: push.protocol,
            ticket,
            body_charge: push.body_charge,
            unsent,
            announcements: Announcements::new(scan.inflated_bytes),
            start_by,
            _request_charge: push.request_charge,
            source: push.source,
            passed: push.passed,
            client: push.client,
            arrived: push.arrived,
            request_id,
            traced,
            tapped,
            receipts: (scan.tenants > 1).then_some(self.shared.receipt_key),
            refused: scan.refused,
            sent: Vec::with_capacity(scan.tenants),
            held: Vec::new(),
        }
    }

    fn scan(
        &self,
        splitter: &mut Splitter,
        body: Body,
        source: Option<&[u8]>,
        grant: &Grant,
        plan: &Plan,
    ) -> Result<Scan, SplitError> {
        let rules = SplitRules {
            tenant: plan.tenant_rules(body.protocol.destination()),
            grant,
            metadata: self.metadata(plan),
            ha: plan.merge.ha_labels.as_ref(),
            loki_label_remove: plan.loki_label_remove,
            remote_write_v2: plan.remote_write_v2.unwrap_or_default(),
            limits: plan.split_limits(),
        };
        // A header value that is not UTF-8 is not a valid tenant ID. Its lossy form is not one, either.
        let source = source.map(String::from_utf8_lossy);
        splitter.scan(body, &rules, source.as_deref())
    }

    fn metadata(&self, plan: &Plan) -> Metadata<'_> {
        match plan.metadata {
            MetadataRule::Drop => Metadata::Drop,
            MetadataRule::ToDefault => Metadata::ToDefault,
            MetadataRule::Route => {
                self.shared.families.rotate(Instant::now());
                Metadata::Route(&self.shared.families)
            }
        }
    }

    fn count_scan(&self, scan: &Scan) {
        let counters = self.counters();
        counters.inflated_bytes.add(scan.inflated_bytes as u64);
        counters.series.add(scan.series);
        counters.samples.add(scan.samples);
        counters.series_dropped_missing.add(scan.refused.missing);
        counters.series_dropped_invalid.add(scan.refused.invalid);
        counters.series_dropped_denied.add(scan.refused.denied);
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
        counters.fragments.add(scan.tenants as u64);
    }

    /// Enters a request's samples in the ledger. Returns how many of them its parts have.
    fn enter_in_ledger(&self, scan: &Scan) -> u64 {
        let counters = self.counters();
        let refused = [
            (Unstored::NoTenant, scan.refused.samples),
            (Unstored::Mapped, scan.refused.dropped_samples),
            (Unstored::Downgraded, scan.lost.custom_histograms),
        ];
        refused.iter().for_each(|&(reason, samples)| counters.ledger_refused.add(reason, samples));
        let unsent = refused.iter().fold(scan.samples, |left, (_, samples)| left.wrapping_sub(*samples));
        counters.ledger_received.add(scan.samples);
        counters.ledger_open.up_by(unsent);
        unsent
    }

    fn keep_splitter(&self, splitter: Splitter) {
        let mut splitters = self.splitters.borrow_mut();
        if splitters.len() < SPLITTERS_KEPT_MAX {
            splitters.push(splitter);
        }
    }

    /// Returns a random UUID (RFC 9562 version 4).
    pub(super) fn request_id(&self) -> RequestId {
        let random = RandomState::new();
        let id = (u128::from(random.hash_one(0u8)) << 64) | u128::from(random.hash_one(1u8));
        let version_and_variant = (0x4u128 << 76) | (0x2u128 << 62);
        RequestId(id & !((0xfu128 << 76) | (0x3u128 << 62)) | version_and_variant)
    }
}

fn rejection_of(error: &SplitError) -> Rejection {
    match error {
        SplitError::Tenant { error: TenantError::Missing { .. }, .. } => Rejection::MissingTenant,
        SplitError::Tenant { error: TenantError::Invalid { .. }, .. } => Rejection::InvalidTenant,
        SplitError::Tenant { error: TenantError::Denied { .. }, .. } => Rejection::DeniedTenant,
        SplitError::Inflate(error) if error.is_too_large() => Rejection::BodyTooLarge,
        _ => Rejection::Malformed,
    }
}
