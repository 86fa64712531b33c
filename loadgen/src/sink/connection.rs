//! One connection of a sink: requests in, counts and answers out.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use bytes::Bytes;

use super::script::{Arrival, Close, Reply};
use super::stats::TenantCount;
use super::{Received, Shared};
use crate::account::{Tally, walk};
use crate::http::{HttpError, MessageReader, RequestHead};
use crate::proto::inflate;

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
}

/// A good request, counted.
struct Counted {
    tenant: String,
    tally: Tally,
    misplaced: u64,
    metadata: u64,
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
        }
    }

    /// Serves requests until either side has enough.
    pub(super) fn run(mut self) {
        let Ok(read_half) = self.stream.try_clone() else { return };
        let mut reader = MessageReader::new(read_half);
        while matches!(reader.wait(), Ok(true)) {
            self.set_busy(true);
            let going_on = match self.receive(&mut reader) {
                Ok(head) => self.answer(&head),
                Err(HttpError::Io(_) | HttpError::Closed) => false,
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
        if !self.reset {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }

    fn set_busy(&self, busy: bool) {
        if let Some(open) = self.shared.state().open.get_mut(&self.id) {
            open.busy = busy;
        }
    }

    fn receive(&mut self, reader: &mut MessageReader<TcpStream>) -> Result<RequestHead, HttpError> {
        let head = reader.request_head()?;
        if head.headers.get("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        reader.body(head.framing, &mut self.body)?;
        Ok(head)
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
                let reply = self.settle(head, counted);
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
            "/" | "/alive" => Reply::new(200, "a loadgen sink; its counts are at /stats\n"),
            "/stats" => {
                let counts = self.shared.state().counts.clone();
                match serde_json::to_string(&counts) {
                    Ok(json) => Reply::new(200, &json).header("Content-Type", "application/json"),
                    Err(error) => Reply::new(500, &error.to_string()),
                }
            }
            _ => Reply::new(404, "no such page\n"),
        }
    }

    /// Inflates and walks the body.
    fn count(&mut self, head: &RequestHead) -> Result<Counted, String> {
        let config = &self.shared.config;
        let tenant = self.tenant(head).ok_or("no tenant header")?;
        // Without its prefix the header is nobody's label, so every series with a label is misplaced.
        let expected = tenant.strip_prefix(config.prefix.as_str()).map(str::as_bytes);
        inflate(&self.body, &mut self.inflated).map_err(|error| error.to_string())?;
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

    /// Asks the script, waits as long as it says, and counts; the answer may leave after that.
    fn settle(&mut self, head: &RequestHead, counted: Counted) -> Reply {
        let Counted { tenant, tally, misplaced, metadata } = counted;
        let (nth, nth_of_tenant) = {
            let mut state = self.shared.state();
            state.counts.requests += 1;
            let nth = state.counts.requests;
            let count = state.counts.tenants.entry(tenant.clone()).or_default();
            count.requests += 1;
            count.bytes += self.body.len() as u64;
            (nth, count.requests)
        };
        let reply = match &self.shared.config.script {
            None => Reply::default(),
            Some(script) => script(&Arrival {
                tenant: &tenant,
                nth_of_tenant,
                nth,
                connection: self.id,
                nth_of_connection: self.requests,
                series: tally.series,
                samples: tally.samples,
                path: &head.path,
                headers: &head.headers,
                body: &self.body,
            }),
        };
        if !reply.delay.is_zero() {
            self.shared.pause(reply.delay);
        }
        let stored = match reply.stores() {
            true => TenantCount { misplaced, metadata, stored: tally, ..TenantCount::default() },
            false => TenantCount { refused: 1, ..TenantCount::default() },
        };
        if let Some(count) = self.shared.state().counts.tenants.get_mut(&tenant) {
            *count += stored;
        }
        self.keep(head, Some(tenant), if reply.answers() { reply.status } else { 0 });
        reply
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
        match reply.close {
            Close::BeforeReply => return false,
            Close::Reset => {
                // Linger 0 makes the last close send a RST (socket(7)); so there must be no FIN before it.
                self.reset = true;
                let _ =
                    rustix::net::sockopt::set_socket_linger(&self.stream, Some(std::time::Duration::ZERO));
                return false;
            }
            _ => {}
        }
        let going_on = keep_alive && reply.close == Close::Never && !self.shared.stopping();
        reply.write(going_on, &mut self.reply);
        self.stream.write_all(&self.reply).is_ok() && going_on
    }
}
