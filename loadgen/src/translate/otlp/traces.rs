//! Traces: a sample is a span. Its trace ID bears the value, and all other numbers follow from value and time.

use testkit::proto_otlp::{ExportTraceServiceRequest, KeyValue, ResourceSpans, ScopeSpans, Span};

use super::{Reader, Series, Target, attributes, expect_scope, scope, strange};
use crate::proto::Sample;
use crate::translate::{Unreadable, nanoseconds, odd_nanoseconds, read_nanoseconds};

/// `SPAN_KIND_SERVER`.
const SERVER: i32 = 2;

pub(super) fn export(targets: &[Target<'_>]) -> ExportTraceServiceRequest {
    let resource = |target: &Target<'_>| {
        let spans = target.series.iter().flat_map(spans).collect();
        ResourceSpans {
            resource: target.resource(),
            scope_spans: vec![ScopeSpans { scope: scope(), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    };
    ExportTraceServiceRequest { resource_spans: targets.iter().map(resource).collect() }
}

fn spans(series: &Series<'_>) -> Vec<Span> {
    let attributes = attributes(&series.labels);
    series.samples.iter().map(|sample| span(&series.name, sample, attributes.clone())).collect()
}

fn span(name: &str, sample: &Sample, attributes: Vec<KeyValue>) -> Span {
    let (bits, start) = (sample.value.to_bits(), nanoseconds(sample));
    let mixed = mix(bits ^ mix(start.cast_unsigned()));
    Span {
        // No ID may be zero.
        trace_id: [bits.to_be_bytes(), (mixed | 1).to_be_bytes()].concat(),
        span_id: (mix(mixed) | 1).to_be_bytes().to_vec(),
        name: name.to_owned(),
        kind: SERVER,
        start_time_unix_nano: start.cast_unsigned(),
        end_time_unix_nano: start.wrapping_add(odd_nanoseconds(sample.value)).cast_unsigned(),
        attributes,
        ..Span::default()
    }
}

/// Spreads each bit over all (the end of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

pub(super) fn read(export: ExportTraceServiceRequest, reader: &mut Reader) -> Result<(), Unreadable> {
    for resource in export.resource_spans {
        reader.resource(resource.resource, &resource.schema_url)?;
        for scope in resource.scope_spans {
            expect_scope(scope.scope.as_ref(), &scope.schema_url)?;
            for span in scope.spans {
                let sample = read_span(&span).ok_or_else(|| strange(&span))?;
                reader.item(&span.name, span.attributes, sample)?;
            }
        }
    }
    Ok(())
}

fn read_span(found: &Span) -> Option<Sample> {
    let bits = found.trace_id.first_chunk().map(|bits| f64::from_bits(u64::from_be_bytes(*bits)))?;
    let sample = read_nanoseconds(found.start_time_unix_nano.cast_signed(), bits)?;
    (*found == span(&found.name, &sample, found.attributes.clone())).then_some(sample)
}
