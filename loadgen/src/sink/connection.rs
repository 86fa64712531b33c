//! One connection of a sink: requests in, counts and answers out.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::script::{Admission, Approach, Arrival, Close, Reply, Storing};
use super::stats::TenantCount;
use super::store::Delivery;
use super::{Received, Shared};
use crate::account::{Tally, walk};
use crate::http::{HttpError, MessageReader, RequestHead};
use crate::proto::inflate;
use crate::words::{Unreadable, from_loki, from_v2};

/// How often a connection that waits for its peer to close looks whether the sink stops.
const HOLD_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A slow reader reads this often.
const SLOW_READS_PER_SECOND: u64 = 20;

/// A connection and the buffers that it keeps from request to request.
pub(super) struct Connection<'a> {
    shared: &'a Shared,
    stream: TcpStream,
    id: u64,
    requests: u64,
    body: Vec<u8>,
    inflated: Vec<u8>,
    reply: Vec<u8>,
    reset: bool,
    /// What is stored and about to be told so, if an account wants to know.
    told: Option<Delivery>,
    /// Bytes a second that the body at hand is read with; 0 for as they come.
    read_rate: Rc<Cell<u64>>,
}

/// A good request, counted.
struct Counted {
    tenant: String,
    tally: Tally,
    misplaced: u64,
    metadata: u64,
}

/// The reading half, as fast as its connection says.
struct Throttled<'a> {
    shared: &'a Shared,
    stream: TcpStream,
    rate: Rc<Cell<u64>>,
}

impl Read for Throttled<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rate = self.rate.get();
        if rate == 0 {
            return self.stream.read(out);
        }
        let most = usize::try_from((rate / SLOW_READS_PER_SECOND).max(1)).unwrap_or(usize::MAX);
        let length = out.len().min(most);
        let count = self.stream.read(out.get_mut(..length).unwrap_or_default())?;
        self.shared.pause(time_for(count, rate));
        Ok(count)
    }
}

/// Whether a request says to be Remote Write 2.0.
fn is_v2(head: &RequestHead) -> bool {
    head.headers.get("content-type").is_some_and(|value| value.contains("io.prometheus.write.v2.Request"))
}

/// The reply, with what was written of the request (Remote Write 2.0 specification, "Required Written Response Headers").
fn tell_written(reply: Reply, tally: &Tally) -> Reply {
    let Tally { samples, histograms, exemplars, .. } = tally;
    reply
        .header("X-Prometheus-Remote-Write-Samples-Written", &samples.to_string())
        .header("X-Prometheus-Remote-Write-Histograms-Written", &histograms.to_string())
        .header("X-Prometheus-Remote-Write-Exemplars-Written", &exemplars.to_string())
}

/// How long so many bytes take.
#[expect(clippy::cast_precision_loss, reason = "a body is far below 2^53 bytes")]
fn time_for(bytes: usize, rate: u64) -> Duration {
    Duration::try_from_secs_f64(bytes as f64 / rate as f64).unwrap_or(Duration::MAX)
}

impl<'a> Connection<'a> {
    pub(super) fn new(shared: &'a Shared, stream: TcpStream, id: u64) -> Self {
        // An answer is one small write: nothing is gained by waiting for more to send.
        let _ = stream.set_nodelay(true);
        Self {
            shared,
            stream,
            id,
            requests: 0,
            body: Vec::new(),
            inflated: Vec::new(),
            reply: Vec::new(),
            reset: false,
            told: None,
            read_rate: Rc::default(),
        }
    }

    /// Serves requests until either side has enough.
    pub(super) fn run(mut self) {
        let Ok(stream) = self.stream.try_clone() else { return };
        let read_half = Throttled { shared: self.shared, stream, rate: Rc::clone(&self.read_rate) };
        let mut reader = MessageReader::new(read_half);
        while matches!(reader.wait(), Ok(true)) {
            self.set_busy(true);
            let going_on = match self.receive(&mut reader) {
                Ok(Some(head)) => self.answer(&head),
                Ok(None) | Err(HttpError::Io(_) | HttpError::Closed) => false,
                Err(error) => {
                    self.broken(&error.to_string());
                    self.send(&Reply::new(400, &error.to_string()).close(Close::AfterReply), false);
                    false
                }
            };
            self.set_busy(false);
            if !going_on || self.shared.stopping() {
                break;
            }
        }
        self.shared.let_go(Some(self.id));
        if !self.reset {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }

    fn set_busy(&self, busy: bool) {
        if let Some(open) = self.shared.state().open.get_mut(&self.id) {
            open.busy = busy;
        }
    }

    /// Reads a request; None when the script ends the connection instead.
    fn receive(
        &mut self,
        reader: &mut MessageReader<Throttled<'_>>,
    ) -> Result<Option<RequestHead>, HttpError> {
        let head = reader.request_head()?;
        let begun = Instant::now();
        let rate = match self.admit(&head) {
            Admission::Read => 0,
            Admission::ReadSlowly { bytes_per_second } => bytes_per_second.max(1),
            Admission::Reset => {
                self.reset();
                return Ok(None);
            }
            Admission::HalfOpen => {
                self.hold();
                return Ok(None);
            }
        };
        if head.headers.get("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.read_rate.set(rate);
        let read = reader.body(head.framing, &mut self.body);
        self.read_rate.set(0);
        read?;
        if rate > 0 {
            // A part of the body came along with the head, at full speed.
            self.shared.pause(time_for(self.body.len(), rate).saturating_sub(begun.elapsed()));
        }
        Ok(Some(head))
    }

    fn admit(&self, head: &RequestHead) -> Admission {
        let Some(script) = self.shared.config.script.as_ref().filter(|_| head.method == "POST") else {
            return Admission::Read;
        };
        let tenant = self.tenant(head);
        script.admit(&Approach { tenant: tenant.as_deref(), path: &head.path, headers: &head.headers })
    }

    /// Makes the connection end with a RST.
    fn reset(&mut self) {
        // Linger 0 makes the last close send a RST (socket(7)); so there must be no FIN before it.
        self.reset = true;
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }

    /// Waits until the peer closes or the sink stops, and reads nothing.
    fn hold(&self) {
        while !self.shared.stopping() {
            let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
            let polled = poll(&mut fds, Some(&HOLD_POLL));
            let [fd] = &fds;
            match polled {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) if fd.revents().is_empty() => {}
                _ => return,
            }
        }
    }

    /// Answers a request; false when it was the connection's last.
    fn answer(&mut self, head: &RequestHead) -> bool {
        if head.method != "POST" {
            let reply = self.page(head);
            return self.send(&reply, head.keep_alive);
        }
        self.requests += 1;
        match self.count(head) {
            Ok(counted) => {
                let tally = counted.tally;
                let mut reply = self.settle(head, counted);
                if is_v2(head) && reply.is_success() {
                    reply = tell_written(reply, &tally);
                }
                self.send(&reply, head.keep_alive)
            }
            Err(why) => {
                self.broken(&why);
                self.keep(head, None, 400);
                self.send(&Reply::new(400, &why), head.keep_alive)
            }
        }
    }

    /// What a sink says to a GET.
    fn page(&self, head: &RequestHead) -> Reply {
        match head.path.as_str() {
            "/" | "/alive" => Reply::new(
                200,
                "a loadgen sink; its counts are at /stats, its full account, if kept, at /account\n",
            ),
            "/stats" => {
                let counts = self.shared.state().counts.clone();
                json(&counts)
            }
            "/account" => match self.shared.account() {
                Some(account) => json(&account),
                None => Reply::new(404, "this sink keeps no full account: it was not asked to\n"),
            },
            _ => Reply::new(404, "no such page\n"),
        }
    }

    /// Inflates and walks the body.
    fn count(&mut self, head: &RequestHead) -> Result<Counted, String> {
        let tenant = self.tenant(head).ok_or("no tenant header")?;
        inflate(&self.body, &mut self.inflated).map_err(|error| error.to_string())?;
        self.translate(head).map_err(|error| error.to_string())?;
        self.count_under(tenant)
    }

    /// Turns what is no Remote Write 1.0 into that, so that one walk serves all.
    fn translate(&mut self, head: &RequestHead) -> Result<(), Unreadable> {
        let request = if is_v2(head) {
            from_v2(&self.inflated)?
        } else if head.path.contains("/loki/") {
            from_loki(&self.inflated)?
        } else {
            return Ok(());
        };
        self.inflated = request.encode_to_vec();
        Ok(())
    }

    /// Walks the inflated body, as one that comes under this tenant's header.
    fn count_under(&self, tenant: String) -> Result<Counted, String> {
        let config = &self.shared.config;
        // Without its prefix the header is nobody's label, so every series with a label is misplaced.
        let expected = tenant.strip_prefix(config.prefix.as_str()).map(str::as_bytes);
        let mut tally = Tally::default();
        let mut misplaced = 0;
        let metadata = walk(&self.inflated, &config.tenant_labels, |series| {
            tally += series.tally;
            misplaced += u64::from(series.tenant.is_some_and(|label| Some(label) != expected));
        })
        .map_err(|error| error.to_string())?;
        Ok(Counted { tenant, tally, misplaced, metadata })
    }

    fn tenant(&self, head: &RequestHead) -> Option<String> {
        let mut names = self.shared.config.tenant_headers.iter();
        names.find_map(|name| head.headers.get(name)).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// Asks the script, waits as long as it says, and stores; the answer may leave after that.
    fn settle(&mut self, head: &RequestHead, counted: Counted) -> Reply {
        let (nth, nth_of_tenant) = {
            let mut state = self.shared.state();
            state.counts.requests += 1;
            let nth = state.counts.requests;
            let count = state.counts.tenants.entry(counted.tenant.clone()).or_default();
            count.requests += 1;
            count.bytes += self.body.len() as u64;
            (nth, count.requests)
        };
        let reply = match &self.shared.config.script {
            None => Reply::default(),
            Some(script) => script.answer(&Arrival {
                tenant: &counted.tenant,
                nth_of_tenant,
                nth,
                connection: self.id,
                nth_of_connection: self.requests,
                series: counted.tally.series,
                samples: counted.tally.samples,
                path: &head.path,
                headers: &head.headers,
                body: &self.body,
                inflated: &self.inflated,
            }),
        };
        if !reply.delay.is_zero() {
            self.shared.pause(reply.delay);
        }
        let tenant = counted.tenant.clone();
        if reply.stores() {
            self.store(counted, &reply);
        } else if let Some(count) = self.shared.state().counts.tenants.get_mut(&tenant) {
            count.refused += 1;
        }
        self.keep(head, Some(tenant), if reply.answers() { reply.status } else { 0 });
        reply
    }

    /// Whether the peer is still there to hear an answer. Who stopped waiting has closed the connection.
    fn is_heard(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let [fd] = &fds;
        polled.is_ok() && fd.revents().is_empty()
    }

    /// Stores a request in the way that its script says.
    fn store(&mut self, counted: Counted, reply: &Reply) {
        // Only an account wants to know, and asking costs a system call.
        let is_told = self.shared.store.keeps_account() && reply.is_success() && self.is_heard();
        let delivery = |counted: Counted| Delivery {
            is_told,
            tenant: counted.tenant,
            count: TenantCount {
                misplaced: counted.misplaced,
                metadata: counted.metadata,
                stored: counted.tally,
                ..TenantCount::default()
            },
            decoded: self.shared.store.decode(&self.inflated),
        };
        match &reply.storing {
            Storing::Once => {
                let delivery = delivery(counted);
                self.shared.store(&delivery, self.id);
                self.told = Some(delivery).filter(|delivery| delivery.is_told);
            }
            Storing::Twice => {
                let delivery = delivery(counted);
                self.shared.store(&delivery, self.id);
                self.shared.store(&delivery, self.id);
            }
            // What was walked once can be walked again.
            Storing::Under(tenant) => {
                if let Ok(counted) = self.count_under(tenant.clone()) {
                    self.shared.store(&delivery(counted), self.id);
                }
            }
            Storing::AfterNext => self.shared.store_after_next(delivery(counted), self.id),
        }
    }

    fn keep(&self, head: &RequestHead, tenant: Option<String>, status: u16) {
        let kept_max = self.shared.config.requests_kept_max;
        if kept_max == 0 {
            return;
        }
        let received = Received {
            tenant,
            path: head.path.clone(),
            headers: head.headers.clone(),
            body: Bytes::copy_from_slice(&self.body),
            status,
            connection: self.id,
        };
        let mut state = self.shared.state();
        while state.kept.len() >= kept_max {
            state.kept.pop_front();
        }
        state.kept.push_back(received);
    }

    fn broken(&self, why: &str) {
        let mut state = self.shared.state();
        state.counts.broken += 1;
        state.counts.broken_why = Some(why.to_owned());
    }

    /// Sends a reply; false when the connection ends with it.
    fn send(&mut self, reply: &Reply, keep_alive: bool) -> bool {
        let going_on = keep_alive && reply.close == Close::Never && !self.shared.stopping();
        match reply.close {
            Close::BeforeReply => false,
            Close::Reset => {
                self.reset();
                false
            }
            Close::MidReply => {
                reply.write(keep_alive, &mut self.reply);
                self.reply.truncate(self.reply.len() / 2);
                let _ = self.stream.write_all(&self.reply);
                self.reset();
                false
            }
            Close::Stall => {
                self.hold();
                false
            }
            Close::Never | Close::AfterReply | Close::AfterReplyUnannounced => {
                reply.write(going_on, &mut self.reply);
                let is_sent = self.stream.write_all(&self.reply).is_ok();
                let untold = self.told.take().filter(|_| !is_sent);
                if let Some(delivery) = untold {
                    self.shared.untell(&delivery);
                }
                is_sent && going_on
            }
        }
    }
}

/// A page for programs.
fn json(page: &impl serde::Serialize) -> Reply {
    match serde_json::to_string(page) {
        Ok(json) => Reply::new(200, &json).header("Content-Type", "application/json"),
        Err(error) => Reply::new(500, &error.to_string()),
    }
}
