//! `prometheus.WriteRequest`, as Remote Write 1.0 sends it (prometheus.io, "Remote-Write 1.0 specification"; the
//! messages are in Prometheus' prompb/remote.proto and prompb/types.proto), read as ranges.
//!
//! Design constraints:
//!
//! * Only what is needed is read. In a series, labels are read, and samples and histograms are counted; their content
//!   is left to the upstream. Text is bytes, and need not be UTF-8.
//! * Later decoders must see the same tenant as we do. Input that decoders read differently is refused: varints that
//!   overflow, keys beyond 32 bits, known fields of another wire type, groups that do not close. Input that they read
//!   alike is accepted: of repeated fields in a label the last counts, keys and lengths may be longer than needed,
//!   fields may come in any order, and unknown fields may be anywhere.
//! * This is the server's hottest loop: 2,000 series have 18,000 labels. A label in the form that all encoders write
//!   takes a few compares. All others take the slow path.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::protobuf::{Fault, Value, read_label, take_field};
use super::same;

/// The key of a series in a request, as written by encoders: field 1, length-delimited.
pub const SERIES_KEY: u8 = 0x0a;
/// The key of a label in a series: field 1, length-delimited.
const LABEL_KEY: u8 = 0x0a;
/// The key of a name in a label: field 1, length-delimited.
const NAME_KEY: u8 = 0x0a;
/// The key of a value in a label: field 2, length-delimited.
const VALUE_KEY: u8 = 0x12;

/// The bytes are not a `WriteRequest`. The sender is at fault, and a retry does not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body is not a valid protobuf WriteRequest: {fault}, in the field at byte {at_byte}")]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// Offset of the top-level field that contains the fault, in inflated bytes.
    pub at_byte: usize,
}

/// A field at the top of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field<'a> {
    /// A `TimeSeries`; [`TenantLabels::read`] parses it.
    Series(&'a [u8]),
    /// A `MetricMetadata`; [`metadata_family`] parses it.
    Metadata(&'a [u8]),
    /// An unknown field that holds one number.
    Scalar,
    /// An unknown field that holds bytes or a group.
    Other,
}

/// Iterates over the fields of a request.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    request: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads an inflated request.
    pub fn new(request: &'a [u8]) -> Self {
        Self { request, rest: request }
    }

    /// Where the next field begins and the last one ended.
    #[inline]
    pub fn at_byte(&self) -> usize {
        self.request.len() - self.rest.len()
    }

    /// The next field, if there is one.
    #[inline]
    pub fn take(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if let Some(series) = take_usual_series(&mut self.rest) {
            return Ok(Some(Field::Series(series)));
        }
        let at_byte = self.at_byte();
        match take_field(&mut self.rest) {
            Ok((1, Value::Bytes(series))) => Ok(Some(Field::Series(series))),
            Ok((3, Value::Bytes(metadata))) => Ok(Some(Field::Metadata(metadata))),
            Ok((1 | 3, _)) => Err(Malformed { fault: Fault::KnownWireType, at_byte }),
            Ok((_, Value::Scalar)) => Ok(Some(Field::Scalar)),
            Ok((_, Value::Bytes(_) | Value::Group)) => Ok(Some(Field::Other)),
            Err(fault) => Err(Malformed { fault, at_byte }),
        }
    }
}

/// The metric family that a [`Field::Metadata`] describes; empty if it has no name.
pub fn metadata_family(mut metadata: &[u8]) -> Result<&[u8], Fault> {
    let mut family: &[u8] = &[];
    while !metadata.is_empty() {
        match take_field(&mut metadata)? {
            (2, Value::Bytes(name)) => family = name,
            (2, _) => return Err(Fault::KnownWireType),
            _ => {}
        }
    }
    Ok(family)
}

/// Takes a series whose length has two bytes, as nearly all have.
#[inline(always)]
fn take_usual_series<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let [SERIES_KEY, low @ 0x80..=0xff, high @ ..0x80, rest @ ..] = *input else { return None };
    let (series, rest) = rest.split_at_checked(usize::from(*low & 0x7f) | usize::from(*high) << 7)?;
    *input = rest;
    Some(series)
}

/// The tenant label and the content of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series<'a> {
    /// The label that names the tenant, if any. Its value is not empty.
    pub tenant: Option<Label<'a>>,
    /// Number of samples and histograms.
    pub samples: u32,
}

/// The labels that may name a tenant, by priority.
#[derive(Clone, Copy, Debug)]
pub struct TenantLabels<'a> {
    names: &'a [Box<[u8]>],
    /// Bit n is set if a wanted name has n bytes, modulo 64. The length alone rules out most labels.
    lengths: u64,
}

impl<'a> TenantLabels<'a> {
    /// Looks for `names`. The first that a series carries with a value decides.
    pub fn new(names: &'a [Box<[u8]>]) -> Self {
        let lengths = names.iter().fold(0, |lengths, name| lengths | length_bit(name.len()));
        Self { names, lengths }
    }

    /// Parses the series of a [`Field::Series`].
    ///
    /// Labels after the deciding one are not parsed.
    #[inline]
    pub fn read<'s>(&self, series: &'s [u8]) -> Result<Series<'s>, Fault> {
        let mut tenant = None;
        let mut priority = self.names.len();
        let mut samples = 0;
        let mut rest = series;
        while priority > 0 && !rest.is_empty() {
            rest = skip_labels(rest, self.lengths);
            if rest.is_empty() {
                break;
            }
            let begin = series.len() - rest.len();
            let (name, value) = match CanonicalLabel::read(rest) {
                Some(label) => {
                    rest = label.rest;
                    label.name_and_value()
                }
                None => {
                    let (number, value) = take_field(&mut rest)?;
                    samples += is_sample(number, &value)?;
                    let (1, Value::Bytes(label)) = (number, value) else { continue };
                    read_label(label)?
                }
            };
            if let Some(found) = self.position(name)
                && found < priority
                && !value.is_empty()
            {
                priority = found;
                tenant = Some(Label { range: begin..series.len() - rest.len(), name, value });
            }
        }
        while !rest.is_empty() {
            let (number, value) = take_field(&mut rest)?;
            samples += is_sample(number, &value)?;
        }
        Ok(Series { tenant, samples })
    }

    /// The priority of `name`, if it is a tenant label.
    #[inline]
    pub(crate) fn position(&self, name: &[u8]) -> Option<usize> {
        if self.lengths & length_bit(name.len()) == 0 {
            return None;
        }
        self.names.iter().position(|wanted| same(wanted, name))
    }
}

/// 1 for a sample or a histogram, 0 for any other field of a series.
#[inline(always)]
fn is_sample(number: u32, value: &Value<'_>) -> Result<u32, Fault> {
    match (number, value) {
        // Samples are field 2, histograms field 4. No branch, because it would be mispredicted: most fields are labels,
        // but the last one is not.
        (1..=4, Value::Bytes(_)) => Ok(!number & 1),
        (1..=4, _) => Err(Fault::KnownWireType),
        _ => Ok(0),
    }
}

#[inline(always)]
fn length_bit(bytes: usize) -> u64 {
    1 << (bytes % 64)
}

/// A label in the form written by encoders: a short name, a short value and nothing else.
struct CanonicalLabel<'a> {
    name_bytes: usize,
    /// The label after the length of its name.
    name_and_value: &'a [u8],
    /// The bytes after the label.
    rest: &'a [u8],
}

impl<'a> CanonicalLabel<'a> {
    /// Reads the label at the start of `fields`; `None` if there is none, or if it has another form.
    #[inline(always)]
    fn read(fields: &'a [u8]) -> Option<Self> {
        /// The two leading keys and one-byte lengths, checked in one compare.
        const MASK: u32 = u32::from_le_bytes([0xff, 0x80, 0xff, 0x80]);
        const FORM: u32 = u32::from_le_bytes([LABEL_KEY, 0, NAME_KEY, 0]);
        let head = u32::from_le_bytes(*fields.first_chunk()?);
        if head & MASK != FORM {
            return None;
        }
        let (label_bytes, name_bytes) = ((head >> 8 & 0xff) as usize, (head >> 24) as usize);
        let (label, rest) = fields.split_at_checked(2 + label_bytes)?;
        let name_and_value = label.get(4..)?;
        let &[key, value_bytes, ..] = name_and_value.get(name_bytes..)? else { return None };
        let fits = usize::from(value_bytes) + name_bytes + 2 == name_and_value.len();
        (key == VALUE_KEY && fits).then_some(Self { name_bytes, name_and_value, rest })
    }

    #[inline(always)]
    fn name_and_value(&self) -> (&'a [u8], &'a [u8]) {
        let (name, value) = self.name_and_value.split_at(self.name_bytes);
        (name, value.get(2..).unwrap_or_default())
    }
}

/// Skips labels in the form written by encoders, up to the first whose name has one of `lengths`.
///
/// A separate loop, so that everything stays in registers. Most of a scan is spent here.
#[inline(never)]
fn skip_labels(mut fields: &[u8], lengths: u64) -> &[u8] {
    while let Some(label) = CanonicalLabel::read(fields) {
        if lengths & length_bit(label.name_bytes) != 0 {
            break;
        }
        fields = label.rest;
    }
    fields
}

/// The labels, in order, of a series accepted by [`TenantLabels::read`].
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    series: &'a [u8],
    rest: &'a [u8],
    /// Bit n is set if names with n bytes, modulo 64, are wanted.
    lengths: u64,
}

/// One label of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label<'a> {
    /// Its range in the series, from its key to its end.
    pub range: Range<usize>,
    /// Its name.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Labels<'a> {
    /// Reads the series of a [`Field::Series`].
    pub fn new(series: &'a [u8]) -> Self {
        Self { series, rest: series, lengths: u64::MAX }
    }

    /// The same, but most labels are left out whose names are none of `names`. It is faster, as lengths tell them
    /// apart.
    pub(crate) fn about(series: &'a [u8], names: [&[u8]; 2]) -> Self {
        let lengths = names.iter().fold(0, |lengths, name| lengths | length_bit(name.len()));
        Self { lengths, ..Self::new(series) }
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = Label<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.rest = skip_labels(self.rest, self.lengths);
            if self.rest.is_empty() {
                return None;
            }
            let begin = self.series.len() - self.rest.len();
            let (name, value) = match CanonicalLabel::read(self.rest) {
                Some(label) => {
                    self.rest = label.rest;
                    label.name_and_value()
                }
                None => match take_field(&mut self.rest).ok()? {
                    (1, Value::Bytes(label)) => read_label(label).ok()?,
                    _ => continue,
                },
            };
            return Some(Label { range: begin..self.series.len() - self.rest.len(), name, value });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::GROUP_DEPTH_MAX;
    use crate::wire::varint::{self, VarintFault};

    /// A length-delimited field with a number below 16.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        varint::put(&mut field, bytes.len() as u64);
        field.extend_from_slice(bytes);
        field
    }

    fn label(name: &str, value: &str) -> Vec<u8> {
        field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
    }

    fn names(names: &[&str]) -> Vec<Box<[u8]>> {
        names.iter().map(|name| name.as_bytes().into()).collect()
    }

    /// The deciding value, and the bytes of its label.
    fn tenant<'s>(series: &'s [u8], wanted: &[&str]) -> Option<(&'s [u8], &'s [u8])> {
        let wanted = names(wanted);
        let label = TenantLabels::new(&wanted).read(series).unwrap().tenant?;
        Some((label.value, &series[label.range]))
    }

    fn fault(series: &[u8]) -> Fault {
        TenantLabels::new(&names(&["t"])).read(series).unwrap_err()
    }

    #[test]
    fn labels_about_two_names_leave_none_of_these_out() {
        let long = "v".repeat(200);
        let unusual = field(1, &[field(2, b"eu"), field(1, b"cluster")].concat());
        let series = [
            label("__name__", "up"),
            label("cluster", &long),
            field(2, b""),
            unusual,
            label("replica", "not wanted, but as long"),
            label("__replica__", "a"),
            label("job", "b"),
            label("__replica__", ""),
        ]
        .concat();
        let wanted: [&[u8]; 2] = [b"cluster", b"__replica__"];
        let only = |labels: Labels<'_>| {
            labels
                .filter(|label| wanted.contains(&label.name))
                .map(|label| (label.range, label.value.len()))
                .collect::<Vec<_>>()
        };
        let about = only(Labels::about(&series, wanted));
        assert_eq!(about.iter().map(|label| label.1).collect::<Vec<_>>(), [200, 2, 1, 0]);
        assert_eq!(about, only(Labels::new(&series)));
        assert_eq!(Labels::new(&series).count(), 7);
    }

    fn request_fault(request: &[u8]) -> Malformed {
        let mut fields = Fields::new(request);
        loop {
            match fields.take() {
                Ok(field) => assert!(field.is_some(), "{request:x?} has no fault"),
                Err(malformed) => return malformed,
            }
        }
    }

    #[test]
    fn distinguishes_the_fields_of_a_request() {
        let series = label("t", "a");
        let parts = [
            field(1, &series),
            field(3, b"metadata"),
            vec![2 << 3, 7],                         // varint
            [vec![9 << 3 | 1], vec![0; 8]].concat(), // 64 bits
            [vec![9 << 3 | 5], vec![0; 4]].concat(), // 32 bits
            field(4, b"symbols"),
            vec![5 << 3 | 3, 5 << 3 | 4], // an empty group
            field(1, &[]),
        ];
        let request = parts.concat();
        let mut fields = Fields::new(&request);
        let mut seen = Vec::new();
        while let Some(field) = fields.take().unwrap() {
            seen.push((field, fields.at_byte()));
        }
        let ends: Vec<usize> = (1..=parts.len()).map(|n| parts[..n].concat().len()).collect();
        let kinds = [
            Field::Series(&series),
            Field::Metadata(b"metadata"),
            Field::Scalar,
            Field::Scalar,
            Field::Scalar,
            Field::Other,
            Field::Other,
            Field::Series(&[]),
        ];
        assert_eq!(seen, kinds.into_iter().zip(ends).collect::<Vec<_>>());
    }

    #[test]
    fn finds_the_tenant_label_at_any_position() {
        let others = [label("__name__", "up"), label("job", "node"), field(2, &[0x11]), label("zone", "z")];
        for at in 0..=others.len() {
            let mut fields = others.to_vec();
            fields.insert(at, label("t", "a"));
            let series = fields.concat();
            assert_eq!(tenant(&series, &["t"]), Some((&b"a"[..], &label("t", "a")[..])));
        }
        assert_eq!(tenant(&others.concat(), &["t"]), None);
        assert_eq!(tenant(&[], &["t"]), None);
        // Other names of the same length, and longer or shorter ones.
        assert_eq!(tenant(&[label("u", "x"), label("", "x"), label("tt", "x")].concat(), &["t"]), None);
    }

    #[test]
    fn the_list_of_names_is_by_priority() {
        let series = [label("c", "3"), label("b", "2"), label("a", ""), label("b", "4")].concat();
        assert_eq!(tenant(&series, &["a", "b", "c"]).unwrap().0, b"2");
        assert_eq!(tenant(&series, &["c", "b"]).unwrap().0, b"3");
        assert_eq!(tenant(&series, &["a"]), None);
    }

    #[test]
    fn the_first_of_several_labels_counts_but_an_empty_one_is_none() {
        let series = [label("t", "a"), label("t", "b")].concat();
        assert_eq!(tenant(&series, &["t"]).unwrap().0, b"a");
        let series = [label("t", ""), label("t", "b")].concat();
        assert_eq!(tenant(&series, &["t"]), Some((&b"b"[..], &label("t", "b")[..])));
    }

    #[test]
    fn counts_samples_and_histograms() {
        let series =
            [field(2, b"x"), label("t", "a"), field(2, b""), field(3, b"exemplar"), field(4, b"h")].concat();
        let wanted = names(&["t"]);
        assert_eq!(TenantLabels::new(&wanted).read(&series).unwrap().samples, 3);
        assert_eq!(TenantLabels::new(&wanted).read(b"").unwrap().samples, 0);
    }

    #[test]
    fn reads_long_names_and_values() {
        for bytes in [127, 128, 129, 300, 20_000] {
            let (name, value) = ("n".repeat(bytes), "v".repeat(bytes));
            let series = [label(&"m".repeat(bytes), "x"), label(&name, &value), field(2, b"")].concat();
            assert_eq!(tenant(&series, &[&name]), Some((value.as_bytes(), &label(&name, &value)[..])));
        }
    }

    #[test]
    fn the_last_of_repeated_fields_in_a_label_counts() {
        let twice = |fields: &[Vec<u8>]| field(1, &fields.concat());
        let series = twice(&[field(1, b"x"), field(2, b"no"), field(1, b"t"), field(2, b"a")]);
        assert_eq!(tenant(&series, &["t"]), Some((&b"a"[..], &series[..])));
        let series = twice(&[field(1, b"t"), field(2, b"a"), field(1, b"x")]);
        assert_eq!(tenant(&series, &["t"]), None);
        let series = twice(&[field(1, b"t"), field(2, b"a"), field(2, b"")]);
        assert_eq!(tenant(&series, &["t"]), None);
        // In any order, and with unknown fields.
        let series = twice(&[field(2, b"a"), vec![15 << 3, 1], field(9, b"?"), field(1, b"t")]);
        assert_eq!(tenant(&series, &["t"]).unwrap().0, b"a");
    }

    #[test]
    fn keys_and_lengths_may_be_longer_than_needed() {
        // Key 0x0a as 0x8a 0x00, length 6 as 0x86 0x00: for the label, for its name and for its value.
        let label = [0x8a, 0, 0x8a, 0, 0x8a, 0, 0x81, 0, b't', 0x92, 0, 0x81, 0, b'a'];
        assert_eq!(tenant(&label, &["t"]), Some((&b"a"[..], &label[..])));
        let request = [0x8a, 0x80, 0, 0x81, 0x80, 0, 0x92];
        assert_eq!(Fields::new(&request).take(), Ok(Some(Field::Series(&[0x92]))));
    }

    #[test]
    fn refuses_known_fields_of_another_wire_type() {
        for number in 1..=4_u8 {
            for field in [vec![number << 3, 1], [vec![number << 3 | 1], vec![0; 8]].concat()] {
                assert_eq!(fault(&field), Fault::KnownWireType, "{field:?}");
                // Also after the deciding label.
                assert_eq!(fault(&[label("t", "a"), field].concat()), Fault::KnownWireType);
            }
        }
        for number in [1_u8, 3] {
            assert_eq!(request_fault(&[number << 3, 1]).fault, Fault::KnownWireType);
            assert_eq!(request_fault(&[number << 3 | 3, number << 3 | 4]).fault, Fault::KnownWireType);
        }
        for number in [1_u8, 2] {
            assert_eq!(fault(&field(1, &[number << 3 | 5, 0, 0, 0, 0])), Fault::KnownWireType);
        }
        // Unknown fields may have any type.
        let unknown = [vec![5 << 3, 1], field(6, b"x"), vec![7 << 3 | 5, 0, 0, 0, 0], label("t", "a")];
        assert_eq!(tenant(&unknown.concat(), &["t"]).unwrap().0, b"a");
    }

    #[test]
    fn refuses_truncated_input() {
        let series = [label("job", "node"), label("t", "a"), field(2, b"sample")].concat();
        let whole = [field(1, &series), vec![9 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
        let series_end = field(1, &series).len();
        for end in 1..whole.len() {
            if end != series_end {
                let malformed = request_fault(&whole[..end]);
                let at_byte = if end < series_end { 0 } else { series_end };
                assert_eq!(malformed.at_byte, at_byte);
            }
        }
        assert_eq!(fault(&series[..series.len() - 1]), Fault::Truncated);
        assert_eq!(fault(&field(1, &[0x0a, 5, b't'])), Fault::Truncated);
        assert_eq!(fault(&[0x0a]), Fault::Varint(VarintFault::Truncated));
        // A length of nearly 2^64 must not wrap around.
        let huge = [[0x0a].as_slice(), &[0xff; 9], &[0x01]].concat();
        assert_eq!(fault(&huge), Fault::Truncated);
        assert_eq!(request_fault(&huge).fault, Fault::Truncated);
    }

    #[test]
    fn refuses_bad_keys() {
        assert_eq!(request_fault(&[0x02, 0]).fault, Fault::FieldNumber);
        assert_eq!(request_fault(&[0x00, 0]).fault, Fault::FieldNumber);
        assert_eq!(request_fault(&[9 << 3 | 6, 0]).fault, Fault::WireType);
        assert_eq!(request_fault(&[9 << 3 | 7, 0]).fault, Fault::WireType);
        // 2^32 + 0x0a: a decoder that keeps 32 bits of the key would see a series.
        assert_eq!(request_fault(&[0x8a, 0x80, 0x80, 0x80, 0x10, 0]).fault, Fault::FieldNumber);
        // The highest field number.
        let mut last = Fields::new(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 1]);
        assert_eq!(last.take(), Ok(Some(Field::Scalar)));
        let overlong = [0xff; 11];
        assert_eq!(request_fault(&overlong).fault, Fault::Varint(VarintFault::Overflow));
        assert_eq!(
            request_fault(&overlong).to_string(),
            "the body is not a valid protobuf WriteRequest: a varint does not fit 64 bits, in the field at byte 0"
        );
    }

    #[test]
    fn groups_close_in_order_and_nesting_is_bounded() {
        let begin = |number: u8| number << 3 | 3;
        let end = |number: u8| number << 3 | 4;
        let good = [begin(5), begin(6), 7 << 3, 1, 0x0a, 2, end(5), end(5), end(6), end(5)];
        let mut fields = Fields::new(&good);
        assert_eq!(fields.take(), Ok(Some(Field::Other)));
        assert_eq!(fields.take(), Ok(None));
        assert_eq!(request_fault(&[end(5)]).fault, Fault::Group);
        assert_eq!(request_fault(&[begin(5), end(6)]).fault, Fault::Group);
        assert_eq!(request_fault(&[begin(5), begin(6), end(5), end(6)]).fault, Fault::Group);
        assert_eq!(request_fault(&[begin(5), 7 << 3]).fault, Fault::Varint(VarintFault::Truncated));
        let nested = |depth| [vec![begin(5); depth], vec![end(5); depth]].concat();
        assert_eq!(Fields::new(&nested(GROUP_DEPTH_MAX)).take(), Ok(Some(Field::Other)));
        assert_eq!(request_fault(&nested(GROUP_DEPTH_MAX + 1)).fault, Fault::Group);
        // A group in a series, or in a label, is skipped.
        let series = [good.to_vec(), field(1, &[good.to_vec(), field(1, b"t"), field(2, b"a")].concat())];
        assert_eq!(tenant(&series.concat(), &["t"]).unwrap().0, b"a");
    }

    #[test]
    fn text_is_bytes() {
        let series = field(1, &[field(1, b"t"), field(2, b"\xff\xfe")].concat());
        assert_eq!(tenant(&series, &["t"]).unwrap().0, b"\xff\xfe");
    }

    #[test]
    fn lists_labels_in_order() {
        let series = [label("a", "1"), field(2, b""), label("b", ""), label("a", "2")].concat();
        let labels: Vec<_> =
            Labels::new(&series).map(|label| (label.name, label.value, &series[label.range])).collect();
        let (a1, b, a2) = (label("a", "1"), label("b", ""), label("a", "2"));
        assert_eq!(labels, [(&b"a"[..], &b"1"[..], &a1[..]), (b"b", b"", &b), (b"a", b"2", &a2)]);
    }
}
