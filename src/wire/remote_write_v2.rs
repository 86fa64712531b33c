//! `io.prometheus.write.v2.Request`, as Remote Write 2.0 sends it (prometheus.io, "Remote-Write 2.0 specification"; the
//! messages are in Prometheus' prompb/io/prometheus/write/v2/types.proto), read as ranges.
//!
//! Design constraints:
//!
//! * A series contains no text. Its labels are references to a table of symbols, which may come before or after the
//!   series. So a request is read in two passes: the top level for symbols and series, then each series.
//! * A reference is meaningless without its table, and reducing the table for one tenant renumbers all references. So
//!   every reference is read, in labels, exemplars and metadata. A dangling one is refused wherever it is, even if a
//!   later one overrides it.
//! * Later decoders must see the same tenant as we do; see [`super::remote_write_v1`]. In addition, references beyond
//!   32 bits are refused, because some decoders truncate them and others reject them. So are series and metadata of
//!   Remote Write 1.0: receivers of 2.0 ignore or refuse them, but a receiver that does not look at the `Content-Type`
//!   would see nothing else.
//! * Input that decoders read alike is accepted: references may be packed or not, in any number of pieces, and of a
//!   repeated number the last counts.
#![forbid(unsafe_code)]

use super::protobuf::{self, take_field};
use super::remote_write_v1::TenantLabels;
use super::varint;

/// The key of a symbol in a request, as written by encoders: field 4, length-delimited.
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

/// The bytes are not a `Request`. The sender is at fault, and a retry does not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the body is not a valid protobuf io.prometheus.write.v2.Request: {fault}, in the field at byte {at_byte}"
)]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// Offset of the top-level field that contains the fault, in inflated bytes.
    pub at_byte: usize,
}

/// Why a request is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It is not a protobuf message, or one of another type.
    #[error(transparent)]
    Protobuf(#[from] protobuf::Fault),
    /// The table of symbols does not begin with the empty string (specification, "Symbols").
    #[error("the symbols do not begin with an empty one")]
    FirstSymbol,
    /// A reference points to no symbol.
    #[error("a reference points past the {symbols} symbols")]
    Reference {
        /// The number of symbols.
        symbols: usize,
    },
    /// The references of labels are not pairs of a name and a value.
    #[error("labels have an odd number of references")]
    OddLabels,
    /// It contains series or metadata of Remote Write 1.0, whose numbers are reserved in 2.0.
    #[error("it belongs to Remote Write 1.0")]
    RemoteWriteV1,
}

impl From<varint::VarintFault> for Fault {
    fn from(fault: varint::VarintFault) -> Self {
        Self::Protobuf(fault.into())
    }
}

/// A known field with a wire type other than specified.
const KNOWN_WIRE_TYPE: Fault = Fault::Protobuf(protobuf::Fault::KnownWireType);

/// A field's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Number(u64),
    /// A fixed-size number, or a group.
    Other,
}

/// Takes one field from the front of `input`, which must not be empty.
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

/// Parses the scalar at the start of `field` again. Its key is longer than a byte, or says that its size is fixed.
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
    /// A `TimeSeries`; [`Symbols::read`] parses it.
    Series(&'a [u8]),
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
    /// Its range in the inflated request.
    begin: u32,
    bytes: u32,
}

/// The symbols of a request. The request has at most `u32::MAX` bytes.
#[derive(Debug)]
pub struct Symbols {
    all: Vec<Symbol>,
    longest_bytes: u32,
    /// The symbols that are names of tenant labels, with the index of the label, in symbol order. A label has several
    /// if a symbol is repeated.
    labels: Vec<(u32, u32)>,
    /// The first of these symbols, and the distance from it to the last. Most requests have only one. Then the number
    /// alone rules out all other labels.
    first_label: u32,
    label_span: u32,
}

impl Default for Symbols {
    fn default() -> Self {
        Self { all: Vec::new(), longest_bytes: 0, labels: Vec::new(), first_label: u32::MAX, label_span: 0 }
    }
}

impl Symbols {
    /// Adds the next symbol, which ends at byte `end` of the request. `labels` are the names of tenant labels.
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

    /// The number of symbols.
    #[inline]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are no symbols.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Length of the longest symbol.
    pub fn longest_bytes(&self) -> usize {
        self.longest_bytes as usize
    }

    /// The bytes of the referenced symbol; none if the reference is out of range. `request` is the request that
    /// contains the symbols.
    #[inline]
    pub fn get<'a>(&self, request: &'a [u8], reference: u32) -> &'a [u8] {
        let Some(symbol) = self.all.get(reference as usize) else { return &[] };
        let begin = symbol.begin as usize;
        request.get(begin..begin + symbol.bytes as usize).unwrap_or_default()
    }

    /// The referenced symbol's field, from its key to its end, if it has the form written by encoders with a one-byte
    /// length.
    #[inline(always)]
    pub fn field<'a>(&self, request: &'a [u8], reference: u32) -> Option<&'a [u8]> {
        let symbol = self.all.get(reference as usize)?;
        let begin = symbol.begin as usize;
        let field = request.get(begin.checked_sub(2)?..begin + symbol.bytes as usize)?;
        let is_usual =
            symbol.bytes < 0x80 && *field.first_chunk()? == [SYMBOL_KEY, symbol.bytes.to_le_bytes()[0]];
        is_usual.then_some(field)
    }

    /// Clears the symbols, and frees their memory if it is more than `bytes_max`.
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

    /// Parses the series of a [`Field::Series`]. Refuses it if a reference points to no symbol.
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

    /// Whether this reference may be the name of a tenant label. The number alone rules out nearly all others.
    #[inline(always)]
    fn may_name_tenant(&self, name: u32) -> bool {
        name.wrapping_sub(self.first_label) <= self.label_span
    }

    /// The index of this tenant label, if it has a value.
    #[inline(never)]
    fn tenant_label(&self, name: u32, value: u32) -> Option<u32> {
        let at = match self.labels.len() {
            1 => 0,
            _ => self.labels.binary_search_by_key(&name, |&(symbol, _)| symbol).ok()?,
        };
        let (symbol, label) = *self.labels.get(at)?;
        (symbol == name && self.all.get(value as usize)?.bytes > 0).then_some(label)
    }

    /// Takes a packed reference from the front of `packed`.
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

/// The tenant label and the content of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Series {
    /// The label that names the tenant, if any. Its value is not empty.
    pub tenant: Option<TenantLabel>,
    /// Number of float samples.
    pub samples: u32,
    /// Histograms.
    pub histograms: u32,
    /// Exemplars.
    pub exemplars: u32,
    /// Whether the references of its labels are spread over several fields.
    pub scattered: bool,
}

/// The label that names the tenant of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TenantLabel {
    /// Its index among the labels of the series.
    pub at: u32,
    /// The symbol of its value.
    pub value: u32,
}

/// Reads references as labels: name, value, name, value, across any number of fields.
struct LabelReader<'a> {
    symbols: &'a Symbols,
    /// A name whose value is still to come.
    name: Option<u32>,
    labels: u32,
    pieces: u32,
    /// The best label found so far, and its index among the tenant labels.
    tenant: Option<TenantLabel>,
    best: u32,
}

impl<'a> LabelReader<'a> {
    #[inline(always)]
    fn new(symbols: &'a Symbols) -> Self {
        Self { symbols, name: None, labels: 0, pieces: 0, tenant: None, best: u32::MAX }
    }

    /// A separate loop, so that everything stays in registers. Most of a scan is spent here.
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

    /// Reads a reference that is not packed.
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

    /// The label that names the tenant, after all have been read.
    #[inline(always)]
    fn end(&self) -> Result<Option<TenantLabel>, Fault> {
        if self.name.is_some() { Err(Fault::OddLabels) } else { Ok(self.tenant) }
    }
}

/// A field of a series, or of a message within one, that [`Symbols::read`] has accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member<'a> {
    /// Its number.
    pub number: u32,
    /// The whole field, from its key to its end.
    pub raw: &'a [u8],
    /// Its content, if it is length-delimited.
    pub bytes: Option<&'a [u8]>,
    /// Its content, if it is a varint.
    pub value: Option<u64>,
}

/// Iterates over the fields of a series, or of a message within one. Messages that [`Symbols::read`] did not parse may
/// turn out to be malformed. Then the iteration ends early, and [`Self::fault`] tells why.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    rest: &'a [u8],
    fault: Option<Fault>,
}

impl<'a> Members<'a> {
    /// Reads these bytes.
    #[inline(always)]
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message, fault: None }
    }

    /// The fault, if the iteration ended early.
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

/// The references of the labels of a series or an exemplar, across any number of fields.
#[derive(Clone, Debug)]
pub struct References<'a> {
    members: Members<'a>,
    packed: &'a [u8],
}

impl<'a> References<'a> {
    /// Reads a message accepted by [`Symbols::read`].
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
