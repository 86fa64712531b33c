//! Halves a part that its upstream finds too large.
//!
//! This is rare, so it starts from the elements and keeps no scratch buffers. The cut is between two entries (series or
//! streams), near the middle of their bytes. Both halves get what belongs to the request as a whole.
#![forbid(unsafe_code)]

use super::coder::{Coder, content_of};
use super::otlp;
use super::scratch::narrow;
use crate::model::{Coding, Part, Protocol, Signal};
use crate::wire::loki::{self, STREAM_KEY, Stream, StreamField, StreamFields};
use crate::wire::otlp::Notation;
use crate::wire::remote_write_v1::{Field, Fields, TenantLabels};
use crate::wire::remote_write_v2::{self, Series, Symbols};
use crate::wire::varint;

/// Whether [`halve`] makes two parts of this one, as far as its counts tell. What is cut between series needs several
/// of them; a stream is also cut between its entries, and an export only between items.
pub fn can_be_halved(part: &Part) -> bool {
    match part.protocol {
        Protocol::RemoteWriteV1 | Protocol::RemoteWriteV2 => part.series > 1,
        Protocol::Loki | Protocol::LokiJson => part.series > 1 || part.samples > 1,
        Protocol::Otlp(_) | Protocol::OtlpJson(_) => part.samples > 1,
    }
}

/// Halves `part`. The two parts together have its entries in the same order; `None` if it has only one entry.
/// Deterministic: the same part always gives the same halves.
pub fn halve(part: &Part) -> Option<[Part; 2]> {
    let inflated = content_of(part)?;
    let halves = match part.protocol {
        Protocol::RemoteWriteV1 => halve_v1(&inflated)?,
        Protocol::RemoteWriteV2 => halve_v2(&inflated)?,
        Protocol::Loki | Protocol::LokiJson => halve_loki(&inflated)?,
        Protocol::Otlp(signal) => halve_export(&inflated, signal, Notation::Protobuf)?,
        Protocol::OtlpJson(signal) => halve_export(&inflated, signal, Notation::Json)?,
    };
    let mut coder = Coder::default();
    // Halves are sent alone, so they are coded at once.
    let coding = Coding::of(part.coding.sent);
    Some(halves.map(|half| Part {
        elements: coder.elements(&half.bytes, coding.now),
        coding,
        inflated_bytes: narrow(half.bytes.len()),
        series: half.series,
        samples: half.samples,
        histograms: half.kinds.map_or(part.histograms, |(histograms, _)| histograms),
        exemplars: half.kinds.map_or(part.exemplars, |(_, exemplars)| exemplars),
        ..part.clone()
    }))
}

fn halve_export(export: &[u8], signal: Signal, notation: Notation) -> Option<[Half; 2]> {
    let halves = otlp::halve(export, signal, notation)?;
    Some(halves.map(|(bytes, series, samples)| Half { bytes, series, samples, kinds: None }))
}

/// The content of one half.
struct Half {
    bytes: Vec<u8>,
    series: u32,
    samples: u32,
    /// Histograms and exemplars, in Remote Write 2.0.
    kinds: Option<(u32, u32)>,
}

/// A field of the request that goes into one half.
struct Entry<'a> {
    bytes: &'a [u8],
    /// Its end in the request, in bytes.
    end: usize,
    series: u32,
    samples: u32,
}

fn halve_v1(request: &[u8]) -> Option<[Half; 2]> {
    let labels = TenantLabels::new(&[]);
    let (mut entries, mut shared) = (Vec::new(), Vec::new());
    let mut fields = Fields::new(request);
    loop {
        let begin = fields.at_byte();
        let Some(field) = fields.take().ok()? else { break };
        let end = fields.at_byte();
        let bytes = request.get(begin..end)?;
        match field {
            Field::Series(series) => {
                let samples = labels.read(series).ok()?.samples;
                entries.push(Entry { bytes, end, series: 1, samples });
            }
            Field::Metadata(_) => entries.push(Entry { bytes, end, series: 0, samples: 0 }),
            Field::Scalar | Field::Other => shared.extend_from_slice(bytes),
        }
    }
    divide(&shared, &entries, request.len())
}

/// Halves a Remote Write 2.0 request. Each half gets its own symbol table.
fn halve_v2(request: &[u8]) -> Option<[Half; 2]> {
    let labels = TenantLabels::new(&[]);
    let mut symbols = Symbols::default();
    let (mut entries, mut shared) = (Vec::new(), Vec::new());
    let mut fields = remote_write_v2::Fields::new(request);
    loop {
        let begin = fields.at_byte();
        let Some(field) = fields.take().ok()? else { break };
        let end = fields.at_byte();
        match field {
            remote_write_v2::Field::Symbol(symbol) => symbols.push(symbol, end, &labels).ok()?,
            remote_write_v2::Field::Series(bytes) => {
                entries.push(Entry { bytes, end, series: 1, samples: 0 })
            }
            remote_write_v2::Field::Scalar | remote_write_v2::Field::Other => {
                shared.extend_from_slice(request.get(begin..end)?);
            }
        }
    }
    let read = entries.iter().map(|entry| symbols.read(entry.bytes));
    let series = read.collect::<Result<Vec<Series>, _>>().ok()?;
    let (first, second) = cut(&entries, request.len())?;
    let (firsts, seconds) = series.split_at_checked(first.len())?;
    Some([(first, firsts), (second, seconds)].map(|(entries, series)| {
        let mut bytes = shared.clone();
        let its = entries.iter().map(|entry| entry.bytes);
        super::remote_write_v2::write(request, &symbols, its, &mut bytes);
        let sum = |of: fn(&Series) -> u32| series.iter().map(of).sum();
        Half {
            bytes,
            series: narrow(entries.len()),
            samples: sum(|series| series.samples + series.histograms),
            kinds: Some((sum(|series| series.histograms), sum(|series| series.exemplars))),
        }
    }))
}

fn halve_loki(request: &[u8]) -> Option<[Half; 2]> {
    let (mut entries, mut shared) = (Vec::new(), Vec::new());
    let mut fields = loki::Fields::new(request);
    let mut last = None;
    loop {
        let begin = fields.at_byte();
        let Some(field) = fields.take().ok()? else { break };
        let end = fields.at_byte();
        let bytes = request.get(begin..end)?;
        match field {
            loki::Field::Stream(stream) => {
                let samples = Stream::read(stream).ok()?.entries;
                entries.push(Entry { bytes, end, series: 1, samples });
                last = Some(stream);
            }
            loki::Field::Scalar | loki::Field::Other => shared.extend_from_slice(bytes),
        }
    }
    if entries.len() > 1 {
        return divide(&shared, &entries, request.len());
    }
    let halves = halve_stream(last?)?;
    Some(halves.map(|half| {
        let mut bytes = shared.clone();
        bytes.push(STREAM_KEY);
        varint::put(&mut bytes, half.bytes.len() as u64);
        bytes.extend_from_slice(&half.bytes);
        Half { bytes, series: 1, ..half }
    }))
}

/// Halves the entries of one stream. All its other fields, such as its labels, go into both halves.
fn halve_stream(stream: &[u8]) -> Option<[Half; 2]> {
    let (mut entries, mut shared) = (Vec::new(), Vec::new());
    let mut fields = StreamFields::new(stream);
    while let Some((field, range)) = fields.take().ok()? {
        let (bytes, end) = (stream.get(range.clone())?, range.end);
        match field {
            StreamField::Entry(_) => entries.push(Entry { bytes, end, series: 0, samples: 1 }),
            _ => shared.extend_from_slice(bytes),
        }
    }
    divide(&shared, &entries, stream.len())
}

/// Makes two halves, both with `shared` and each with a part of the entries, which end within `bytes`.
fn divide(shared: &[u8], entries: &[Entry<'_>], bytes: usize) -> Option<[Half; 2]> {
    let (first, second) = cut(entries, bytes)?;
    Some([first, second].map(|entries| Half {
        bytes: [shared, &entries.iter().map(|entry| entry.bytes).collect::<Vec<_>>().concat()].concat(),
        series: entries.iter().map(|entry| entry.series).sum(),
        samples: entries.iter().map(|entry| entry.samples).sum(),
        kinds: None,
    }))
}

/// Cuts as near to the middle of `bytes` as possible, with at least one entry on either side.
fn cut<'e, 'a>(entries: &'e [Entry<'a>], bytes: usize) -> Option<(&'e [Entry<'a>], &'e [Entry<'a>])> {
    let from_middle = |at: &usize| entries.get(at - 1).map(|before| before.end.abs_diff(bytes / 2));
    let middle = (1..entries.len()).min_by_key(from_middle)?;
    entries.split_at_checked(middle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MergeKey;
    use crate::tenant::{IdRules, TenantId};
    use crate::wire::snappy::Deflater;

    fn part(request: &[u8]) -> Part {
        Part {
            tenant: TenantId::new("a", IdRules::Mimir).unwrap(),
            protocol: Protocol::RemoteWriteV1,
            elements: Deflater::default().elements(request),
            coding: crate::model::Coding::SNAPPY,
            inflated_bytes: narrow(request.len()),
            series: 0,
            samples: 0,
            histograms: 0,
            exemplars: 0,
            merge: MergeKey::Ha(None),
        }
    }

    /// A series with two samples and a name of `name_bytes`.
    fn series(name_bytes: usize) -> Vec<u8> {
        let field = |key: u8, bytes: &[u8]| {
            let mut field = vec![key];
            varint::put(&mut field, bytes.len() as u64);
            [field, bytes.to_vec()].concat()
        };
        let label = [field(0x0a, b"__name__"), field(0x12, &vec![b'n'; name_bytes])].concat();
        field(0x0a, &[field(0x0a, &label), field(0x12, b"sample"), field(0x12, b"sample")].concat())
    }

    #[test]
    fn halves_keep_all_series_in_order_and_are_cut_near_the_middle() {
        for sizes in [&[10, 10][..], &[10, 10, 10], &[1000, 10, 10], &[10, 10, 1000], &[10, 1000, 10, 20]] {
            let all: Vec<_> = sizes.iter().map(|&size| series(size)).collect();
            let halves = halve(&part(&all.concat())).unwrap();
            let bytes = halves.each_ref().map(|half| content_of(half).unwrap());
            assert_eq!(bytes.concat(), all.concat(), "{sizes:?}");
            assert!(bytes.iter().all(|half| !half.is_empty()), "{sizes:?}");
            assert_eq!(halves[0].series + halves[1].series, narrow(sizes.len()));
            assert_eq!(halves[0].samples + halves[1].samples, 2 * narrow(sizes.len()));
            let largest = all.iter().map(Vec::len).max().unwrap();
            assert!(bytes[0].len().abs_diff(bytes[1].len()) <= largest, "{sizes:?}");
        }
    }

    #[test]
    fn halving_ends_with_single_series() {
        let all: Vec<_> = (0..37).map(|at| series(at * 7)).collect();
        let (mut left, mut seen) = (vec![part(&all.concat())], Vec::new());
        while let Some(next) = left.pop() {
            match halve(&next) {
                Some([first, second]) => left.extend([second, first]),
                None => seen.push(content_of(&next).unwrap()),
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_push_is_halved_by_streams_and_a_single_stream_by_entries() {
        use prost::Message;
        use testkit::proto_loki::{Entry, PushRequest, Stream};
        let stream = |labels: &str, lines: &[&str]| Stream {
            labels: labels.to_owned().into(),
            entries: lines
                .iter()
                .map(|&line| Entry { line: line.to_owned().into(), ..Entry::default() })
                .collect(),
            hash: 7,
        };
        let push = |streams: &[Stream]| PushRequest { streams: streams.to_vec() };
        let part = |push: &PushRequest| Part { protocol: Protocol::Loki, ..part(&push.encode_to_vec()) };
        let decode = |part: &Part| PushRequest::decode(&content_of(part).unwrap()[..]).unwrap();
        let (one, two) = (stream("{a=\"1\"}", &["x", "y", "z"]), stream("{a=\"2\"}", &["u"]));
        let [first, second] = halve(&part(&push(&[one.clone(), two.clone()]))).unwrap();
        assert_eq!((decode(&first), decode(&second)), (push(&[one]), push(std::slice::from_ref(&two))));
        assert_eq!(halve(&second), None, "one entry");
        assert!(can_be_halved(&first) && !can_be_halved(&second));
        let [head, tail] = halve(&first).unwrap();
        let both = [stream("{a=\"1\"}", &["x"]), stream("{a=\"1\"}", &["y", "z"])];
        assert_eq!([decode(&head), decode(&tail)], both.map(|stream| push(&[stream])));
        assert_eq!((head.series, head.samples, tail.series, tail.samples), (1, 1, 1, 2));
    }

    #[test]
    fn each_half_of_a_2_0_request_has_its_own_symbols() {
        use prost::Message;
        use testkit::proto_v2::{Request, Sample, TimeSeries};
        let series = |labels_refs: &[u32], samples| TimeSeries {
            labels_refs: labels_refs.to_vec(),
            samples: vec![Sample { value: 1.0, timestamp: 5, start_timestamp: 4 }; samples],
            ..TimeSeries::default()
        };
        let request = |symbols: &[&str], timeseries: Vec<TimeSeries>| Request {
            symbols: symbols.iter().map(|symbol| symbol.to_string().into()).collect(),
            timeseries,
        };
        let part = |bytes: &[u8]| Part { protocol: Protocol::RemoteWriteV2, histograms: 9, ..part(bytes) };
        let decode = |part: &Part| Request::decode(&content_of(part).unwrap()[..]).unwrap();
        let all = [series(&[4, 1], 1), series(&[1, 2], 2), series(&[3, 1], 9)];
        let whole = request(&["", "a", "b", "c", "d"], all.to_vec()).encode_to_vec();
        let scalar = [9 << 3, 7];
        let [first, second] = halve(&part(&[&whole[..], &scalar].concat())).unwrap();
        let two = vec![series(&[1, 2], 1), series(&[2, 3], 2)];
        assert_eq!(decode(&first), request(&["", "d", "a", "b"], two));
        assert_eq!(decode(&second), request(&["", "c", "a"], vec![series(&[1, 2], 9)]));
        let counts = [&first, &second].map(|half| (half.series, half.samples, half.histograms));
        assert_eq!(counts, [(2, 3, 0), (1, 9, 0)]);
        assert!(
            content_of(&first).unwrap().starts_with(&scalar)
                && content_of(&second).unwrap().starts_with(&scalar)
        );
        assert_eq!(halve(&second), None, "one series");
        assert!(can_be_halved(&first) && !can_be_halved(&second));
    }

    #[test]
    fn request_fields_go_into_both_halves_and_metadata_counts_as_entries() {
        let scalar = [2 << 3, 7];
        let metadata = [3 << 3 | 2, 1, b'm'];
        let request = [&scalar[..], &series(5), &metadata].concat();
        let [first, second] = halve(&part(&request)).unwrap();
        assert_eq!(content_of(&first).unwrap(), [&scalar[..], &series(5)].concat());
        assert_eq!(content_of(&second).unwrap(), [&scalar[..], &metadata].concat());
        assert_eq!((first.series, second.series), (1, 0));
        assert_eq!(halve(&part(&[&scalar[..], &series(5)].concat())), None);
    }
}
