//! One connection of a sender: each request is recorded, sent on if there is a target, and answered.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use testkit::upstream::{self, Reply, Request};

use super::recorder::Recorder;
use super::{CaptureConfig, Forwarded};
use crate::client::Client;
use crate::http::HttpError;

/// Headers that belong to one connection (RFC 9110, section 7.6.1) or are made anew from the body.
const OWN_HEADERS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Gives each connection its session.
pub(super) struct Service {
    pub(super) config: CaptureConfig,
    pub(super) recorder: Arc<Recorder>,
    pub(super) forwarded: Arc<Forwarded>,
}

impl upstream::Service for Service {
    fn connect(&self, _connection: u64, _stream: &TcpStream) -> Box<dyn upstream::Session> {
        let target = self.config.forward.clone().map(|url| Client::new(url, self.config.timeout));
        Box::new(Session {
            recorder: Arc::clone(&self.recorder),
            forwarded: Arc::clone(&self.forwarded),
            target,
        })
    }
}

/// A connection, and its own to the target.
struct Session {
    recorder: Arc<Recorder>,
    forwarded: Arc<Forwarded>,
    target: Option<Client>,
}

impl upstream::Session for Session {
    fn answer(&mut self, request: &Request<'_>) -> Reply {
        if request.head.method == "POST" {
            self.recorder.record(request.head, request.body);
        }
        match &mut self.target {
            Some(target) => forward(target, &self.forwarded, request),
            None if request.head.method == "POST" => Reply::new(204, ""),
            None => Reply::new(405, "this records pushes\n"),
        }
    }
}

/// What passes through: all but the headers of one connection.
fn passes(header: &&(String, String)) -> bool {
    !OWN_HEADERS.iter().any(|own| header.0.eq_ignore_ascii_case(own))
}

/// Sends a request on. It is sent again, once, if a connection that was used before fails: the target may have closed
/// it meanwhile.
fn forward(target: &mut Client, forwarded: &Forwarded, request: &Request<'_>) -> Reply {
    let headers: Vec<_> = request.head.headers.0.iter().filter(passes).cloned().collect();
    let message = target.url().request(&request.head.method, &request.head.path, &headers, request.body);
    let may_be_stale = target.is_connected();
    let exchanged = match target.exchange(&message) {
        Err(HttpError::Closed | HttpError::Io(_)) if may_be_stale => target.exchange(&message),
        exchanged => exchanged,
    };
    match exchanged {
        Ok(answer) => {
            forwarded.answered.fetch_add(1, Ordering::Relaxed);
            let headers = answer.headers.0.iter().filter(passes).cloned().collect();
            Reply { status: answer.status, headers, body: target.body().to_vec(), ..Reply::ok() }
        }
        Err(error) => {
            forwarded.failed.fetch_add(1, Ordering::Relaxed);
            Reply::new(502, &format!("loadgen capture: no answer from the target: {error}\n"))
        }
    }
}
