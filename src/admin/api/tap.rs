//! `/api/v1/tap`: a stream of what happens to matching series, an object a line, for a minute at most.
//!
//! Design constraints:
//! - It ends by itself: after its time, after so many events, when its client leaves or does not read, and when the
//!   server shuts down. The last line says why, unless the client is gone.
//! - A client that does not read loses events. No core waits for it.

use std::fmt::Write;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::{Fault, Query, rounded, time_of};
use crate::admin::Server;
use crate::exchange::fragment::RequestId;
use crate::io::buffers::Gather;
use crate::io::deadline::Cut;
use crate::io::stream::Stream;
use crate::limits::{ADMIN_TIMEOUT_MILLIS, TAP_EVENTS_MAX, TAP_POLL_MILLIS};
use crate::model::Fate;
use crate::selector::Selector;
use crate::shared::taps::{Event, Filter, Tap};

/// Seconds that a tap is open unless the request says otherwise, and at most.
const SECONDS: usize = 10;
const SECONDS_MAX: usize = 60;
/// Events that it shows unless the request says otherwise, and at most.
const EVENTS: usize = 1_000;
const EVENTS_MAX: usize = 10_000;

const TOO_MANY: &str = "too many taps are open";

/// A tap that a client may read.
pub(in crate::admin) struct Tapping {
    tap: Tap,
    length: Duration,
    events_max: usize,
}

impl Server {
    /// Opens a tap.
    pub(in crate::admin) fn tap(&self, query: &[u8]) -> Result<Tapping, Fault> {
        let (query, taps) = (Query::parse(query), &self.pages.shared.taps);
        if !taps.have_room() {
            // Patterns are compiled only for those that get a tap.
            return Err((503, TOO_MANY.into()));
        }
        let text = query
            .get("match")
            .ok_or_else(|| (400, "match is missing: a selector, as {job=\"a\"}".to_owned()))?;
        let selector = Selector::parse(text).map_err(|error| (400, format!("match: {error}")))?;
        let seconds = query.number("seconds", SECONDS, 1, SECONDS_MAX)?;
        let events_max = query.number("limit", EVENTS, 1, EVENTS_MAX)?;
        let tap = taps.open(Filter::Series(selector)).ok_or_else(|| (503, TOO_MANY.to_owned()))?;
        Ok(Tapping { tap, length: Duration::from_secs(seconds as u64), events_max })
    }

    /// Streams a tap's events after the head of a response.
    ///
    /// # Errors
    /// When the client has left or does not read.
    pub(in crate::admin) async fn stream(
        &self,
        tapping: Tapping,
        stream: &mut Stream,
        lines: &str,
    ) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n{lines}Connection: close\r\n\r\n"
        );
        let Tapping { tap, length, events_max } = tapping;
        let until = Instant::now() + length;
        let (mut text, mut shown) = (head, 0);
        loop {
            if stream.expired() || !stream.is_quiet() {
                // It was cut, or its client has left.
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if !text.is_empty() {
                send(stream, std::mem::take(&mut text)).await?;
            }
            while let Some(event) = tap.next().filter(|_| shown < events_max) {
                shown += 1;
                // Writing to a String can't fail, here and below.
                let _ = writeln!(text, "{}", line(&event));
                if text.len() >= BATCH_BYTES {
                    break;
                }
            }
            let end = match () {
                () if shown >= events_max => "limit",
                () if Instant::now() >= until => "seconds",
                () if self.closing.get() || self.pages.shared.is_shutting_down() => "shutdown",
                () => {
                    if text.is_empty() {
                        monoio::time::sleep(Duration::from_millis(TAP_POLL_MILLIS)).await;
                    }
                    continue;
                }
            };
            let _ = writeln!(text, "{}", json!({ "end": end, "events": shown, "dropped": tap.dropped() }));
            return send(stream, text).await;
        }
    }
}

/// Bytes that are sent at once, about.
const BATCH_BYTES: usize = 64 << 10;

async fn send(stream: &mut Stream, text: String) -> io::Result<()> {
    stream.set_deadline(Instant::now() + Duration::from_millis(ADMIN_TIMEOUT_MILLIS), Cut::Both);
    let mut left = Gather::new(vec![Bytes::from(text)]);
    while !left.is_done() {
        left = stream.write_some(left).await?;
    }
    // Events may be long in coming.
    stream.clear_deadline();
    Ok(())
}

fn line(event: &Event) -> serde_json::Value {
    json!({
        "at": time_of(event.at),
        "request_id": RequestId(event.request_id).to_string(),
        "sender": event.client.to_string(),
        "series": event.series,
        "tenant": event.tenant,
        "rule": event.rule.as_ref().map(|(kind, detail)| json!({ "kind": kind, "detail": detail })),
        "merged_with": event.merged_with,
        "address": event.address.map(|address| address.to_string()),
        "status": Some(event.status).filter(|status| *status > 0),
        "seconds": rounded(event.took.as_secs_f64()),
        "result": match event.fate {
            Fate::Delivered => "stored",
            Fate::Rejected => "refused",
            Fate::Throttled | Fate::Retriable => "failed",
        },
        "reason": event.reason,
    })
}

// A tap's channel is read every few milliseconds; it has to hold what comes meanwhile.
const _: () = assert!(TAP_EVENTS_MAX >= 1_000);
