//! The spans of upstream requests, for parts of requests that are traced.

use std::time::Instant;

use super::Egress;
use super::outgoing::Outgoing;
use super::tenant_lane::TenantLane;
use crate::exchange::fragment::Fragment;
use crate::model::Failure;
use crate::trace::{self, Kind, Span, Traced, Tracer, Value};
use crate::upstream::client::Reply;

impl Egress {
    /// Ends the waits of a batch that is about to be sent, and begins the spans of its request. The request names that
    /// of its first fragment to the upstream.
    pub(super) fn begin_spans(&self, lane: &TenantLane, batch: &[Box<Fragment>], now: Instant) {
        let Some(tracer) = self.shared.tracer() else { return };
        for traced in batch.iter().filter_map(|fragment| fragment.traced.as_deref()) {
            traced.upstream.set(trace::span_id());
            let attributes = vec![("tenantry.tenant", lane.tenant.as_str().into())];
            child(tracer, traced, "wait", Kind::Internal, (traced.waits_since.get(), now), None, attributes);
        }
    }

    /// Ends the spans that [`begin_spans`](Self::begin_spans) has begun at `sent`.
    pub(super) fn end_spans(
        &self,
        lane: &TenantLane,
        batch: Outgoing<'_>,
        sent: Instant,
        result: &Result<Reply, Failure>,
    ) {
        let Some(tracer) = self.shared.tracer() else { return };
        let now = Instant::now();
        for traced in batch.iter().filter_map(|fragment| fragment.traced.as_deref()) {
            let mut attributes: Vec<(&'static str, Value)> = vec![
                ("tenantry.tenant", lane.tenant.as_str().into()),
                ("tenantry.fragments", (batch.len() as u64).into()),
                ("http.request.method", "POST".into()),
                ("http.request.body.size", (batch.bytes() as u64).into()),
            ];
            let error = match result {
                Ok(reply) => {
                    attributes.push(("http.response.status_code", u64::from(reply.status).into()));
                    (!(200..300).contains(&reply.status))
                        .then(|| format!("the upstream answered {}", reply.status))
                }
                Err(failure) => Some(failure.to_string()),
            };
            child(tracer, traced, "upstream", Kind::Client, (sent, now), error, attributes);
            // If it is sent again, it waits from now on.
            traced.waits_since.set(now);
        }
    }
}

/// Exports a span below that of the request.
fn child(
    tracer: &Tracer,
    traced: &Traced,
    name: &'static str,
    kind: Kind,
    (start, end): (Instant, Instant),
    error: Option<String>,
    attributes: Vec<(&'static str, Value)>,
) {
    let id = if kind == Kind::Client { traced.upstream.get() } else { trace::span_id() };
    let (trace, parent) = (traced.trace, traced.request);
    tracer.push(Span { trace, id, parent, name, kind, start, end, error, attributes });
}
