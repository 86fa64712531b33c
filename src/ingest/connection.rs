//! The life of an inbound connection: wait, read a head, route it, read its body, answer, and again.
//!
//! Design constraints:
//! - An idle connection holds no buffer; see [`buffers`](crate::io::buffers).
//! - Requests that are pipelined are answered in their order: they are simply taken one after the other.
//! - What can be refused by its head is refused before its body is read. A connection whose framing is in doubt is
//!   closed, as nobody can say where the next request would begin.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Ingest;
use super::push::{self, Push};
use super::routes::{Route, route};
use crate::config::plan::Plan;
use crate::http::body::ChunkDecoder;
use crate::http::head::{Framing, Method, RequestHead};
use crate::http::refusal::Refusal;
use crate::http::reply;
use crate::http::sender::Sender;
use crate::io::deadline::{Cut, Idle};
use crate::io::stream::Stream;
use crate::io::tasks::{pause, tell_whether_waiting};
use crate::limits::{
    FAREWELL_BYTES_MAX, FAREWELL_MILLIS, HEAD_BUFFER_BYTES, LAST_CALL_MILLIS, REQUESTS_AT_ONCE_MAX,
    SHED_BODY_BYTES_MAX, SHED_BUFFER_BYTES,
};
use crate::model::{Answer, Destination};
use crate::shared::budget::Charge;
use crate::shared::connections::ConnectionGuard;

/// Why a connection ends with this request.
enum Stop {
    /// There is nobody to talk to any more.
    Gone,
    /// This is to be said first.
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

pub(super) struct Connection {
    ingest: Rc<Ingest>,
    stream: Stream,
    /// What has been read and not been used yet.
    read: Vec<u8>,
    /// The part of a request that is being waited for.
    awaiting: &'static str,
    /// Who sends the request that it is at.
    sender: Sender,
    /// How it waits for a request.
    idle: Idle,
}

/// A request of which the head has been read.
struct Request {
    head: RequestHead,
    route: Result<Route, Refusal>,
    /// The value of the inbound tenant header.
    source: Option<Vec<u8>>,
}

/// What is to be done for a request that has been read.
enum Next {
    /// Split it and forward its parts.
    Push(Box<Push>),
    /// Write this.
    Answer(Answer),
    /// Nothing: it has been answered.
    Answered,
}

impl Ingest {
    /// Serves a connection until it ends. `guard` counts it until then.
    pub fn serve(self: &Rc<Self>, socket: OwnedFd, guard: ConnectionGuard) {
        let ingest = Rc::clone(self);
        self.tasks.spawn(async move {
            match Stream::accepted(socket, ingest.blocking, &ingest.deadlines) {
                Ok(stream) => Connection::new(ingest, stream).run().await,
                Err(error) => tracing::debug!(%error, "a connection was lost before it was served"),
            }
            drop(guard);
        });
    }
}

impl Connection {
    /// A connection that has just been accepted.
    pub(super) fn new(ingest: Rc<Ingest>, stream: Stream) -> Self {
        let sender = Sender::default();
        Self { ingest, stream, read: Vec::new(), awaiting: "head", sender, idle: Idle::First }
    }

    /// Answers one request after the other until the connection ends.
    pub(super) async fn run(mut self) {
        self.ingest.counters().connections_open.up();
        let mut at_once = 0;
        loop {
            // Boxed, so that a connection is small while it waits: an allocation for each request, none for an idle
            // one.
            let next = async { self.wait_for_request().await && Box::pin(self.request()).await };
            let (goes_on, waited) = tell_whether_waiting(next).await;
            if !goes_on {
                break;
            }
            at_once = if waited { 0 } else { at_once + 1 };
            if at_once == REQUESTS_AT_ONCE_MAX {
                at_once = 0;
                pause().await;
            }
        }
        let ingest = Rc::clone(&self.ingest);
        if self.stream.expired() && !ingest.is_draining() {
            ingest.counters().connections_timed_out.add(1);
        }
        ingest.buffers.put(std::mem::take(&mut self.read));
        drop(self);
        ingest.counters().connections_open.down();
    }

    /// Reads a request that has begun, and answers it. Whether another may follow.
    async fn request(&mut self) -> bool {
        let arrived = Instant::now();
        self.awaiting = "head";
        // One plan from the first byte to the answer, whatever is reloaded meanwhile.
        let plan = self.ingest.plan();
        self.stream.set_deadline(arrived + plan.timeout, Cut::Read);
        let request = match self.head(&plan).await {
            Ok(request) => request,
            Err(stop) => {
                self.sender = Sender::of_bad_head(&self.read);
                return self.end(stop, &plan, false).await;
            }
        };
        self.sender = request.head.sender;
        let (head_only, keep_alive) = (request.head.method == Method::Head, request.head.keep_alive);
        let answer = match self.push(request, arrived, &plan).await {
            Ok(Next::Push(push)) => self.ingest.push(*push).await,
            Ok(Next::Answer(answer)) => answer,
            Ok(Next::Answered) => return true,
            Err(stop) => return self.end(stop, &plan, head_only).await,
        };
        self.reply(answer, &plan, keep_alive, head_only).await
    }

    /// Waits, without a buffer, until a request begins. False when none comes.
    async fn wait_for_request(&mut self) -> bool {
        if !self.read.is_empty() {
            return true;
        }
        self.ingest.buffers.put(std::mem::take(&mut self.read));
        let (draining, idle) = (self.ingest.is_draining(), std::mem::replace(&mut self.idle, Idle::Next));
        let patience = match draining {
            true => Duration::from_millis(LAST_CALL_MILLIS),
            false => self.ingest.plan.load().idle_timeout,
        };
        self.stream.set_deadline(Instant::now() + patience, Cut::Read);
        if (draining && idle == Idle::Next) || self.stream.idle(idle).await.is_err() {
            return false;
        }
        // Cut while idle: nothing had begun, so there is nothing to say. Unless, when draining, something had.
        if self.stream.expired() && !self.ingest.is_draining() {
            return false;
        }
        self.read = self.ingest.buffers.take(HEAD_BUFFER_BYTES);
        matches!(self.more().await, Ok(()))
    }

    /// Reads a request's head, and takes it off what has been read.
    async fn head(&mut self, plan: &Plan) -> Result<Request, Stop> {
        loop {
            let limit = plan.limits.head_bytes_max;
            let tenant_header = plan.terms.tenant_header.inbound();
            match RequestHead::parse_passing(&self.read, tenant_header, &plan.pass_headers)? {
                Some((_, bytes)) if bytes > limit => return Err(Refusal::HeadTooLarge { limit }.into()),
                Some((head, bytes)) => return Ok(self.take_head(head, bytes)),
                None if self.read.len() >= limit => return Err(Refusal::HeadTooLarge { limit }.into()),
                None => self.more().await?,
            }
        }
    }

    fn take_head(&mut self, head: RequestHead, bytes: usize) -> Request {
        let path = self.read.get(head.path.clone()).unwrap_or_default();
        let route = route(head.method, path);
        let source = head.source_tenant.clone().and_then(|range| self.read.get(range)).map(<[u8]>::to_vec);
        self.read.drain(..bytes);
        Request { head, route, source }
    }

    /// Reads a push to its end. Refuses it by its head where that is possible, before its body is read.
    async fn push(&mut self, request: Request, arrived: Instant, plan: &Arc<Plan>) -> Result<Next, Stop> {
        let Request { head, route, source } = request;
        let destination = match route? {
            Route::Alive => {
                self.skip_body(&head).await?;
                return Ok(Next::Answer(alive(self.ingest.shared.is_shutting_down())));
            }
            Route::Push => Destination::Metrics,
            Route::LokiPush => Destination::Logs,
        };
        let (protocol, compression) = push::kind(destination, &head, plan.remote_write_v2.is_some())?;
        if let Err(refusal) = self.ingest.admit(&head, plan) {
            self.shed(&head, refusal, plan).await?;
            return Ok(Next::Answered);
        }
        let (body, charge) = self.body(&head, plan).await?;
        let in_work = match self.ingest.take_on() {
            Ok(in_work) => in_work,
            Err(refusal) => return Ok(Next::Answer(Answer::from(&refusal))),
        };
        // From here on the upstream is waited for, each attempt by a deadline of its own.
        self.stream.clear_deadline();
        let client = self.stream.peer();
        let (passed, plan) = (head.passed, Arc::clone(plan));
        Ok(Next::Push(Box::new(Push {
            plan,
            protocol,
            compression,
            body,
            charge,
            in_work,
            source,
            passed,
            client,
            arrived,
        })))
    }

    /// Refuses a request for want of room, by its head and at once. If its body is no larger than a few buffers and
    /// comes soon, it is read and forgotten, and the connection stays: for both sides that is cheaper than another
    /// one, and both have no time to lose.
    async fn shed(&mut self, head: &RequestHead, refusal: Refusal, plan: &Plan) -> Result<(), Stop> {
        let length = match head.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::None => 0,
            Framing::Chunked => usize::MAX,
        };
        let overloaded = matches!(refusal, Refusal::Overloaded { .. });
        if !overloaded || head.expect_continue || length > SHED_BODY_BYTES_MAX {
            return Err(refusal.into());
        }
        self.ingest.count_refusal(&refusal);
        if !self.reply(Answer::from(&refusal), plan, head.keep_alive, false).await {
            self.farewell().await;
            return Err(Stop::Gone);
        }
        self.stream.set_deadline(Instant::now() + Duration::from_millis(FAREWELL_MILLIS), Cut::Read);
        self.forget(length).await
    }

    /// Reads past so many bytes; holds no buffer while none come.
    async fn forget(&mut self, length: usize) -> Result<(), Stop> {
        let here = self.read.len().min(length);
        self.read.drain(..here);
        let mut left = length - here;
        while left > 0 {
            self.stream.idle(Idle::No).await.map_err(|_| Stop::Gone)?;
            let buffer = self.ingest.buffers.take(SHED_BUFFER_BYTES);
            let end = buffer.capacity().min(left);
            let (result, buffer) = self.stream.read_up_to(buffer, end).await;
            left -= buffer.len();
            self.ingest.buffers.put(buffer);
            // It has been answered: whatever goes wrong now, there is nothing more to say.
            result.ok().filter(|&n| n > 0).ok_or(Stop::Gone)?;
        }
        Ok(())
    }

    /// Reads the body, charged to the budget as it comes.
    async fn body(&mut self, head: &RequestHead, plan: &Plan) -> Result<(Vec<u8>, Charge), Stop> {
        let mut charge = self.ingest.shared.bytes.no_charge();
        self.awaiting = "body";
        self.stream.set_deadline(Instant::now() + plan.timeout, Cut::Read);
        if head.expect_continue && self.read.is_empty() {
            let (result, _) = self.stream.write_all(reply::CONTINUE.to_vec()).await;
            result.map_err(|_| Stop::Gone)?;
        }
        let body = match head.framing {
            Framing::None => Vec::new(),
            Framing::Length(length) => self.counted_body(length, &mut charge).await?,
            Framing::Chunked => self.chunked_body(&mut charge, plan).await?,
        };
        Ok((body, charge))
    }

    async fn counted_body(&mut self, length: u64, charge: &mut Charge) -> Result<Vec<u8>, Stop> {
        // Admission has checked it against the limit.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let here = self.read.len().min(length);
        let mut body = Vec::with_capacity(length);
        body.extend(self.read.drain(..here));
        // Once the rest of this body goes straight to its place, the buffer serves others.
        if self.read.is_empty() && body.len() < length {
            self.ingest.buffers.put(std::mem::take(&mut self.read));
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
            // A Vec may have more room than was asked for; what lies behind is the next request's.
            let (result, filled) = self.stream.read_up_to(body, length).await;
            body = filled;
            self.check_read(result)?;
        }
    }

    async fn chunked_body(&mut self, charge: &mut Charge, plan: &Plan) -> Result<Vec<u8>, Stop> {
        let mut decoder = ChunkDecoder::new(plan.limits.body_bytes_max);
        let mut body = Vec::new();
        loop {
            let before = body.len();
            let (consumed, done) = decoder.decode(&self.read, &mut body)?;
            self.read.drain(..consumed);
            if !charge.grow(body.len() - before) {
                return Err(self.ingest.out_of_memory().into());
            }
            if done {
                return Ok(body);
            }
            self.more().await?;
        }
    }

    /// Reads past a body that nobody asked for, so that the next request is found.
    async fn skip_body(&mut self, head: &RequestHead) -> Result<(), Stop> {
        if head.framing == Framing::None || head.framing == Framing::Length(0) {
            return Ok(());
        }
        Err(Refusal::BadRequest("this path takes no body").into())
    }

    async fn more(&mut self) -> Result<(), Stop> {
        let mut buffer = std::mem::take(&mut self.read);
        if buffer.capacity() == 0 {
            buffer = self.ingest.buffers.take(HEAD_BUFFER_BYTES);
        }
        if buffer.len() == buffer.capacity() {
            buffer.reserve(HEAD_BUFFER_BYTES);
        }
        let (result, buffer) = self.stream.read(buffer).await;
        self.read = buffer;
        self.check_read(result)
    }

    fn check_read(&self, result: std::io::Result<usize>) -> Result<(), Stop> {
        match result {
            Ok(n) if n > 0 => Ok(()),
            _ if self.stream.expired() && !self.ingest.is_draining() => {
                Err(Refusal::Timeout(self.awaiting).into())
            }
            _ => Err(Stop::Gone),
        }
    }

    /// Says why, if there is somebody to say it to, and ends the connection.
    async fn end(&mut self, stop: Stop, plan: &Plan, head_only: bool) -> bool {
        if let Stop::Refused(refusal) = stop {
            self.ingest.count_refusal(&refusal);
            let mut answer = Answer::from(&refusal);
            answer.close = true;
            self.reply(answer, plan, false, head_only).await;
            self.farewell().await;
        }
        false
    }

    /// Gives the answer, in the sender's words. Whether another request may follow.
    async fn reply(&mut self, answer: Answer, plan: &Plan, keep_alive: bool, head_only: bool) -> bool {
        let answer = self.sender.hears(answer);
        // While we are leaving, a sender's next connection finds whoever takes our place.
        let leaving = self.ingest.shared.is_shutting_down() || self.ingest.is_draining();
        let keep_alive = keep_alive && !answer.close && !leaving;
        let mut out = self.ingest.buffers.take(HEAD_BUFFER_BYTES);
        reply::write(&mut out, &answer, keep_alive, head_only);
        self.ingest.counters().replied(answer.status);
        self.stream.set_deadline(Instant::now() + plan.timeout, Cut::Both);
        let (result, out) = self.stream.write_all(out).await;
        self.ingest.buffers.put(out);
        result.is_ok() && keep_alive
    }

    /// Reads on for a moment after the last answer. To close with data unread would reset the connection, and the
    /// reset would overtake the answer.
    async fn farewell(&mut self) {
        self.stream.finish_writing().await;
        self.stream.set_deadline(Instant::now() + Duration::from_millis(FAREWELL_MILLIS), Cut::Both);
        let mut left = FAREWELL_BYTES_MAX;
        let mut buffer = self.ingest.buffers.take(HEAD_BUFFER_BYTES);
        while left > 0 {
            buffer.clear();
            let (result, filled) = self.stream.read(buffer).await;
            buffer = filled;
            match result {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => break,
            }
        }
        self.ingest.buffers.put(buffer);
    }
}

fn alive(leaving: bool) -> Answer {
    if leaving { Answer::from(&Refusal::Draining) } else { Answer::ok() }
}
