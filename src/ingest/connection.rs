//! The loop of an inbound connection: wait for a request, read and route its head, read its body, answer.
//!
//! Design constraints:
//! - An idle connection holds no buffer; see [`buffers`](crate::io::buffers).
//! - Pipelined requests are processed one at a time, so they are answered in order.
//! - A request that its head alone rules out is refused before its body is read. A connection whose framing is in
//!   doubt is closed, because the start of the next request is unknown.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Ingest;
use super::close::discard_before_close;
use super::credential::{Credential, Standing};
use super::note::Note;
use super::push::Push;
use super::routes::{Route, route, taken};
use crate::auth::Authorization;
use crate::config::plan::Plan;
use crate::format::format;
use crate::http::body::ChunkDecoder;
use crate::http::head::{Framing, Media, Method, RequestHead};
use crate::http::refusal::Refusal;
use crate::http::reply;
use crate::http::sender::Sender;
use crate::io::deadline::{Cut, Idle};
use crate::io::stream::Stream;
use crate::io::tasks::{pause, poll_noting_wait};
use crate::limits::{
    CLOSE_DISCARD_MILLIS, DISCARD_BUFFER_BYTES, DRAIN_FIRST_REQUEST_MILLIS, HEAD_BUFFER_BYTES,
    OVERLOAD_DISCARD_BYTES_MAX, REQUESTS_PER_TURN_MAX,
};
use crate::model::{Answer, Notation, Signal};
use crate::shared::budget::Charge;
use crate::shared::connections::ConnectionGuard;
use crate::verdict::otlp;

/// Why a connection ends with this request.
enum RequestError {
    /// The peer has disconnected, or no answer is due. The connection closes without one.
    Disconnected,
    /// The request is refused. The connection closes after the answer.
    Refused(Refusal),
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// An inbound connection.
pub(super) struct Connection {
    ingest: Rc<Ingest>,
    stream: Stream,
    /// What its TLS has proved.
    standing: Standing,
    /// Bytes that were received and not processed yet.
    received: Vec<u8>,
    /// The part of the request that is being read, for [`Refusal::Timeout`].
    awaiting: &'static str,
    /// The kind of sender of the current request.
    sender: Sender,
    /// What it exports by OTLP, if it does. Its answer is one of OTLP, whatever it says.
    export: Option<(Signal, Notation)>,
    /// The notes about the current request, for the access log and traces.
    note: Option<Box<Note>>,
    /// Whether the next wait is for the connection's first request.
    idle: Idle,
}

/// A request whose head has been read.
struct Request {
    head: RequestHead,
    route: Result<Route, Refusal>,
    /// The value of the inbound tenant header.
    source: Option<Vec<u8>>,
    authorization: Authorization,
}

impl Request {
    /// What it exports by OTLP, if it does.
    fn export(&self) -> Option<(Signal, Notation)> {
        let Ok(Route::Push(destination)) = self.route else { return None };
        let notation = if self.head.media == Media::Json { Notation::Json } else { Notation::Protobuf };
        Some((destination.signal()?, notation))
    }
}

/// A request that has been read, and what remains to do for it.
enum Received {
    /// Split the push and forward its parts.
    Push(Box<Push>),
    /// Write this answer.
    Answer(Answer),
    /// Nothing: the answer has been written.
    AlreadyAnswered,
}

impl Ingest {
    /// Starts a task that serves a connection until it ends. `guard` counts the connection until then.
    pub fn serve(self: &Rc<Self>, socket: OwnedFd, guard: ConnectionGuard) {
        let ingest = Rc::clone(self);
        self.tasks.spawn(async move {
            match Stream::accepted(socket, ingest.blocking, &ingest.deadlines) {
                Ok(mut stream) => {
                    // Boxed: a connection lives for long after it.
                    if let Some(standing) = Box::pin(ingest.secure(&mut stream)).await {
                        Connection::new(ingest, stream, standing).run().await;
                    }
                }
                Err(error) => tracing::debug!(%error, "a connection failed before it was served"),
            }
            drop(guard);
        });
    }
}

impl Connection {
    /// Creates the state of a connection that was just accepted.
    pub(super) fn new(ingest: Rc<Ingest>, stream: Stream, standing: Standing) -> Self {
        let sender = Sender::default();
        let (received, idle) = (Vec::new(), Idle::First);
        Self { ingest, stream, standing, received, awaiting: "head", sender, export: None, note: None, idle }
    }

    /// Answers requests until the connection ends.
    pub(super) async fn run(mut self) {
        self.ingest.counters().connections_open.up();
        let mut without_waiting = 0;
        loop {
            // Boxed, so that an idle connection stays small. This costs one allocation per request.
            let next = async { self.wait_for_request().await && Box::pin(self.serve_request()).await };
            let (continues, waited) = poll_noting_wait(next).await;
            if !continues {
                break;
            }
            without_waiting = if waited { 0 } else { without_waiting + 1 };
            if without_waiting == REQUESTS_PER_TURN_MAX {
                without_waiting = 0;
                pause().await;
            }
        }
        let ingest = Rc::clone(&self.ingest);
        if self.stream.expired() && !ingest.is_draining() {
            ingest.counters().connections_timed_out.add(1);
        }
        ingest.buffers.put(std::mem::take(&mut self.received));
        drop(self);
        ingest.counters().connections_open.down();
    }

    /// Reads and answers a request whose first byte has arrived. Returns whether another request may follow.
    async fn serve_request(&mut self) -> bool {
        let arrived = Instant::now();
        self.awaiting = "head";
        // One plan from the first byte to the answer, even if a reload happens meanwhile.
        let plan = self.ingest.plan();
        self.stream.set_deadline(arrived + plan.timeout, Cut::Read);
        self.export = None;
        let request = match self.read_head(&plan).await {
            Ok(request) => request,
            Err(error) => {
                self.sender = Sender::of_bad_head(&self.received);
                self.note = self.ingest.note(arrived, None, &plan);
                return self.end(error, &plan, false).await;
            }
        };
        self.sender = request.head.sender;
        self.export = request.export();
        self.note = self.ingest.note(arrived, request.head.passed.as_deref(), &plan);
        let (head_only, keep_alive) = (request.head.method == Method::Head, request.head.keep_alive);
        let answer = match self.receive(request, arrived, &plan).await {
            Ok(Received::Push(push)) => {
                let (answer, note) = self.ingest.push(*push).await;
                self.note = note;
                answer
            }
            Ok(Received::Answer(answer)) => answer,
            Ok(Received::AlreadyAnswered) => return true,
            Err(error) => return self.end(error, &plan, head_only).await,
        };
        self.reply(answer, &plan, keep_alive, head_only).await
    }

    /// Waits, without a buffer, until a request begins. Returns false if the connection ends first.
    async fn wait_for_request(&mut self) -> bool {
        if !self.received.is_empty() {
            return true;
        }
        self.ingest.buffers.put(std::mem::take(&mut self.received));
        let (draining, idle) = (self.ingest.is_draining(), std::mem::replace(&mut self.idle, Idle::Next));
        let timeout = match draining {
            true => Duration::from_millis(DRAIN_FIRST_REQUEST_MILLIS),
            false => self.ingest.plan.load().idle_timeout,
        };
        self.stream.set_deadline(Instant::now() + timeout, Cut::Read);
        if (draining && idle == Idle::Next) || self.stream.idle(idle).await.is_err() {
            return false;
        }
        // An idle connection that timed out closes without an answer: no request had begun. While draining, one may
        // have begun before the cut.
        if self.stream.expired() && !self.ingest.is_draining() {
            return false;
        }
        if self.stream.session().is_some() {
            // The bytes that have come may be a part of a record. The rest of it has as long as a head has.
            let timeout = self.ingest.plan.load().timeout;
            self.stream.set_deadline(Instant::now() + timeout, Cut::Read);
        }
        self.received = self.ingest.buffers.take(HEAD_BUFFER_BYTES);
        matches!(self.read_more().await, Ok(()))
    }

    /// Reads a request's head and removes it from the received bytes.
    async fn read_head(&mut self, plan: &Plan) -> Result<Request, RequestError> {
        loop {
            let limit = plan.limits.head_bytes_max;
            let tenant_header = plan.terms.tenant_header.inbound();
            match RequestHead::parse_passing(&self.received, tenant_header, &plan.pass_headers)? {
                Some((_, bytes)) if bytes > limit => return Err(Refusal::HeadTooLarge { limit }.into()),
                Some((head, bytes)) => return Ok(self.take_head(head, bytes, plan)),
                None if self.received.len() >= limit => return Err(Refusal::HeadTooLarge { limit }.into()),
                None => self.read_more().await?,
            }
        }
    }

    fn take_head(&mut self, head: RequestHead, bytes: usize, plan: &Plan) -> Request {
        let path = self.received.get(head.path.clone()).unwrap_or_default();
        let route = route(head.method, path);
        let source =
            head.source_tenant.clone().and_then(|range| self.received.get(range)).map(<[u8]>::to_vec);
        let authorization = match plan.auth.authenticator() {
            Some(authenticator) if authenticator.has_methods() => {
                Authorization::parse(head.authorization.clone().and_then(|range| self.received.get(range)))
            }
            _ => Authorization::Absent,
        };
        self.received.drain(..bytes);
        Request { head, route, source, authorization }
    }

    /// Reads the rest of a request, or refuses it by its head alone where that is possible.
    async fn receive(
        &mut self,
        request: Request,
        arrived: Instant,
        plan: &Arc<Plan>,
    ) -> Result<Received, RequestError> {
        let Request { head, route, source, authorization } = request;
        let destination = match route? {
            Route::Alive => {
                require_no_body(&head)?;
                // Probes would fill the log.
                self.note = None;
                return Ok(Received::Answer(alive(self.ingest.shared.is_shutting_down())));
            }
            Route::Push(destination) => taken(destination, plan)?,
        };
        let credential = match self.authenticate(&authorization, arrived + plan.timeout, plan).await {
            Ok(credential) => credential,
            Err(refusal) => {
                self.ingest.log_denial(self.stream.peer(), &refusal);
                // A client that is refused must not decide what is traced.
                self.note.iter_mut().for_each(|note| note.forget_trace());
                self.refuse_by_head(&head, refusal, plan).await?;
                return Ok(Received::AlreadyAnswered);
            }
        };
        let takes_v2 = plan.remote_write_v2.is_some();
        let (protocol, compression) = format(destination, head.media, head.encoding, takes_v2)?;
        if let Some(note) = &mut self.note {
            note.protocol = Some(protocol);
        }
        if let Err(refusal) = self.ingest.admit(&head, plan) {
            self.refuse_by_head(&head, refusal, plan).await?;
            return Ok(Received::AlreadyAnswered);
        }
        let (body, body_charge) = self.read_body(&head, plan).await?;
        let request_charge = match self.ingest.reserve_request() {
            Ok(charge) => charge,
            Err(refusal) => return Ok(Received::Answer(Answer::from(&refusal))),
        };
        // The rest of the time is spent on the upstream, where each attempt has its own deadline.
        self.stream.clear_deadline();
        let client = self.stream.peer();
        let (passed, plan) = (head.passed, Arc::clone(plan));
        let mut note = self.note.take();
        if let Some(note) = &mut note {
            note.bytes = body.len();
        }
        Ok(Received::Push(Box::new(Push {
            plan,
            protocol,
            compression,
            body,
            body_charge,
            request_charge,
            source,
            credential,
            passed,
            client,
            arrived,
            note,
        })))
    }

    async fn authenticate(
        &self,
        authorization: &Authorization,
        deadline: Instant,
        plan: &Plan,
    ) -> Result<Credential, Refusal> {
        self.ingest.authenticate(authorization, &self.standing, &self.stream, deadline, plan).await
    }

    /// Refuses a request without reading its body first. After a refusal for overload, the connection stays open if the
    /// body is small and arrives soon: the body is discarded. Under overload this is cheaper for both sides than a new
    /// connection.
    async fn refuse_by_head(
        &mut self,
        head: &RequestHead,
        refusal: Refusal,
        plan: &Plan,
    ) -> Result<(), RequestError> {
        let length = match head.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::None => 0,
            Framing::Chunked => usize::MAX,
        };
        let overloaded = matches!(refusal, Refusal::Overloaded { .. });
        if !overloaded || head.expect_continue || length > OVERLOAD_DISCARD_BYTES_MAX {
            return Err(refusal.into());
        }
        self.ingest.count_refusal(&refusal);
        if !self.reply(Answer::from(&refusal), plan, head.keep_alive, false).await {
            discard_before_close(&mut self.stream, &self.ingest.buffers).await;
            return Err(RequestError::Disconnected);
        }
        self.stream.set_deadline(Instant::now() + Duration::from_millis(CLOSE_DISCARD_MILLIS), Cut::Read);
        self.discard(length).await
    }

    /// Reads and discards `length` bytes. Holds no buffer while it waits for them.
    async fn discard(&mut self, length: usize) -> Result<(), RequestError> {
        let here = self.received.len().min(length);
        self.received.drain(..here);
        let mut left = length - here;
        while left > 0 {
            self.stream.idle(Idle::No).await.map_err(|_| RequestError::Disconnected)?;
            let buffer = self.ingest.buffers.take(DISCARD_BUFFER_BYTES);
            let end = buffer.capacity().min(left);
            let (result, buffer) = self.stream.read_up_to(buffer, end).await;
            left -= buffer.len();
            self.ingest.buffers.put(buffer);
            // The request has been answered, so an error only ends the connection.
            result.ok().filter(|&n| n > 0).ok_or(RequestError::Disconnected)?;
        }
        Ok(())
    }

    /// Reads the body, and charges it to the budget as it arrives.
    async fn read_body(
        &mut self,
        head: &RequestHead,
        plan: &Plan,
    ) -> Result<(Vec<u8>, Charge), RequestError> {
        let mut charge = self.ingest.shared.bytes.no_charge();
        self.awaiting = "body";
        self.stream.set_deadline(Instant::now() + plan.timeout, Cut::Read);
        if head.expect_continue && self.received.is_empty() {
            let (result, _) = self.stream.write_all(reply::CONTINUE.to_vec()).await;
            result.map_err(|_| RequestError::Disconnected)?;
        }
        let body = match head.framing {
            Framing::None => Vec::new(),
            Framing::Length(length) => self.read_sized_body(length, &mut charge).await?,
            Framing::Chunked => self.read_chunked_body(&mut charge, plan).await?,
        };
        Ok((body, charge))
    }

    /// Reads a body of a known length.
    async fn read_sized_body(&mut self, length: u64, charge: &mut Charge) -> Result<Vec<u8>, RequestError> {
        // Admission has checked the length against the limit.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let here = self.received.len().min(length);
        let mut body = Vec::with_capacity(length);
        body.extend(self.received.drain(..here));
        // The rest is read directly into `body`, so the buffer is free for other connections.
        if self.received.is_empty() && body.len() < length {
            self.ingest.buffers.put(std::mem::take(&mut self.received));
        }
        let mut charged = 0;
        loop {
            if !charge.grow(body.len() - charged) {
                return Err(self.ingest.out_of_memory().into());
            }
            charged = body.len();
            if charged == length {
                return Ok(body);
            }
            // A Vec's capacity may exceed `length`; bytes beyond it belong to the next request.
            let (result, filled) = self.stream.read_up_to(body, length).await;
            body = filled;
            self.check_read(result)?;
        }
    }

    /// Reads a body in chunks.
    async fn read_chunked_body(&mut self, charge: &mut Charge, plan: &Plan) -> Result<Vec<u8>, RequestError> {
        let mut decoder = ChunkDecoder::new(plan.limits.body_bytes_max);
        let mut body = Vec::new();
        loop {
            let before = body.len();
            let (consumed, done) = decoder.decode(&self.received, &mut body)?;
            self.received.drain(..consumed);
            if !charge.grow(body.len() - before) {
                return Err(self.ingest.out_of_memory().into());
            }
            if done {
                return Ok(body);
            }
            self.read_more().await?;
        }
    }

    /// Receives more bytes.
    async fn read_more(&mut self) -> Result<(), RequestError> {
        let mut buffer = std::mem::take(&mut self.received);
        if buffer.capacity() == 0 {
            buffer = self.ingest.buffers.take(HEAD_BUFFER_BYTES);
        }
        if buffer.len() == buffer.capacity() {
            buffer.reserve(HEAD_BUFFER_BYTES);
        }
        let (result, buffer) = self.stream.read(buffer).await;
        self.received = buffer;
        self.check_read(result)
    }

    fn check_read(&self, result: std::io::Result<usize>) -> Result<(), RequestError> {
        match result {
            Ok(n) if n > 0 => Ok(()),
            _ if self.stream.expired() && !self.ingest.is_draining() => {
                Err(Refusal::Timeout(self.awaiting).into())
            }
            _ => Err(RequestError::Disconnected),
        }
    }

    /// Ends the connection after a failed request: answers a refusal, and counts it. Returns false, as no other request
    /// may follow.
    async fn end(&mut self, error: RequestError, plan: &Plan, head_only: bool) -> bool {
        if let RequestError::Refused(refusal) = error {
            self.ingest.count_refusal(&refusal);
            let mut answer = Answer::from(&refusal);
            answer.close = true;
            self.reply(answer, plan, false, head_only).await;
            discard_before_close(&mut self.stream, &self.ingest.buffers).await;
        }
        false
    }

    /// Writes the answer, with the status that this kind of sender understands. Returns whether another request may
    /// follow.
    async fn reply(&mut self, answer: Answer, plan: &Plan, keep_alive: bool, head_only: bool) -> bool {
        let mut answer = self.sender.adapt(answer);
        if let Some((signal, notation)) = self.export {
            answer = otlp::worded(answer, signal, notation);
        }
        // During shutdown every answer closes its connection, so that the sender's next one reaches our successor.
        let shutting_down = self.ingest.shared.is_shutting_down() || self.ingest.is_draining();
        let keep_alive = keep_alive && !answer.close && !shutting_down;
        let mut out = self.ingest.buffers.take(HEAD_BUFFER_BYTES);
        reply::write(&mut out, &answer, plan.auth.header_lines(), keep_alive, head_only);
        self.ingest.counters().replied(answer.status);
        self.stream.set_deadline(Instant::now() + plan.timeout, Cut::Both);
        let (result, out) = self.stream.write_all(out).await;
        self.ingest.buffers.put(out);
        if let Some(note) = self.note.take() {
            self.ingest.note_answer(&note, answer.status, self.stream.peer(), plan);
        }
        result.is_ok() && keep_alive
    }
}

/// Refuses a request with a body.
fn require_no_body(head: &RequestHead) -> Result<(), Refusal> {
    match head.framing {
        Framing::None | Framing::Length(0) => Ok(()),
        _ => Err(Refusal::BadRequest("this path takes no body")),
    }
}

/// The answer to `/alive`.
fn alive(shutting_down: bool) -> Answer {
    if shutting_down { Answer::from(&Refusal::Draining) } else { Answer::ok() }
}
