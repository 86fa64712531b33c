//! Merges parts of one tenant in Remote Write 2.0 into one request.
//!
//! Constraints that shaped it:
//!
//! * The references of each part are into its own table. So all of them are rewritten, into one table that has each
//!   symbol once. Senders of one tenant share most of their symbols, so the request is much smaller than its parts.
//! * What the parts say stays as it is: the series with all their fields, in their order, part after part.
//! * References into a larger table may take more bytes. So the size of the request is known only when it is written,
//!   and it ends before the part that would exceed a limit.
//! * It runs on the home core of a tenant, once for each request: nothing is allocated per series or per part, and
//!   buffers are kept between requests, up to [`SCRATCH_BYTES_MAX`] of each kind.
//!
//! Parts in OTLP are merged here, too: they are simply put one behind the other, or their lists are joined if they are
//! in JSON, and coded together ([`coder`](crate::split::coder)).
//!
//! A symbol is hashed once for each part that has it. Within a part its place is a single table lookup, as when parts
//! are split ([`part`](super::part)).
#![forbid(unsafe_code)]

use bytes::Bytes;

use super::known::KnownSymbols;
use super::part::{Indexes, Writer, begin};
use crate::limits::{REQUEST_SYMBOLS_MAX, SCRATCH_BYTES_MAX};
use crate::model::Part;
use crate::split::coder::{self, Coder};
use crate::split::scratch::{narrow, trim};
use crate::wire::remote_write_v1::TenantLabels;
use crate::wire::remote_write_v2::{Field, Fields, Members, Symbols};
use crate::wire::snappy::{Deflater, Inflater, stored_bytes};
use crate::wire::varint;

/// Merges parts, one request at a time, and keeps its scratch buffers for the next.
#[derive(Default, Debug)]
pub struct Merger {
    inflater: Inflater,
    /// A deflated part as a block, to inflate it.
    block: Vec<u8>,
    symbols: Symbols,
    indexes: Indexes,
    known: KnownSymbols,
    table: Vec<u8>,
    /// The series. They are buffered, as the table comes first and is complete only at the end.
    body: Vec<u8>,
    /// Its tables take some memory, so they are made when they are needed.
    deflater: Option<Deflater>,
    /// For parts in OTLP.
    coder: Option<Coder>,
}

/// A request that carries several parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merged {
    /// A snappy block without its length prefix; in OTLP, in the coding in which the parts are sent.
    pub elements: Bytes,
    /// The size of the inflated elements.
    pub inflated_bytes: u32,
    /// How many parts it carries: the first ones.
    pub parts: usize,
}

impl Merger {
    /// Merges parts in Remote Write 2.0, or in OTLP, at least the first one. Stops before the part with which the
    /// request would inflate to more than `bytes_max`, or have more symbols than a request may have.
    ///
    /// The parts must come from a [`Splitter`](crate::split::Splitter), and have merge keys that agree. `None` if there
    /// are no parts, or if the first one is malformed, which the splitter does not let happen.
    pub fn merge<'a>(
        &mut self,
        parts: impl IntoIterator<Item = &'a Part>,
        bytes_max: usize,
    ) -> Option<Merged> {
        let mut parts = parts.into_iter().peekable();
        if parts.peek().is_some_and(|first| first.protocol.export().is_some()) {
            return self.code(parts, bytes_max);
        }
        self.indexes.reset(0);
        begin(&mut self.indexes, &mut self.table);
        let mut merged = 0;
        for part in parts {
            let (table_bytes, body_bytes) = (self.table.len(), self.body.len());
            let fits =
                self.add(part).is_some() && (merged == 0 || self.table.len() + self.body.len() <= bytes_max);
            if !fits {
                self.table.truncate(table_bytes);
                self.body.truncate(body_bytes);
                break;
            }
            merged += 1;
        }
        self.table.extend_from_slice(&self.body);
        let merged = (merged > 0).then(|| Merged {
            elements: self.deflater.get_or_insert_default().elements(&self.table),
            inflated_bytes: narrow(self.table.len()),
            parts: merged,
        });
        self.release();
        merged
    }

    /// Deflates a part that is sent alone. Returns `None` if its elements are as they are sent.
    pub fn deflate(&mut self, part: &Part) -> Option<Merged> {
        if part.coding.now != part.coding.sent {
            return self.code([part], usize::MAX);
        }
        let content = stored_bytes(&part.elements)?;
        let deflater = self.deflater.get_or_insert_default();
        let elements = deflater.elements(content);
        deflater.release();
        Some(Merged { elements, inflated_bytes: part.inflated_bytes, parts: 1 })
    }

    /// Codes parts in OTLP together.
    fn code<'a>(&mut self, parts: impl IntoIterator<Item = &'a Part>, bytes_max: usize) -> Option<Merged> {
        let coder = self.coder.get_or_insert_default();
        let merged = coder::merge(coder, parts, bytes_max);
        coder.release();
        let (elements, inflated_bytes, parts) = merged?;
        Some(Merged { elements, inflated_bytes: narrow(inflated_bytes), parts })
    }

    /// Adds the series of a part. `None` if there is no room for its symbols, or if it is malformed: then what it has
    /// added must be removed, and nothing can be added any more.
    fn add(&mut self, part: &Part) -> Option<()> {
        let Self { inflater, block, symbols, indexes, known, table, body, .. } = self;
        let request = match stored_bytes(&part.elements) {
            Some(bytes) => bytes,
            None => inflate(part, inflater, block)?,
        };
        read_symbols(request, symbols)?;
        if indexes.symbols() + symbols.len() > REQUEST_SYMBOLS_MAX + 1 {
            return None;
        }
        indexes.proceed(symbols.len());
        let mut writer = Writer::proceed((request, symbols), indexes, known, table, body);
        let mut fields = Fields::new(request);
        while let Some(field) = fields.take().ok()? {
            match field {
                Field::Symbol(_) => {}
                Field::Series(series) => writer.series(series, None, is_scattered(series)),
                // They belong to the request as a whole. Such parts are not merged.
                Field::Scalar | Field::Other => return None,
            }
        }
        Some(())
    }

    #[cfg(test)]
    pub(super) fn scratch_bytes(&self) -> usize {
        self.block.capacity()
            + self.table.capacity()
            + self.body.capacity()
            + self.indexes.scratch_bytes()
            + self.known.scratch_bytes()
    }

    /// Discards the request, and frees memory beyond what is kept between requests.
    fn release(&mut self) {
        self.inflater.release();
        trim(&mut self.block);
        self.symbols.release(SCRATCH_BYTES_MAX);
        self.indexes.release();
        self.known.release();
        trim(&mut self.table);
        trim(&mut self.body);
        if let Some(deflater) = &mut self.deflater {
            deflater.release();
        }
    }
}

/// Inflates the elements of a part.
pub(in crate::split) fn inflate<'a>(
    part: &Part,
    inflater: &'a mut Inflater,
    block: &mut Vec<u8>,
) -> Option<&'a [u8]> {
    block.clear();
    varint::put(block, u64::from(part.inflated_bytes));
    block.extend_from_slice(&part.elements);
    inflater.inflate(block, part.inflated_bytes as usize).ok()?;
    Some(inflater.bytes())
}

/// Reads the symbols of a request, which may come behind its series.
pub(in crate::split) fn read_symbols(request: &[u8], symbols: &mut Symbols) -> Option<()> {
    let labels = TenantLabels::new(&[]);
    symbols.release(SCRATCH_BYTES_MAX);
    let mut fields = Fields::new(request);
    while let Some(field) = fields.take().ok()? {
        if let Field::Symbol(symbol) = field {
            symbols.push(symbol, fields.at_byte(), &labels).ok()?;
        }
    }
    Some(())
}

/// Whether the references of a series' labels are in more than one field. The splitter has written most series itself,
/// with one field.
fn is_scattered(series: &[u8]) -> bool {
    Members::new(series).filter(|member| member.number == 1).nth(1).is_some()
}
