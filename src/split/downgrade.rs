//! Translates Remote Write 2.0 series to Remote Write 1.0, for upstreams that support no other.
//!
//! References become text in the labels of series and exemplars. Samples, histograms and exemplars keep their bytes, as
//! 1.0 has the same field numbers, except for fields that 1.0 lacks. Data that 1.0 cannot express is omitted and
//! counted ([`Lost`]), as Prometheus does when it sends 1.0.
//!
//! Metadata belongs to a series in 2.0 and to a metric family in 1.0, so a part gets the first metadata of each family.
//! The family's name is the metric's name without the suffix that its type adds to series names (Prometheus,
//! model/textparse and scrape: `isSeriesPartOfFamily`).
//!
//! A string is written once for each series that refers to it. So the size of the result is estimated before anything
//! is written ([`GrowthBudget`]).
#![forbid(unsafe_code)]

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::error::SplitError;
use super::nested::Nested;
use super::scan::{Lost, Scan};
use crate::limits::SCRATCH_BYTES_MAX;
use crate::wire::remote_write_v1::SERIES_KEY;
use crate::wire::remote_write_v2::{Fault, Members, References, Symbols};
use crate::wire::varint;

/// Keys of Remote Write 1.0, all length-delimited but the last. A label in a series or an exemplar; its name and value.
const LABEL_KEY: u8 = 1 << 3 | 2;
const NAME_KEY: u8 = 1 << 3 | 2;
const VALUE_KEY: u8 = 2 << 3 | 2;
/// A sample, an exemplar and a histogram in a series.
const SAMPLE_KEY: u8 = 2 << 3 | 2;
const EXEMPLAR_KEY: u8 = 3 << 3 | 2;
const HISTOGRAM_KEY: u8 = 4 << 3 | 2;
/// Metadata in a request; its family name, help text, unit and type.
const METADATA_KEY: u8 = 3 << 3 | 2;
const FAMILY_KEY: u8 = 2 << 3 | 2;
const HELP_KEY: u8 = 4 << 3 | 2;
const UNIT_KEY: u8 = 5 << 3 | 2;
const TYPE_KEY: u8 = 1 << 3;

/// The fields that 1.0 shares with 2.0 in one kind of message.
struct Kind {
    /// The last field of 1.0.
    last: u32,
    /// The field of the start timestamp, which 1.0 lacks.
    start_timestamp: Option<u32>,
}

const SAMPLE: Kind = Kind { last: 2, start_timestamp: Some(3) };
const HISTOGRAM: Kind = Kind { last: 16, start_timestamp: Some(17) };
const EXEMPLAR: Kind = Kind { last: 3, start_timestamp: None };
/// The created timestamp of a series, which preceded the start timestamps of samples and histograms.
const CREATED_TIMESTAMP: u32 = 6;

/// Schema -53 (custom buckets) of a histogram, zigzag-encoded as on the wire.
const CUSTOM_SCHEMA: u64 = 105;

/// Maximum size of a message's key and length.
const HEADER_BYTES: usize = 6;

/// Returns the labels of a series or an exemplar, as text, without the one at index `cut`.
pub(super) fn labels<'a>(
    inflated: &'a [u8],
    symbols: &Symbols,
    message: &'a [u8],
    cut: Option<u32>,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let mut references = References::new(message);
    let pairs = std::iter::from_fn(move || Some((references.next()?, references.next()?)));
    let kept = pairs.zip(0..).filter(move |(_, at)| Some(*at) != cut);
    kept.map(|((name, value), _)| (symbols.get(inflated, name), symbols.get(inflated, value)))
}

/// The data of a series that remains in 1.0.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Kept {
    /// Samples and histograms.
    pub(super) samples: u32,
    /// The histograms among `samples`.
    pub(super) histograms: u32,
    pub(super) exemplars: u32,
    /// Whether it has metadata for its metric's family.
    pub(super) metadata: bool,
    /// Whether its metadata is dropped, because the series has no name and so no family.
    metadata_dropped: bool,
    /// Its maximum size in the part, in bytes.
    pub(super) bytes_max: usize,
    lost: Lost,
}

impl Kept {
    /// Whether it has samples, histograms or exemplars.
    pub(super) fn has_series(&self) -> bool {
        self.samples > 0 || self.exemplars > 0
    }

    /// Adds its losses to `scan`.
    pub(super) fn count(&self, scan: &mut Scan) {
        let (all, lost) = (&mut scan.lost, &self.lost);
        all.custom_histograms += lost.custom_histograms;
        all.start_timestamps += lost.start_timestamps;
        all.fields += lost.fields;
        // A series with only metadata is not lost.
        all.series += u64::from(!self.has_series() && !self.metadata);
        scan.metadata_dropped += u64::from(self.metadata_dropped);
    }
}

/// Measures the data of a series, which [`Symbols::read`] has validated.
///
/// # Errors
/// If a message within it is malformed.
pub(super) fn measure(inflated: &[u8], symbols: &Symbols, series: &[u8]) -> Result<Kept, Fault> {
    let text_bytes = |message| -> usize {
        let labels = labels(inflated, symbols, message, None);
        labels.map(|(name, value)| 3 * HEADER_BYTES + name.len() + value.len()).sum()
    };
    let mut kept = Kept { bytes_max: HEADER_BYTES + series.len() + text_bytes(series), ..Kept::default() };
    let mut created = 0;
    for member in Members::new(series) {
        match (member.number, member.bytes, member.value) {
            (1, ..) => {}
            (2, Some(sample), _) => {
                kept.samples += 1;
                kept.lost.add(&SAMPLE.lost(sample)?);
            }
            (3, Some(histogram), _) => {
                let lost = HISTOGRAM.lost(histogram)?;
                if is_custom(histogram) {
                    kept.lost.custom_histograms += 1;
                } else {
                    kept.samples += 1;
                    kept.histograms += 1;
                    kept.lost.add(&lost);
                }
            }
            (4, Some(exemplar), _) => {
                kept.exemplars += 1;
                kept.bytes_max += HEADER_BYTES + text_bytes(exemplar);
                kept.lost.add(&EXEMPLAR.lost(exemplar)?);
            }
            (5, Some(metadata), _) => {
                let unknown = Members::new(metadata).filter(|member| !matches!(member.number, 1 | 3 | 4));
                kept.lost.fields += unknown.count() as u64;
            }
            (CREATED_TIMESTAMP, _, Some(timestamp)) => created = timestamp,
            _ => kept.lost.fields += 1,
        }
    }
    kept.lost.start_timestamps += u64::from(created != 0);
    if let Some(Family { name, help, unit, .. }) = Family::read(inflated, symbols, series) {
        kept.metadata = !name.is_empty();
        kept.metadata_dropped = name.is_empty();
        kept.bytes_max += 5 * HEADER_BYTES + name.len() + help.len() + unit.len();
    }
    Ok(kept)
}

impl Kind {
    /// Counts the data of `message` that 1.0 cannot express.
    fn lost(&self, message: &[u8]) -> Result<Lost, Fault> {
        let mut lost = Lost::default();
        let mut start = 0;
        let mut members = Members::new(message);
        for member in members.by_ref().filter(|member| member.number > self.last) {
            match member.value {
                Some(timestamp) if Some(member.number) == self.start_timestamp => start = timestamp,
                _ => lost.fields += 1,
            }
        }
        lost.start_timestamps = u64::from(start != 0);
        members.fault().map_or(Ok(lost), Err)
    }
}

impl Lost {
    fn add(&mut self, other: &Self) {
        self.custom_histograms += other.custom_histograms;
        self.series += other.series;
        self.start_timestamps += other.start_timestamps;
        self.fields += other.fields;
    }
}

/// Whether a histogram has custom buckets.
fn is_custom(histogram: &[u8]) -> bool {
    let schema =
        Members::new(histogram).filter(|member| member.number == 4).filter_map(|member| member.value).last();
    schema == Some(CUSTOM_SCHEMA)
}

/// Metadata that a series has for its metric's family.
struct Family<'a> {
    /// The family's name; empty if the series has no name.
    name: &'a [u8],
    /// The symbol of the metric's name, which begins with the family's.
    metric: u32,
    kind: u64,
    help: &'a [u8],
    unit: &'a [u8],
}

impl<'a> Family<'a> {
    /// Reads the metadata of a series that [`Symbols::read`] has validated; `None` if it has none.
    fn read(inflated: &'a [u8], symbols: &Symbols, series: &'a [u8]) -> Option<Self> {
        let (mut kind, mut help, mut unit): (u64, &[u8], &[u8]) = (0, &[], &[]);
        let all = Members::new(series).filter(|member| member.number == 5).filter_map(|member| member.bytes);
        for member in all.flat_map(Members::new) {
            let Some(value) = member.value else { continue };
            let text = || symbols.get(inflated, u32::try_from(value).unwrap_or_default());
            match member.number {
                1 => kind = value,
                3 => help = text(),
                4 => unit = text(),
                _ => {}
            }
        }
        if kind == 0 && help.is_empty() && unit.is_empty() {
            return None;
        }
        let metric = metric(inflated, symbols, series);
        let name = family_name(symbols.get(inflated, metric), kind);
        Some(Self { name, metric, kind, help, unit })
    }
}

/// Returns the symbol of a series' metric name, or the empty symbol if it has none.
fn metric(inflated: &[u8], symbols: &Symbols, series: &[u8]) -> u32 {
    let mut references = References::new(series);
    while let (Some(name), Some(value)) = (references.next(), references.next()) {
        if symbols.get(inflated, name) == b"__name__" {
            return value;
        }
    }
    0
}

/// Returns the name of a metric's family. `kind` is the number of its type in `Metadata.MetricType`.
fn family_name(metric: &[u8], kind: u64) -> &[u8] {
    let suffixes: &[&[u8]] = match kind {
        1 => &[b"_total"],
        3 => &[b"_bucket", b"_sum", b"_count"],
        4 => &[b"_bucket", b"_gsum", b"_gcount"],
        5 => &[b"_sum", b"_count"],
        6 => &[b"_info"],
        _ => &[],
    };
    let family = suffixes.iter().find_map(|suffix| metric.strip_suffix(*suffix));
    family.filter(|family| !family.is_empty()).unwrap_or(metric)
}

/// A budget for the size of all parts of a request together.
pub(super) struct GrowthBudget {
    bytes_max: usize,
    bytes_left: usize,
}

impl GrowthBudget {
    /// Creates a budget of `bytes_max`, or of the maximum size of a part if that is less.
    pub(super) fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(u32::MAX as usize);
        Self { bytes_max, bytes_left: bytes_max }
    }

    /// Takes the bytes that a series needs.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), SplitError> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or(SplitError::TooMuchGrowth { bytes_max: self.bytes_max })?;
        Ok(())
    }
}

/// The metric families whose metadata the current part already has.
#[derive(Default, Debug)]
pub(super) struct Families {
    /// A symbol, and the number of its bytes that are the family's name.
    table: HashTable<(u32, usize)>,
    hasher: RandomState,
}

impl Families {
    /// Adds a family. Returns `false` if it was there before.
    fn insert(&mut self, inflated: &[u8], symbols: &Symbols, family: &Family<'_>) -> bool {
        let Self { table, hasher } = self;
        let name =
            |&(symbol, bytes): &(u32, usize)| symbols.get(inflated, symbol).get(..bytes).unwrap_or_default();
        let hash = hasher.hash_one(family.name);
        if table.find(hash, |known| name(known) == family.name).is_some() {
            return false;
        }
        table.insert_unique(hash, (family.metric, family.name.len()), |known| hasher.hash_one(name(known)));
        true
    }

    pub(super) fn release(&mut self) {
        self.table.clear();
        if self.table.capacity() * size_of::<(u32, usize)>() > SCRATCH_BYTES_MAX {
            self.table = HashTable::new();
        }
    }
}

/// Writes the series of one part as Remote Write 1.0.
pub(super) struct Writer<'a> {
    inflated: &'a [u8],
    symbols: &'a Symbols,
    families: &'a mut Families,
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Creates the writer of a part. All series of the request must have been [measured](measure).
    pub(super) fn new(
        inflated: &'a [u8],
        symbols: &'a Symbols,
        families: &'a mut Families,
        out: &'a mut Vec<u8>,
    ) -> Self {
        families.table.clear();
        Self { inflated, symbols, families, out }
    }

    /// Writes a series without the label at index `cut`, and its metadata if that is the first of its family.
    pub(super) fn series(&mut self, series: &[u8], cut: Option<u32>) {
        let begin = self.out.len();
        self.out.push(SERIES_KEY);
        // Text takes more room than references: most likely more than 127 bytes.
        let nested = Nested::open(self.out, series.len().max(0x80));
        self.labels(series, cut);
        let mut is_empty = true;
        for member in Members::new(series) {
            match (member.number, member.bytes) {
                (2, Some(sample)) => self.message(SAMPLE_KEY, sample, &SAMPLE),
                (3, Some(histogram)) if !is_custom(histogram) => {
                    self.message(HISTOGRAM_KEY, histogram, &HISTOGRAM);
                }
                (4, Some(exemplar)) => self.exemplar(exemplar),
                _ => continue,
            }
            is_empty = false;
        }
        if is_empty {
            self.out.truncate(begin)
        } else {
            nested.close(self.out)
        }
        self.metadata(series);
    }

    fn labels(&mut self, message: &[u8], cut: Option<u32>) {
        for (name, value) in labels(self.inflated, self.symbols, message, cut) {
            let bytes = 2
                + varint::len(name.len() as u64)
                + name.len()
                + varint::len(value.len() as u64)
                + value.len();
            self.out.push(LABEL_KEY);
            varint::put(self.out, bytes as u64);
            self.text(NAME_KEY, name);
            self.text(VALUE_KEY, value);
        }
    }

    fn text(&mut self, key: u8, text: &[u8]) {
        self.out.push(key);
        varint::put(self.out, text.len() as u64);
        self.out.extend_from_slice(text);
    }

    /// Writes a message without the fields that 1.0 lacks.
    fn message(&mut self, key: u8, message: &[u8], kind: &Kind) {
        let known = || Members::new(message).filter(|member| member.number <= kind.last);
        self.out.push(key);
        varint::put(self.out, known().map(|member| member.raw.len()).sum::<usize>() as u64);
        for member in known() {
            self.out.extend_from_slice(member.raw);
        }
    }

    fn exemplar(&mut self, exemplar: &[u8]) {
        self.out.push(EXEMPLAR_KEY);
        let nested = Nested::open(self.out, exemplar.len());
        self.labels(exemplar, None);
        for member in Members::new(exemplar).filter(|member| matches!(member.number, 2..=3)) {
            self.out.extend_from_slice(member.raw);
        }
        nested.close(self.out);
    }

    fn metadata(&mut self, series: &[u8]) {
        let Some(family) = Family::read(self.inflated, self.symbols, series) else { return };
        if family.name.is_empty() || !self.families.insert(self.inflated, self.symbols, &family) {
            return;
        }
        self.out.push(METADATA_KEY);
        let nested = Nested::open(self.out, family.name.len() + family.help.len());
        self.out.push(TYPE_KEY);
        varint::put(self.out, family.kind);
        self.text(FAMILY_KEY, family.name);
        self.text(HELP_KEY, family.help);
        self.text(UNIT_KEY, family.unit);
        nested.close(self.out);
    }
}
