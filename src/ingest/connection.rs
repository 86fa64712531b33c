//! The life of an inbound connection: wait, read a head, route it, read its body, answer, and again.
//!
//! Design constraints:
//! - An idle connection holds no buffer; see [`buffers`](crate::io::buffers).
//! - Requests that are pipelined are answered in their order: they are simply taken one after the other.
//! - What can be refused by its head is refused before its body is read. A connection whose framing is in doubt is
//!   closed, as nobody can say where the next request would begin.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pending::Pending;
use super::push;
use super::routes::{Route, route};
use crate::config::plan::{Live, Plan};
use crate::exchange::Exchange;
use crate::http::body::ChunkDecoder;
use crate::http::head::{Framing, Method, RequestHead};
use crate::http::refusal::Refusal;
use crate::http::reply;
use crate::http::sender::Sender;
use crate::io::buffers::Buffers;
use crate::io::deadline::{Cut, Deadlines, Idle};
use crate::io::stream::{Blocking, Stream};
use crate::io::tasks::{Tasks, pause, tell_whether_waiting};
use crate::limits::{
    FAREWELL_BYTES_MAX, FAREWELL_MILLIS, HEAD_BUFFER_BYTES, LAST_CALL_MILLIS, REQUESTS_AT_ONCE_MAX,
    SHED_BODY_BYTES_MAX, SHED_BUFFER_BYTES,
};
use crate::log::Limiter;
use crate::metrics::{CoreMetrics, Metrics};
use crate::model::Answer;
use crate::model::Destination;
use crate::shared::budget::Charge;
use crate::shared::{Commons, Seat};
use crate::split::Splitter;

/// One core's ingest.
#[derive(Debug)]
pub struct Ingest {
    plan: Live,
    blocking: Blocking,
    pub(super) commons: Arc<Commons>,
    pub(super) exchange: Rc<Exchange>,
    pub(super) pending: Pending,
    pub(super) splitters: RefCell<Vec<Splitter>>,
    buffers: Buffers,
    deadlines: Deadlines,
    pub(super) tasks: Tasks,
    metrics: Arc<Metrics>,
    /// Of lines about requests that are refused.
    pub(super) limiter: RefCell<Limiter>,
    closing: Cell<bool>,
    draining: Cell<bool>,
}

impl Ingest {
    /// The ingest of the core of `exchange`. `blocking` is how its ring wants its sockets.
    pub fn new(
        plan: Live,
        blocking: Blocking,
        commons: Arc<Commons>,
        exchange: Rc<Exchange>,
        deadlines: Deadlines,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Rc<Self> {
        Rc::new(Self {
            plan,
            blocking,
            commons,
            exchange,
            pending: Pending::default(),
            splitters: RefCell::default(),
            buffers: Buffers::default(),
            deadlines,
            tasks,
            metrics,
            limiter: RefCell::default(),
            closing: Cell::new(false),
            draining: Cell::new(false),
        })
    }

    /// Serves a connection until it ends.
    pub fn serve(self: &Rc<Self>, socket: OwnedFd, seat: Seat) {
        let ingest = Rc::clone(self);
        self.tasks.spawn(async move {
            match Stream::accepted(socket, ingest.blocking, &ingest.deadlines) {
                Ok(stream) => ingest.converse(stream).await,
                Err(error) => tracing::debug!(%error, "a connection was lost before it was served"),
            }
            drop(seat);
        });
    }

    /// From now on, no connection is accepted.
    pub fn close(&self) {
        self.closing.set(true);
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// From now on, connections end with the request that they are at, or with their first, which is waited for a little.
    pub fn drain(&self) {
        self.draining.set(true);
        self.deadlines.cut_idle(Instant::now() + Duration::from_millis(LAST_CALL_MILLIS));
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// What holds now.
    fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// This core's number.
    pub fn core(&self) -> usize {
        self.exchange.core()
    }

    /// How the ring wants its sockets.
    pub fn blocking(&self) -> Blocking {
        self.blocking
    }

    /// What all cores share.
    pub fn commons(&self) -> &Arc<Commons> {
        &self.commons
    }

    /// The way to other cores.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Requests that wait for outcomes.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// This core's counters.
    pub fn counters(&self) -> &CoreMetrics {
        self.metrics.core(self.exchange.core())
    }

    async fn converse(self: &Rc<Self>, stream: Stream) {
        self.counters().connections_open.up();
        let mut connection = Connection {
            ingest: Rc::clone(self),
            stream,
            read: Vec::new(),
            awaiting: "head",
            sender: Sender::default(),
            idle: Idle::First,
        };
        let mut at_once = 0;
        loop {
            let (goes_on, waited) = tell_whether_waiting(connection.converse_once()).await;
            if !goes_on {
                break;
            }
            at_once = if waited { 0 } else { at_once + 1 };
            if at_once == REQUESTS_AT_ONCE_MAX {
                at_once = 0;
                pause().await;
            }
        }
        if connection.stream.expired() && !self.is_draining() {
            self.counters().connections_timed_out.add(1);
        }
        self.buffers.put(std::mem::take(&mut connection.read));
        drop(connection);
        self.counters().connections_open.down();
    }
}

/// Why a conversation goes no further.
pub(super) enum Stop {
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

struct Connection {
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

/// A request has been refused, and its body is out of the way.
struct Shed;

/// A request whose head has been understood.
struct Request {
    head: RequestHead,
    route: Route,
    arrived: Instant,
}

impl Connection {
    /// Waits for a request and answers it. Whether another may follow.
    async fn converse_once(&mut self) -> bool {
        // Apart, so that a connection is small while it waits: an allocation for each request, none for an idle one.
        self.wait_for_request().await && Box::pin(self.exchange()).await
    }

    /// One request, which has begun, and its answer. Whether another may follow.
    async fn exchange(&mut self) -> bool {
        let arrived = Instant::now();
        self.awaiting = "head";
        // One plan from the first byte to the answer, whatever is reloaded meanwhile.
        let plan = self.ingest.plan();
        self.stream.set_deadline(arrived + plan.timeout, Cut::Read);
        let head = match self.head(&plan).await {
            Ok((head, bytes)) => (head, bytes),
            Err(stop) => {
                self.sender = Sender::of_bad_head(&self.read);
                return self.part(stop, &plan, false).await;
            }
        };
        self.sender = head.0.sender;
        let head_only = head.0.method == Method::Head;
        let keep_alive = head.0.keep_alive;
        match self.answer(head, arrived, &plan).await {
            Ok(Some(answer)) => self.reply(answer, &plan, keep_alive, head_only).await,
            Ok(None) => true,
            Err(stop) => self.part(stop, &plan, head_only).await,
        }
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

    async fn head(&mut self, plan: &Plan) -> Result<(RequestHead, usize), Stop> {
        loop {
            let limit = plan.limits.head_bytes_max;
            match RequestHead::parse_passing(
                &self.read,
                plan.terms.tenant_header.inbound(),
                &plan.pass_headers,
            )? {
                Some((_, bytes)) if bytes > limit => return Err(Refusal::HeadTooLarge { limit }.into()),
                Some(found) => return Ok(found),
                None if self.read.len() >= limit => return Err(Refusal::HeadTooLarge { limit }.into()),
                None => self.more().await?,
            }
        }
    }

    /// What to answer, unless that has been done; after an error the connection is at its end.
    async fn answer(
        &mut self,
        head: (RequestHead, usize),
        arrived: Instant,
        plan: &Arc<Plan>,
    ) -> Result<Option<Answer>, Stop> {
        let (head, head_bytes) = head;
        let target = self.read.get(head.path.clone()).unwrap_or_default();
        let route = route(head.method, target);
        let source = head.source_tenant.clone().and_then(|range| self.read.get(range)).map(<[u8]>::to_vec);
        self.read.drain(..head_bytes);
        let request = Request { head, route: route?, arrived };
        match request.route {
            Route::Alive => {
                self.skip_body(&request.head).await?;
                Ok(Some(alive(self.ingest.commons.is_leaving())))
            }
            Route::Push => self.push(Destination::Metrics, request, source, plan).await,
            Route::LokiPush => self.push(Destination::Logs, request, source, plan).await,
        }
    }

    async fn push(
        &mut self,
        destination: Destination,
        request: Request,
        source: Option<Vec<u8>>,
        plan: &Arc<Plan>,
    ) -> Result<Option<Answer>, Stop> {
        let ingest = Rc::clone(&self.ingest);
        let (protocol, compression) = push::kind(destination, &request.head, plan.remote_write_v2.is_some())?;
        if let Err(refusal) = ingest.admit(&request.head, plan) {
            return self.shed(&request.head, refusal, plan).await.map(|Shed| None);
        }
        let (body, charge) = self.body(&request.head, plan).await?;
        let in_work = match ingest.take_on() {
            Ok(in_work) => in_work,
            Err(refusal) => return Ok(Some(Answer::from(&refusal))),
        };
        // From here on the upstream is waited for, each attempt by a deadline of its own.
        self.stream.clear_deadline();
        let client = self.stream.peer();
        let (arrived, passed, plan) = (request.arrived, request.head.passed, Arc::clone(plan));
        let push = push::Push { plan, protocol, compression, body, charge, source, passed, client, arrived };
        let answer = ingest.push(push).await;
        drop(in_work);
        Ok(Some(answer))
    }

    /// Refuses a request for want of room, by its head and at once. If its body is no larger than a few buffers and comes
    /// soon, it is read and forgotten, and the connection stays: for both sides that is cheaper than another one, and both
    /// have no time to lose.
    async fn shed(&mut self, head: &RequestHead, refusal: Refusal, plan: &Plan) -> Result<Shed, Stop> {
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
        self.forget(length).await?;
        Ok(Shed)
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
        let mut charge = self.ingest.commons.bytes.no_charge();
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
    async fn part(&mut self, stop: Stop, plan: &Plan, head_only: bool) -> bool {
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
        let leaving = self.ingest.commons.is_leaving() || self.ingest.is_draining();
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
