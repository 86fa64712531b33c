//! `io.prometheus.write.v2.Request`, as Remote Write 2.0 sends it (prometheus.io, "Remote-Write 2.0 specification";
//! the messages are in Prometheus' prompb/io/prometheus/write/v2/types.proto), read as ranges.
//!
//! Constraints that shaped it:
//!
//! * A series holds no text: its labels are references to a table of symbols, which stands beside the series, in
//!   front or behind. So a request is walked over twice: at its top for symbols and series, then in each series.
//! * A reference means nothing without its table, and a table that is cut down for one tenant moves them all. So every
//!   reference is looked at, in labels, exemplars and metadata alike, and one that points nowhere is refused
//!   here, wherever it stands and even if a later one overrides it.
//! * Whoever decodes behind us must see the tenant that we saw. What [`super::remote_write_v1`] says of that holds here,
//!   too. On top of it, references past 32 bits are refused, which some decoders cut off and others don't take; and so
//!   are series and metadata of Remote Write 1.0, which receivers of 2.0 ignore or refuse, and receivers that
//!   don't look at the `Content-Type` would take for all there is.
//! * Where decoders agree we agree: references come packed or not, in as many pieces as their sender likes, and of a
//!   number that is repeated the last counts.
#![forbid(unsafe_code)]

use super::protobuf::{self, take_field};
use super::remote_write_v1::TenantLabels;
use super::varint;

/// The key of a symbol in a request, as encoders write it: field 4, length-delimited.
pub const SYMBOL_KEY: u8 = 4 << 3 | 2;
/// The key of a series in a request: field 5, length-delimited.
pub const SERIES_KEY: u8 = 5 << 3 | 2;
/// The key of the references in a series or in an exemplar: field 1, packed.
pub const REFS_KEY: u8 = 1 << 3 | 2;
/// The key of an exemplar in a series: field 4, length-delimited.
pub const EXEMPLAR_KEY: u8 = 4 << 3 | 2;
/// The key of the metadata in a series: field 5, length-delimited.
pub const METADATA_KEY: u8 = 5 << 3 | 2;
/// The key of the help text in metadata: field 3, a number.
pub const HELP_KEY: u8 = 3 << 3;
/// The key of the unit in metadata: field 4, a number.
pub const UNIT_KEY: u8 = 4 << 3;

/// Bytes that are not a `Request`: the sender's fault, and no retry will help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the body is not a valid protobuf io.prometheus.write.v2.Request: {fault}, in the field at byte {at_byte}"
)]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// Where the field of the request that holds the fault begins, counted in inflated bytes.
    pub at_byte: usize,
}

/// What is wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It is no protobuf message, or one of another kind.
    #[error(transparent)]
    Protobuf(#[from] protobuf::Fault),
    /// The table of symbols must begin with the empty string (specification, "Symbols").
    #[error("the symbols do not begin with an empty one")]
    FirstSymbol,
    /// A reference to a symbol that is not there.
    #[error("a reference points past the {symbols} symbols")]
    Reference {
        /// How many there are.
        symbols: usize,
    },
    /// Labels are pairs of a name and a value.
    #[error("labels have an odd number of references")]
    OddLabels,
    /// A series or metadata as Remote Write 1.0 has them; 2.0 reserves their numbers.
    #[error("it belongs to Remote Write 1.0")]
    RemoteWriteV1,
}

impl From<varint::VarintFault> for Fault {
    fn from(fault: varint::VarintFault) -> Self {
        Self::Protobuf(fault.into())
    }
}

/// A known field of another wire type than the specification has for it.
const KNOWN_WIRE_TYPE: Fault = Fault::Protobuf(protobuf::Fault::KnownWireType);

/// A field's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Number(u64),
    /// A number of fixed size, or a group.
    Other,
}

/// Takes one field off the front of `input`, which must not be empty.
#[inline(always)]
fn take<'a>(input: &mut &'a [u8]) -> Result<(u32, Value<'a>), Fault> {
    let before = *input;
    if let [key @ 8..0x80, rest @ ..] = before
        && key & 7 == 0
    {
        let mut rest = rest;
        let number = varint::take(&mut rest)?;
        *input = rest;
        return Ok((u32::from(key >> 3), Value::Number(number)));
    }
    match take_field(input)? {
        (number, protobuf::Value::Bytes(bytes)) => Ok((number, Value::Bytes(bytes))),
        (number, protobuf::Value::Scalar) => Ok((number, take_long_scalar(before)?)),
        (number, protobuf::Value::Group) => Ok((number, Value::Other)),
    }
}

/// Reads the scalar in front of `field` once more, whose key is longer than a byte or says that its size is fixed.
#[cold]
fn take_long_scalar(mut field: &[u8]) -> Result<Value<'_>, Fault> {
    let key = varint::take(&mut field)?;
    Ok(if key & 7 == 0 { Value::Number(varint::take(&mut field)?) } else { Value::Other })
}

/// A field at the top of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field<'a> {
    /// A symbol.
    Symbol(&'a [u8]),
    /// A `TimeSeries`; [`Symbols::read`] looks into it.
    Series(&'a [u8]),
    /// An unknown field that holds one number.
    Scalar,
    /// An unknown field that holds bytes or a group.
    Other,
}

/// Walks over the fields of a request.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    request: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of an inflated request.
    pub fn new(request: &'a [u8]) -> Self {
        Self { request, rest: request }
    }

    /// Where the next field begins, and the last one ended.
    #[inline]
    pub fn at_byte(&self) -> usize {
        self.request.len() - self.rest.len()
    }

    /// The next field, if there is one.
    #[inline(always)]
    pub fn take(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let at_byte = self.at_byte();
        match take_field(&mut self.rest) {
            Ok((4, protobuf::Value::Bytes(symbol))) => Ok(Some(Field::Symbol(symbol))),
            Ok((5, protobuf::Value::Bytes(series))) => Ok(Some(Field::Series(series))),
            Ok((4 | 5, _)) => Err(Malformed { fault: KNOWN_WIRE_TYPE, at_byte }),
            Ok((1 | 3, _)) => Err(Malformed { fault: Fault::RemoteWriteV1, at_byte }),
            Ok((_, protobuf::Value::Scalar)) => Ok(Some(Field::Scalar)),
            Ok((_, protobuf::Value::Bytes(_) | protobuf::Value::Group)) => Ok(Some(Field::Other)),
            Err(fault) => Err(Malformed { fault: fault.into(), at_byte }),
        }
    }
}

/// One symbol of a request.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    /// Where in the inflated request it stands.
    begin: u32,
    bytes: u32,
}

/// The symbols of a request, which is at most `u32::MAX` bytes long.
#[derive(Debug)]
pub struct Symbols {
    all: Vec<Symbol>,
    longest_bytes: u32,
    /// Those that name tenant labels, and which, in the order of the symbols. More than one for a label if a symbol is
    /// repeated.
    labels: Vec<(u32, u32)>,
    /// The first of them, and how far behind it the last one stands. Most requests have one: then other labels are told
    /// apart by their number alone.
    first_label: u32,
    label_span: u32,
}

impl Default for Symbols {
    fn default() -> Self {
        Self { all: Vec::new(), longest_bytes: 0, labels: Vec::new(), first_label: u32::MAX, label_span: 0 }
    }
}

impl Symbols {
    /// Adds the next one, which ends where `end` bytes of the request have been read; `labels` are those that may name
    /// a tenant.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "within a request of at most u32::MAX bytes")]
    pub fn push(&mut self, symbol: &[u8], end: usize, labels: &TenantLabels<'_>) -> Result<(), Fault> {
        if self.all.is_empty() && !symbol.is_empty() {
            return Err(Fault::FirstSymbol);
        }
        let at = self.all.len() as u32;
        if let Some(label) = labels.position(symbol) {
            self.labels.push((at, label as u32));
            self.first_label = self.first_label.min(at);
            self.label_span = at - self.first_label;
        }
        let bytes = symbol.len() as u32;
        self.longest_bytes = self.longest_bytes.max(bytes);
        self.all.push(Symbol { begin: (end - symbol.len()) as u32, bytes });
        Ok(())
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Bytes of the longest.
    pub fn longest_bytes(&self) -> usize {
        self.longest_bytes as usize
    }

    /// The bytes of the one that is referred to; none if it is out of range. `request` is what they were found in.
    #[inline]
    pub fn get<'a>(&self, request: &'a [u8], reference: u32) -> &'a [u8] {
        let Some(symbol) = self.all.get(reference as usize) else { return &[] };
        let begin = symbol.begin as usize;
        request.get(begin..begin + symbol.bytes as usize).unwrap_or_default()
    }

    /// The field of the one that is referred to, from its key to its end, if it is one as encoders write it: its length
    /// has one byte.
    #[inline(always)]
    pub fn field<'a>(&self, request: &'a [u8], reference: u32) -> Option<&'a [u8]> {
        let symbol = self.all.get(reference as usize)?;
        let begin = symbol.begin as usize;
        let field = request.get(begin.checked_sub(2)?..begin + symbol.bytes as usize)?;
        let is_usual =
            symbol.bytes < 0x80 && *field.first_chunk()? == [SYMBOL_KEY, symbol.bytes.to_le_bytes()[0]];
        is_usual.then_some(field)
    }

    /// Forgets them, and gives memory back if it is more than `bytes_max`.
    pub(crate) fn release(&mut self, bytes_max: usize) {
        self.all.clear();
        self.labels.clear();
        (self.longest_bytes, self.first_label, self.label_span) = (0, u32::MAX, 0);
        if self.all.capacity() * size_of::<Symbol>() > bytes_max {
            self.all = Vec::new();
        }
        if self.labels.capacity() * size_of::<(u32, u32)>() > bytes_max {
            self.labels = Vec::new();
        }
    }

    /// Reads the series of a [`Field::Series`]: all of its references point at symbols, or it is refused.
    #[inline]
    pub fn read(&self, series: &[u8]) -> Result<Series, Fault> {
        let mut labels = LabelReader::new(self);
        let (mut samples, mut histograms, mut exemplars) = (0, 0, 0);
        let mut rest = series;
        while !rest.is_empty() {
            match take(&mut rest)? {
                (1, Value::Bytes(packed)) => labels.packed(packed)?,
                (1, Value::Number(reference)) => labels.single(reference)?,
                (2, Value::Bytes(_)) => samples += 1,
                (3, Value::Bytes(_)) => histograms += 1,
                (4, Value::Bytes(exemplar)) => {
                    exemplars += 1;
                    self.check_exemplar(exemplar)?;
                }
                (5, Value::Bytes(metadata)) => self.check_metadata(metadata)?,
                (1..=5, _) => return Err(KNOWN_WIRE_TYPE),
                _ => {}
            }
        }
        let (tenant, scattered) = (labels.end()?, labels.pieces > 1);
        Ok(Series { tenant, samples, histograms, exemplars, scattered })
    }

    fn check_exemplar(&self, mut exemplar: &[u8]) -> Result<(), Fault> {
        let mut labels = LabelReader::new(self);
        while !exemplar.is_empty() {
            match take(&mut exemplar)? {
                (1, Value::Bytes(packed)) => labels.packed(packed)?,
                (1, Value::Number(reference)) => labels.single(reference)?,
                (1, _) => return Err(KNOWN_WIRE_TYPE),
                _ => {}
            }
        }
        labels.end().map(drop)
    }

    #[inline]
    fn check_metadata(&self, mut metadata: &[u8]) -> Result<(), Fault> {
        while !metadata.is_empty() {
            match take(&mut metadata)? {
                (3 | 4, Value::Number(reference)) => drop(self.check(reference)?),
                (1 | 3 | 4, Value::Bytes(_) | Value::Other) => return Err(KNOWN_WIRE_TYPE),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether this may be the name of a label that names a tenant. Nearly all others are told by their number alone.
    #[inline(always)]
    fn may_name_tenant(&self, name: u32) -> bool {
        name.wrapping_sub(self.first_label) <= self.label_span
    }

    /// Which of the labels that may name a tenant this one is, if it has a value.
    #[inline(never)]
    fn tenant_label(&self, name: u32, value: u32) -> Option<u32> {
        let at = match self.labels.len() {
            1 => 0,
            _ => self.labels.binary_search_by_key(&name, |&(symbol, _)| symbol).ok()?,
        };
        let (symbol, label) = *self.labels.get(at)?;
        (symbol == name && self.all.get(value as usize)?.bytes > 0).then_some(label)
    }

    /// Takes a packed reference off the front of `packed`.
    #[inline(always)]
    fn take_reference(&self, packed: &mut &[u8]) -> Result<u32, Fault> {
        self.check(varint::take(packed)?)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "compared with a length before")]
    fn check(&self, reference: u64) -> Result<u32, Fault> {
        let symbols = self.all.len();
        if reference < symbols as u64 { Ok(reference as u32) } else { Err(Fault::Reference { symbols }) }
    }
}

/// What a series says of its tenant, and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Series {
    /// The label that names the tenant, if one does. Its value is not empty.
    pub tenant: Option<TenantLabel>,
    /// Float samples.
    pub samples: u32,
    /// Histograms.
    pub histograms: u32,
    /// Exemplars.
    pub exemplars: u32,
    /// The references of its labels stand in more than one field.
    pub scattered: bool,
}

/// The label that names the tenant of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TenantLabel {
    /// Its place among the series' labels.
    pub at: u32,
    /// The symbol that is its value.
    pub value: u32,
}

/// Reads references as labels: name, value, name, value, over as many fields as there are.
struct LabelReader<'a> {
    symbols: &'a Symbols,
    /// A name whose value has not come yet.
    name: Option<u32>,
    labels: u32,
    pieces: u32,
    /// The label found so far, and which of those that may name a tenant it is.
    tenant: Option<TenantLabel>,
    best: u32,
}

impl<'a> LabelReader<'a> {
    #[inline(always)]
    fn new(symbols: &'a Symbols) -> Self {
        Self { symbols, name: None, labels: 0, pieces: 0, tenant: None, best: u32::MAX }
    }

    /// A loop of its own, so that all it needs stays in registers: most of a scan is spent here.
    #[inline(never)]
    fn packed(&mut self, mut packed: &[u8]) -> Result<(), Fault> {
        let Self { symbols, mut labels, mut tenant, mut best, .. } = *self;
        self.pieces += 1;
        let mut name = self.name;
        while !packed.is_empty() {
            let reference = symbols.take_reference(&mut packed)?;
            let Some(its_name) = name else {
                name = Some(reference);
                continue;
            };
            name = None;
            if symbols.may_name_tenant(its_name)
                && let Some(label) = symbols.tenant_label(its_name, reference)
                && label < best
            {
                (best, tenant) = (label, Some(TenantLabel { at: labels, value: reference }));
            }
            labels += 1;
        }
        (self.name, self.labels, self.tenant, self.best) = (name, labels, tenant, best);
        Ok(())
    }

    /// A reference that is not packed.
    #[cold]
    fn single(&mut self, reference: u64) -> Result<(), Fault> {
        self.pieces += 1;
        let reference = self.symbols.check(reference)?;
        let Some(name) = self.name.take() else {
            self.name = Some(reference);
            return Ok(());
        };
        if let Some(label) = self.symbols.tenant_label(name, reference)
            && label < self.best
        {
            self.best = label;
            self.tenant = Some(TenantLabel { at: self.labels, value: reference });
        }
        self.labels += 1;
        Ok(())
    }

    /// The label that names the tenant, now that all have been read.
    #[inline(always)]
    fn end(&self) -> Result<Option<TenantLabel>, Fault> {
        if self.name.is_some() { Err(Fault::OddLabels) } else { Ok(self.tenant) }
    }
}

/// A field of a series, or of a message within one, that [`Symbols::read`] has taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member<'a> {
    /// Its number.
    pub number: u32,
    /// All of it, from its key to its end.
    pub raw: &'a [u8],
    /// What it holds, if that is bytes.
    pub bytes: Option<&'a [u8]>,
    /// What it holds, if that is a number of variable size.
    pub value: Option<u64>,
}

/// Walks over the fields of a series, or of a message within one. Of messages that [`Symbols::read`] did not look into
/// it may find that they are broken: then it ends, and [`Self::fault`] says why.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    rest: &'a [u8],
    fault: Option<Fault>,
}

impl<'a> Members<'a> {
    /// Of these bytes.
    #[inline(always)]
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message, fault: None }
    }

    /// What went wrong, if it ended early.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Member<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let before = self.rest;
        let (number, value) = match take(&mut self.rest) {
            Ok(field) => field,
            Err(fault) => {
                self.fault = Some(fault);
                self.rest = &[];
                return None;
            }
        };
        let raw = before.get(..before.len() - self.rest.len()).unwrap_or_default();
        let (bytes, value) = match value {
            Value::Bytes(bytes) => (Some(bytes), None),
            Value::Number(value) => (None, Some(value)),
            Value::Other => (None, None),
        };
        Some(Member { number, raw, bytes, value })
    }
}

/// The references of a series' or an exemplar's labels, over as many fields as there are.
#[derive(Clone, Debug)]
pub struct References<'a> {
    members: Members<'a>,
    packed: &'a [u8],
}

impl<'a> References<'a> {
    /// Of a message that [`Symbols::read`] has taken.
    pub fn new(message: &'a [u8]) -> Self {
        Self { members: Members::new(message), packed: &[] }
    }
}

impl Iterator for References<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        while self.packed.is_empty() {
            let member = self.members.find(|member| member.number == 1)?;
            match (member.bytes, member.value) {
                (Some(packed), _) => self.packed = packed,
                (None, value) => return u32::try_from(value?).ok(),
            }
        }
        u32::try_from(varint::take(&mut self.packed).ok()?).ok()
    }
}

#[cfg(test)]
mod tests;
