//! A simulated upstream: it answers as its script has it, and keeps account of every sample that it stores.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use monoio::net::{TcpListener, TcpStream};
use monoio::time::sleep;
use prost::Message;

use super::wire::Wire;
use super::{calls, world};
use crate::account::FullAccount;
use crate::chaos::FaultyUpstream;
use crate::destination::Destination;
use crate::http::{HttpError, MessageReader, RequestHead};
use crate::proto::{WriteRequest, inflate};
use crate::sink::export::Export;
use crate::sink::{Admission, Approach, Arrival, Close, Reply, Script, Storing};
use crate::stamp::{self, SenderId};
use crate::translate::from_v2;

/// The header that names the tenant.
const TENANT_HEADER: &str = "X-Scope-OrgID";

/// A tenant's part of a sender's request: whose it is, the tenant, and its sequence number.
pub(super) type Sent = (SenderId, String, u64);

/// See the module. It outlives the tasks that serve.
pub(super) struct Upstream {
    pub(super) script: FaultyUpstream,
    pub(super) account: RefCell<FullAccount>,
    pub(super) requests: Cell<u64>,
    /// Requests that were stored, by tenant: of each, also if there were none.
    pub(super) served: RefCell<BTreeMap<String, u64>>,
    /// What broke a law, seen from here.
    pub(super) failures: RefCell<Vec<String>>,
    /// Series of each tenant in a request, by [`SenderId::run`].
    series: BTreeMap<u64, usize>,
    /// What was refused for good.
    pub(super) refused: RefCell<BTreeSet<Sent>>,
    /// Tenants that were told that something is too large.
    too_large: RefCell<BTreeSet<String>>,
    /// Requests that are stored after the next of their tenant and connection.
    held: RefCell<BTreeMap<(String, u64), WriteRequest>>,
    connections: Cell<u64>,
    open: RefCell<BTreeSet<i32>>,
}

impl Upstream {
    /// An upstream with this script, for these tenants. `series` tells what senders of each run send.
    pub(super) fn new(script: FaultyUpstream, tenants: &[String], series: BTreeMap<u64, usize>) -> Self {
        Self {
            script,
            series,
            failures: RefCell::default(),
            too_large: RefCell::default(),
            account: RefCell::default(),
            requests: Cell::default(),
            served: RefCell::new(tenants.iter().map(|tenant| (tenant.clone(), 0)).collect()),
            refused: RefCell::default(),
            held: RefCell::default(),
            connections: Cell::default(),
            open: RefCell::default(),
        }
    }

    /// Breaks all connections.
    pub(super) fn sever(&self) {
        self.open.borrow().iter().for_each(|fd| calls::shut_down(*fd));
    }

    /// Forgets connections whose tasks have ended with their runtime.
    pub(super) fn forget(&self) {
        self.open.borrow_mut().clear();
    }

    /// Listens at an address.
    ///
    /// # Errors
    /// If something else does.
    pub(super) fn listen(self: &Rc<Self>, address: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(address)?;
        let upstream = Rc::clone(self);
        drop(monoio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(monoio::spawn(Rc::clone(&upstream).serve(stream)));
            }
        }));
        Ok(())
    }

    /// Serves a connection until it ends.
    async fn serve(self: Rc<Self>, stream: TcpStream) {
        let connection = self.connections.get();
        self.connections.set(connection + 1);
        let mut wire = Wire::new(stream);
        let fd = wire.fd();
        self.open.borrow_mut().insert(fd);
        let mut is_new = true;
        while let Ok(true) = self.request(&mut wire, connection, is_new).await {
            is_new = false;
        }
        self.open.borrow_mut().remove(&fd);
    }

    /// Serves a request; false if it was the connection's last. `is_new`: it is the first.
    async fn request(&self, wire: &mut Wire, connection: u64, is_new: bool) -> Result<bool, HttpError> {
        let Some(head) = wire.head(MessageReader::request_head).await? else { return Ok(false) };
        let tenant = head.headers.get(TENANT_HEADER).unwrap_or_default();
        let rate = match self.script.admit(&Approach { tenant: Some(tenant) }) {
            Admission::Read => None,
            Admission::ReadSlowly { bytes_per_second } => Some(bytes_per_second),
            Admission::Reset => return Ok(false),
            Admission::HalfOpen => {
                wire.hold().await;
                return Ok(false);
            }
        };
        let body = wire.body(head.framing, rate).await?;
        let reply = match decode(&head, &body) {
            Ok((inflated, request)) => {
                let arrival = (tenant, connection, &body[..], &inflated[..]);
                let reply = self.reply(&head, arrival);
                let parts = parts_of(&request);
                self.look_for_pieces(tenant, &parts);
                self.note_refusal(tenant, &reply, &parts);
                sleep(reply.delay).await;
                self.settle(wire, (tenant, connection), &reply, request, is_new);
                reply
            }
            Err(why) => {
                self.failures.borrow_mut().push(format!("upstream: {why}"));
                Reply::new(400, &why)
            }
        };
        world::trace(format_args!(
            "upstream has {} bytes of {tenant:?}: {} {:?}",
            body.len(),
            reply.status,
            reply.close
        ));
        let reply = match Export::of(&head) {
            Some(export) => export.worded(reply),
            None => reply,
        };
        self.send(wire, &reply, head.keep_alive).await
    }

    fn reply(
        &self,
        head: &RequestHead,
        (tenant, connection, body, inflated): (&str, u64, &[u8], &[u8]),
    ) -> Reply {
        self.requests.set(self.requests.get() + 1);
        let nth = self.requests.get();
        let headers = &head.headers;
        let destination = Destination::of(&head.path);
        self.script.answer(&Arrival {
            tenant,
            destination,
            headers,
            connection,
            nth_of_tenant: nth,
            nth,
            body,
            inflated,
        })
    }

    /// Stores a request in the way that its script says. A copy that stands for an attempt of its sender counts as one
    /// that the sender is told of: it hears of a success, or of a failure. The server sends again by itself only what a
    /// connection that it had used before may not have brought.
    fn settle(
        &self,
        wire: &Wire,
        (tenant, connection): (&str, u64),
        reply: &Reply,
        request: WriteRequest,
        is_new: bool,
    ) {
        if !reply.stores() {
            return;
        }
        *self.served.borrow_mut().entry(tenant.to_owned()).or_default() += 1;
        let is_told = reply.is_success() && wire.is_open() || is_new && !reply.answers();
        let held = self.held.borrow_mut().remove(&(tenant.to_owned(), connection));
        match &reply.storing {
            Storing::Once => self.store(tenant, is_told, &request),
            Storing::Twice => (0..2).for_each(|_| self.store(tenant, is_told, &request)),
            Storing::Under(other) => self.store(other, is_told, &request),
            Storing::AfterNext if held.is_some() => self.store(tenant, is_told, &request),
            Storing::AfterNext => {
                self.held.borrow_mut().insert((tenant.to_owned(), connection), request);
            }
        }
        held.iter().for_each(|held| self.store(tenant, true, held));
    }

    /// Stores what is held back.
    pub(super) fn let_go(&self) {
        let held = std::mem::take(&mut *self.held.borrow_mut());
        held.iter().for_each(|((tenant, _), request)| self.store(tenant, true, request));
    }

    fn store(&self, tenant: &str, is_told: bool, request: &WriteRequest) {
        let mut account = self.account.borrow_mut();
        for series in &request.timeseries {
            stamp::read_v1(series, |read| match read {
                Ok(stamp) => account.store(tenant, &stamp, is_told),
                Err(damaged) => account.store_damaged(tenant, damaged),
            });
        }
    }

    /// What a sender has sent of a tenant in one request comes as a whole, unless something of that tenant was too
    /// large.
    fn look_for_pieces(&self, tenant: &str, parts: &BTreeMap<(SenderId, u64), usize>) {
        if self.too_large.borrow().contains(tenant) {
            return;
        }
        let is_whole = |sender: &SenderId, count: &usize| {
            self.series.get(&sender.run).is_none_or(|all| count.is_multiple_of(*all))
        };
        for ((sender, sequence), count) in parts {
            if !is_whole(sender, count) {
                let mut failures = self.failures.borrow_mut();
                failures.push(format!(
                    "{tenant}: {count} series of sender {sender}, sequence {sequence}, came alone"
                ));
            }
        }
    }

    /// Notes what is refused for good.
    fn note_refusal(&self, tenant: &str, reply: &Reply, parts: &BTreeMap<(SenderId, u64), usize>) {
        if reply.status == 413 {
            self.too_large.borrow_mut().insert(tenant.to_owned());
        }
        if (400..500).contains(&reply.status) && reply.status != 429 {
            let refused = parts.keys().map(|(sender, sequence)| (*sender, tenant.to_owned(), *sequence));
            self.refused.borrow_mut().extend(refused);
        }
    }

    async fn send(&self, wire: &mut Wire, reply: &Reply, keeps: bool) -> Result<bool, HttpError> {
        let mut bytes = Vec::new();
        reply.write(keeps && reply.close == Close::Never, &mut bytes);
        match reply.close {
            Close::BeforeReply | Close::Reset => return Ok(false),
            Close::Stall => {
                wire.hold().await;
                return Ok(false);
            }
            Close::MidReply => bytes.truncate(bytes.len() / 2),
            Close::Never | Close::AfterReply | Close::AfterReplyUnannounced => {}
        }
        wire.write(bytes).await?;
        Ok(keeps && reply.close == Close::Never)
    }
}

/// The senders' parts in a request, by sender and sequence number, with the number of their series.
fn parts_of(request: &WriteRequest) -> BTreeMap<(SenderId, u64), usize> {
    let mut parts: BTreeMap<(SenderId, u64), usize> = BTreeMap::new();
    for series in &request.timeseries {
        stamp::read_v1(series, |read| {
            if let Ok(stamp) = read {
                *parts.entry((stamp.sender, stamp.sequence)).or_default() += 1;
            }
        });
    }
    parts
}

/// A body, inflated and decoded.
fn decode(head: &RequestHead, body: &[u8]) -> Result<(Vec<u8>, WriteRequest), String> {
    let mut inflated = Vec::new();
    if let Some(export) = Export::of(head) {
        export.inflate(head, body, &mut inflated)?;
        let request = export.read(&inflated).map_err(|error| error.to_string())?;
        return Ok((inflated, request));
    }
    inflate(body, &mut inflated).map_err(|error| error.to_string())?;
    let is_v2 = head.headers.get("content-type").is_some_and(|value| value.contains("write.v2"));
    let request = match is_v2 {
        true => from_v2(&inflated).map_err(|error| error.to_string())?,
        false => {
            WriteRequest::decode(Bytes::copy_from_slice(&inflated)).map_err(|error| error.to_string())?
        }
    };
    Ok((inflated, request))
}
