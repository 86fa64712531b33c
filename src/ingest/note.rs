//! What is noted about a request while it is served, for its line in the access log and its trace.
//!
//! Nothing is noted, and nothing allocated, unless one of them is switched on.

use std::cell::Cell;
use std::time::Instant;

use super::Ingest;
use crate::config::plan::Plan;
use crate::exchange::fragment::RequestId;
use crate::http::Passed;
use crate::http::passed::TraceParent;
use crate::log::access;
use crate::model::{Protocol, Signal};
use crate::split::Scan;
use crate::trace::{self, Kind, Span, Traced};

/// The notes about one request.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) request_id: RequestId,
    pub(super) protocol: Option<Protocol>,
    /// Bytes of the body.
    pub(super) bytes: usize,
    arrived: Instant,
    tenants: usize,
    series: u64,
    samples: u64,
    inflated_bytes: usize,
    /// The trace that the sender names.
    parent: Option<TraceParent>,
    /// Its own trace and span, if it is traced.
    span: Option<(u128, u64)>,
}

impl Note {
    /// Has the request not be traced any more.
    pub(super) fn forget_trace(&mut self) {
        (self.parent, self.span) = (None, None);
    }

    /// Notes what a scan has found.
    pub(super) fn scanned(&mut self, scan: &Scan) {
        (self.tenants, self.series, self.samples) = (scan.tenants, scan.series, scan.samples);
        self.inflated_bytes = scan.inflated_bytes;
    }

    /// What the parts of the request carry along, if it is traced.
    pub(super) fn traced(&self) -> Option<Traced> {
        let (trace, request) = self.span?;
        Some(Traced { trace, request, upstream: Cell::new(0), waits_since: Cell::new(Instant::now()) })
    }
}

impl Ingest {
    /// Begins the notes about a request, if there is a use for them. `passed` has the trace that its sender names.
    pub(super) fn note(&self, arrived: Instant, passed: Option<&Passed>, plan: &Plan) -> Option<Box<Note>> {
        if !plan.access_log.enabled && self.shared.tracer().is_none() {
            return None;
        }
        let parent = passed.and_then(Passed::trace_parent);
        Some(Box::new(Note {
            request_id: self.request_id(),
            protocol: None,
            bytes: 0,
            arrived,
            tenants: 0,
            series: 0,
            samples: 0,
            inflated_bytes: 0,
            span: self.span(parent, plan),
            parent,
        }))
    }

    /// The trace and the span of a request that is traced: because its sender says so or, if the sender does not say
    /// anything, by chance.
    fn span(&self, parent: Option<TraceParent>, plan: &Plan) -> Option<(u128, u64)> {
        self.shared.tracer()?;
        let is_sampled = match (parent, plan.tracing.one_in) {
            (Some(parent), _) => parent.is_sampled,
            (None, Some(one_in)) => is_next(&self.traces_until_sample, one_in),
            (None, None) => false,
        };
        is_sampled.then(|| (parent.map_or_else(trace::trace_id, |parent| parent.trace), trace::span_id()))
    }

    /// Exports the span of a request's split, which began at `start`.
    pub(super) fn note_split(&self, note: &Note, start: Instant) {
        let (Some(tracer), Some((trace, request))) = (self.shared.tracer(), note.span) else { return };
        tracer.push(Span {
            trace,
            id: trace::span_id(),
            parent: request,
            name: "split",
            kind: Kind::Internal,
            start,
            end: Instant::now(),
            error: None,
            attributes: vec![
                ("tenantry.inflated_bytes", (note.inflated_bytes as u64).into()),
                ("tenantry.tenants", (note.tenants as u64).into()),
            ],
        });
    }

    /// Logs and exports what was noted about a request that was answered with `status`.
    pub(super) fn note_answer(&self, note: &Note, status: u16, client: std::net::SocketAddr, plan: &Plan) {
        let (end, log) = (Instant::now(), &plan.access_log);
        let took = end.saturating_duration_since(note.arrived);
        if log.enabled && log.is_for(status, took) && is_next(&self.lines_until_sample, log.one_in) {
            let trace_id = note.span.map(|(trace, _)| trace).or(note.parent.map(|parent| parent.trace));
            access::request(&access::Request {
                request_id: note.request_id.0,
                client,
                protocol: note.protocol.map(name),
                status,
                took,
                bytes: note.bytes,
                tenants: note.tenants,
                series: note.series,
                samples: note.samples,
                trace_id,
            });
        }
        let (Some(tracer), Some((trace, id))) = (self.shared.tracer(), note.span) else { return };
        let mut attributes = vec![
            ("http.response.status_code", u64::from(status).into()),
            ("http.request.body.size", (note.bytes as u64).into()),
            ("client.address", client.ip().to_string().into()),
            ("tenantry.request_id", note.request_id.to_string().into()),
            ("tenantry.tenants", (note.tenants as u64).into()),
            ("tenantry.series", note.series.into()),
            ("tenantry.samples", note.samples.into()),
        ];
        attributes.extend(note.protocol.map(|protocol| ("tenantry.protocol", name(protocol).into())));
        let error = (status >= 500).then(|| format!("answered {status}"));
        tracer.push(Span {
            trace,
            id,
            parent: note.parent.map_or(0, |parent| parent.span),
            name: "ingest",
            kind: Kind::Server,
            start: note.arrived,
            end,
            error,
            attributes,
        });
    }
}

/// Whether it is the turn of this one, if it is every `one_in`th's. The first is chosen.
fn is_next(until: &Cell<usize>, one_in: usize) -> bool {
    match until.get() {
        0 => {
            until.set(one_in.saturating_sub(1));
            true
        }
        left => {
            until.set(left.min(one_in) - 1);
            false
        }
    }
}

/// The protocol's name in logs and traces.
fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::RemoteWriteV1 => "remote_write_v1",
        Protocol::RemoteWriteV2 => "remote_write_v2",
        Protocol::Loki => "loki",
        Protocol::LokiJson => "loki_json",
        Protocol::Otlp(Signal::Metrics) => "otlp_metrics",
        Protocol::Otlp(Signal::Logs) => "otlp_logs",
        Protocol::Otlp(Signal::Traces) => "otlp_traces",
        Protocol::OtlpJson(Signal::Metrics) => "otlp_metrics_json",
        Protocol::OtlpJson(Signal::Logs) => "otlp_logs_json",
        Protocol::OtlpJson(Signal::Traces) => "otlp_traces_json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_so_many_is_chosen_and_a_lower_number_holds_at_once() {
        let until = Cell::new(0);
        let chosen: Vec<_> = (0..9).filter(|_| is_next(&until, 4)).collect();
        assert_eq!(chosen, [0, 4, 8]);
        assert!(!is_next(&until, 1_000_000) || until.get() < 4);
        let until = Cell::new(1_000_000);
        assert_eq!((0..5).filter(|_| is_next(&until, 2)).count(), 2);
        assert!((0..5).all(|_| is_next(&Cell::new(0), 1)));
    }
}
