//! The JSON API, version 1. `openapi.json` describes it, and the status page uses nothing else.
//!
//! Design constraints:
//! - An answer's cost is bounded, whatever there is: lists of tenants come in pages.
//! - All texts may be hostile: IDs of tenants come from senders, and reasons from upstreams. They are JSON strings and
//!   nothing else, and no browser takes an answer for another type.
//! - Secrets are in no answer. Settings are masked as in the log, targets have no query.

mod answers;
mod status;
mod tap;
mod tenant;
mod tenants;
mod upstreams;

use std::time::{Duration, Instant, SystemTime};

pub(super) use self::answers::Answers;
pub(super) use self::tap::Tapping;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Server;
use super::pages::Page;
use crate::exchange::fragment::RequestId;
use crate::explain::explain_json;
use crate::io::stream::Stream;
use crate::limits::API_WORK_BYTES;
use crate::metrics::ErrorNote;
use crate::model::Destination;

/// The parameters of a request, decoded. Unknown ones are ignored.
pub(super) struct Query(Vec<(String, String)>);

/// What is wrong with a request: a status, and a text for people.
pub(super) type Fault = (u16, String);

impl Query {
    pub(super) fn parse(query: &[u8]) -> Self {
        Self(form_urlencoded::parse(query).into_owned().collect())
    }

    /// A parameter; the last one counts.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A number from `min` to `max`.
    pub(super) fn number(&self, name: &str, default: usize, min: usize, max: usize) -> Result<usize, Fault> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| (400, format!("{name} must be a number from {min} to {max}")))
    }

    pub(super) fn destination(&self) -> Result<Option<Destination>, Fault> {
        match self.get("destination") {
            None => Ok(None),
            Some(name) => Destination::named(name).map(Some).ok_or_else(|| {
                let names = Destination::ALL.map(Destination::name).join(", ");
                (400, format!("destination must be one of {names}"))
            }),
        }
    }
}

impl Server {
    /// The answer to a request below `/api/v1/`; `path` is what follows that.
    pub(super) async fn api(&self, path: &[u8], query: &[u8], stream: &Stream) -> Page {
        match path {
            b"openapi.json" => return Page::json(200, OPENAPI),
            // A GET is streamed; see `connection.rs`. This is a HEAD, which opens none.
            b"tap" => return Page::lines(),
            _ => {}
        }
        let question = (path.into(), query.into());
        let shared = || self.answers.get(&question, Instant::now()).map(|body| Page::json(200, body));
        if let Some(page) = shared() {
            return page;
        }
        // With many tenants an answer takes milliseconds. One at a time: probes and scrapes come in between.
        self.tasks.yield_if_busy().await;
        if let Some(page) = shared() {
            return page;
        }
        if stream.expired() {
            // Nothing reads the answer.
            return self::fault((503, "the request waited too long for its turn".into()));
        }
        let begun = cpu_time();
        match self.answer(path, &Query::parse(query)).await {
            Ok(value) => {
                let body = Bytes::from(value.to_string().into_boxed_str().into_boxed_bytes());
                // Settings are cheap to show, and may have changed a moment ago.
                if !matches!(path, b"config" | b"explain") {
                    self.answers.put(
                        question,
                        body.clone(),
                        cpu_time().saturating_sub(begun),
                        Instant::now(),
                    );
                }
                Page::json(200, body)
            }
            Err(fault) => self::fault(fault),
        }
    }

    async fn answer(&self, path: &[u8], query: &Query) -> Result<Value, Fault> {
        let tenants: usize = Destination::ALL.map(|to| self.pages.metrics.tenants_known(to)).iter().sum();
        self.tasks.record_work(API_WORK_BYTES * tenants);
        match path {
            b"status" => Ok(self.status()),
            b"tenants" => self.tenants(query),
            b"upstreams" => Ok(self.upstreams().await),
            b"config" => Ok(self.settings()),
            b"explain" => self.explain(query),
            _ => match path.strip_prefix(b"tenants/") {
                Some(tenant) => self.tenant(tenant, query),
                None => Err((404, "there is no such part of the API".into())),
            },
        }
    }

    fn explain(&self, query: &Query) -> Result<Value, Fault> {
        let series = query.get("series").ok_or_else(|| (400, "series is missing".to_owned()))?;
        let destination = query.destination()?.unwrap_or(Destination::Metrics);
        explain_json(&self.pages.plan(), series, query.get("source"), destination).map_err(|why| (400, why))
    }

    fn settings(&self) -> Value {
        let plan = self.pages.plan();
        let settings = plan.settings().map(|(key, value)| json!({ "key": key, "value": value }));
        json!({ "settings": settings.collect::<Vec<_>>() })
    }
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// The answer to a request that is wrong.
pub(super) fn fault((status, error): Fault) -> Page {
    Page::json(status, json!({ "error": error }).to_string())
}

/// The description of the API.
const OPENAPI: &str = include_str!("openapi.json");

/// A time as RFC 3339 has it, in UTC.
fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// The time of day of an instant.
pub(super) fn time_of(at: Instant) -> String {
    let now = Instant::now();
    let then = SystemTime::now().checked_sub(now.saturating_duration_since(at));
    time(then.unwrap_or(SystemTime::UNIX_EPOCH))
}

fn unix_time(seconds: u64) -> String {
    time(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// A number with three digits behind the point: rates need no more.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn error_json(note: &ErrorNote) -> Value {
    json!({
        "at": time_of(note.at),
        "request_id": RequestId(note.request_id).to_string(),
        "status": note.status,
        "reason": &*note.reason,
        "sender": note.sender.to_string(),
        "upstream": note.address.map(|address| address.to_string()),
    })
}
