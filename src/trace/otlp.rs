//! Spans, and their message: `ExportTraceServiceRequest` of opentelemetry-proto.
#![forbid(unsafe_code)]

use std::time::Instant;

use crate::wire::message::Message;

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace.
    pub trace: u128,
    /// The span's own ID.
    pub id: u64,
    /// The ID of the span that caused it; 0 if there is none.
    pub parent: u64,
    /// What happened in it.
    pub name: &'static str,
    /// Its place between processes.
    pub kind: Kind,
    /// When it began.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// What is known about it. Numbers that are 0 are given, too.
    pub attributes: Vec<(&'static str, Value)>,
}

/// A span's place between processes. The numbers are those of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work within this process.
    Internal = 1,
    /// The work for a request that came in.
    Server = 2,
    /// A request that went out.
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// `STATUS_CODE_ERROR`
const ERROR: u64 = 2;

/// Writes a batch. `now` is the same moment by both clocks: spans know only the one that never jumps.
pub(super) fn request(spans: &[Span], now: (Instant, u64)) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |resource_spans| {
        resource_spans.message(1, |resource| {
            attribute(resource, 1, "service.name", &"tenantry".into());
            attribute(resource, 1, "service.version", &env!("CARGO_PKG_VERSION").into());
            attribute(resource, 1, "process.pid", &u64::from(std::process::id()).into());
        });
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| scope.bytes(1, b"tenantry"));
            spans.iter().for_each(|one| scope_spans.message(2, |message| span(message, one, now)));
        });
    });
    request.into_bytes()
}

fn span(message: &mut Message, span: &Span, now: (Instant, u64)) {
    message.bytes(1, &span.trace.to_be_bytes());
    message.bytes(2, &span.id.to_be_bytes());
    if span.parent != 0 {
        message.bytes(4, &span.parent.to_be_bytes());
    }
    message.bytes(5, span.name.as_bytes());
    message.number(6, span.kind as u64);
    message.fixed64(7, nanos_at(span.start, now));
    message.fixed64(8, nanos_at(span.end, now));
    span.attributes.iter().for_each(|(key, value)| attribute(message, 9, key, value));
    if let Some(error) = &span.error {
        message.message(15, |status| {
            status.bytes(2, error.as_bytes());
            status.number(3, ERROR);
        });
    }
}

fn attribute(message: &mut Message, field: u32, key: &str, value: &Value) {
    message.message(field, |pair| {
        pair.bytes(1, key.as_bytes());
        pair.message(2, |any| match value {
            Value::Text(text) => any.bytes(1, text.as_bytes()),
            Value::Number(number) => any.number_even_if_zero(3, *number),
        });
    });
}

/// The Unix time of a moment in nanoseconds.
fn nanos_at(moment: Instant, (now, now_nanos): (Instant, u64)) -> u64 {
    let ago = now.saturating_duration_since(moment).as_nanos();
    let ahead = moment.saturating_duration_since(now).as_nanos();
    let shift = |nanos: u128| u64::try_from(nanos).unwrap_or(u64::MAX);
    now_nanos.saturating_sub(shift(ago)).saturating_add(shift(ahead))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_before_and_after_now_have_their_unix_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(nanos_at(now, (now, 5_000_000_000)), 5_000_000_000);
        assert_eq!(nanos_at(now + second, (now, 5_000_000_000)), 6_000_000_000);
        assert_eq!(nanos_at(now, (now + second, 5_000_000_000)), 4_000_000_000);
    }
}
