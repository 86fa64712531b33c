//! Shows the series of a request one by one, with all their labels.
//!
//! This is for people who want to know why a series goes where it goes, and takes its time. It reads what the splitter
//! reads, with the same parsers. What it shows, [`Splitter`](super::Splitter) has to have accepted before: it checks
//! less.
#![forbid(unsafe_code)]

mod labelled;
mod resources;

use std::borrow::Cow;
use std::ops::ControlFlow;

pub use labelled::Labelled;
use labelled::{Pair, Visit, collect};

use super::downgrade;
use super::error::SplitError;
use super::request::Request;
use super::scan::Body;
use crate::model::{Protocol, SplitLimits};
use crate::wire::loki::labels::Labels as StreamLabels;
use crate::wire::loki::{self, Stream, StreamField, StreamFields, entry_metadata};
use crate::wire::otlp::Notation;
use crate::wire::remote_write_v1::{self, Labels, TenantLabels};
use crate::wire::remote_write_v2::{self, Symbols};

/// Calls `visit` for each series of a body, for each entry of a stream that has structured metadata, and for each item
/// of a resource, until it breaks off. What shares its labels and has nothing else is shown at once. Streams without
/// entries are passed over, as they need no tenant, and so are series with more than `labels_max` labels.
///
/// # Errors
/// If the body cannot be inflated or read. Then some series may have been shown.
pub fn each_series(
    body: Body,
    limits: SplitLimits,
    labels_max: usize,
    mut visit: impl FnMut(&Labelled<'_>) -> ControlFlow<()>,
) -> Result<(), SplitError> {
    let protocol = body.protocol;
    let mut request = Request::default();
    request.open(body, limits.inflated_bytes_max)?;
    match protocol {
        Protocol::RemoteWriteV1 => each_of_v1(request.bytes(), labels_max, &mut visit),
        Protocol::RemoteWriteV2 => each_of_v2(request.bytes(), labels_max, &mut visit),
        Protocol::Loki | Protocol::LokiJson => each_stream(request.bytes(), labels_max, &mut visit),
        Protocol::Otlp(signal) => {
            resources::each_resource(request.bytes(), (signal, Notation::Protobuf), labels_max, &mut visit)
        }
        Protocol::OtlpJson(signal) => {
            resources::each_resource(request.bytes(), (signal, Notation::Json), labels_max, &mut visit)
        }
    }
}

fn borrowed<'a>(pair: (&'a [u8], &'a [u8])) -> Pair<'a> {
    (Cow::Borrowed(pair.0), Cow::Borrowed(pair.1))
}

fn each_of_v1(inflated: &[u8], labels_max: usize, visit: &mut impl Visit) -> Result<(), SplitError> {
    let none = TenantLabels::new(&[]);
    let mut fields = remote_write_v1::Fields::new(inflated);
    let mut place = 0;
    loop {
        let at_byte = fields.at_byte();
        let Some(field) = fields.take()? else { return Ok(()) };
        let remote_write_v1::Field::Series(series) = field else { continue };
        let malformed = |fault| remote_write_v1::Malformed { fault, at_byte };
        let samples = none.read(series).map_err(malformed)?.samples.into();
        place += 1;
        let labels = Labels::new(series).map(|label| borrowed((label.name, label.value)));
        let Some(labels) = collect(labels, labels_max) else { continue };
        if visit(&Labelled { labels, within: Vec::new(), place, samples, lost_in_v1: false }).is_break() {
            return Ok(());
        }
    }
}

fn each_of_v2(inflated: &[u8], labels_max: usize, visit: &mut impl Visit) -> Result<(), SplitError> {
    let none = TenantLabels::new(&[]);
    let mut symbols = Symbols::default();
    let mut all = Vec::new();
    let mut fields = remote_write_v2::Fields::new(inflated);
    loop {
        let at_byte = fields.at_byte();
        let malformed = |fault| remote_write_v2::Malformed { fault, at_byte };
        match fields.take()? {
            Some(remote_write_v2::Field::Symbol(symbol)) => {
                symbols.push(symbol, fields.at_byte(), &none).map_err(malformed)?;
            }
            Some(remote_write_v2::Field::Series(series)) => all.push((at_byte, series)),
            Some(_) => {}
            None => break,
        }
    }
    for ((at_byte, series), place) in all.into_iter().zip(1..) {
        let malformed = |fault| remote_write_v2::Malformed { fault, at_byte };
        let seen = symbols.read(series).map_err(malformed)?;
        let kept = downgrade::measure(inflated, &symbols, series).map_err(malformed)?;
        let labels = downgrade::labels(inflated, &symbols, series, None).map(borrowed);
        let Some(labels) = collect(labels, labels_max) else { continue };
        let samples = u64::from(seen.samples) + u64::from(seen.histograms);
        let lost_in_v1 = !kept.has_series() && !kept.metadata;
        if visit(&Labelled { labels, within: Vec::new(), place, samples, lost_in_v1 }).is_break() {
            return Ok(());
        }
    }
    Ok(())
}

fn each_stream(inflated: &[u8], labels_max: usize, visit: &mut impl Visit) -> Result<(), SplitError> {
    let mut fields = loki::Fields::new(inflated);
    let mut place = 0;
    loop {
        let at_byte = fields.at_byte();
        let Some(field) = fields.take()? else { return Ok(()) };
        let loki::Field::Stream(stream) = field else { continue };
        place += 1;
        let malformed = |fault| loki::Malformed { fault, at_byte };
        let seen = Stream::read(stream).map_err(malformed)?;
        let text = stream.get(seen.labels).unwrap_or_default();
        let Some(labels) = stream_labels(text, place, labels_max)? else { continue };
        let mut shown = Labelled { labels, within: Vec::new(), place, samples: 0, lost_in_v1: false };
        let mut entries = StreamFields::new(stream);
        while let Some((field, _)) = entries.take().map_err(malformed)? {
            let StreamField::Entry(entry) = field else { continue };
            let Some(metadata) = collect(entry_metadata(entry).map(borrowed), labels_max) else { continue };
            if metadata.is_empty() {
                shown.samples += 1;
                continue;
            }
            // The labels may be long: they are not copied for each entry.
            let without = std::mem::replace(&mut shown.samples, 1);
            shown.within.push(metadata);
            if visit(&shown).is_break() {
                return Ok(());
            }
            shown.samples = without;
            shown.within.clear();
        }
        if shown.samples > 0 && visit(&shown).is_break() {
            return Ok(());
        }
    }
}

/// The labels of a stream; `None` if there are too many.
fn stream_labels(text: &[u8], place: u64, labels_max: usize) -> Result<Option<Vec<Pair<'_>>>, SplitError> {
    let mut labels = StreamLabels::new(text);
    let mut all = Vec::new();
    let malformed = |fault| SplitError::Labels { place, labels: crate::tenant::excerpt(text), fault };
    while let Some(label) = labels.take().map_err(malformed)? {
        if all.len() >= labels_max {
            return Ok(None);
        }
        all.push((label.name, label.value));
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use testkit::proto_loki::{Entry, PushRequest, Stream as LokiStream};

    use super::*;
    use crate::wire::inflate::Compression;

    /// A stream may have thousands of entries with metadata, and a thousand labels. To copy the labels for each entry
    /// would take as long as their product.
    #[test]
    fn the_labels_of_a_stream_are_not_copied_for_each_entry() {
        let mut stream = LokiStream::new(r#"{app="a\tb", t="x"}"#, &[]);
        let entry = |n, metadata: &[_]| Entry::new(n, "line", metadata);
        stream.entries = (0..5).map(|n| entry(n, &[("trace", "1")])).chain([entry(5, &[])]).collect();
        let bytes = PushRequest { streams: vec![stream] }.to_block();
        let body = Body { protocol: Protocol::Loki, compression: Compression::Snappy, bytes };
        let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 3 };
        let mut seen = Vec::new();
        let read = each_series(body, limits, 10, |series| {
            // The first value has an escape, so it is not a slice of the body.
            let (labels, value) = (series.labels.as_ptr().addr(), series.labels[0].1.as_ptr().addr());
            seen.push((labels, value, series.samples));
            assert_eq!(*series.labels[0].1, *b"a\tb");
            ControlFlow::Continue(())
        });
        assert!(read.is_ok(), "{read:?}");
        // Each entry with metadata, and at the end the one without. A copy would be at another place than the original.
        let (labels, value, _) = seen[0];
        assert_eq!(seen, [(labels, value, 1); 6]);
    }
}
