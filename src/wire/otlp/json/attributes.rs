//! Attributes in JSON: `{"key": "tenant", "value": {"stringValue": "a"}}`.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use super::cursor::{Cursor, Key, string};
use super::{Seen, WANTS_LIST, WANTS_OBJECT, object};
use crate::wire::otlp::level::Fault;
use crate::wire::otlp::value::AttributeValue;

const WANTS_TEXT: Fault = Fault::Json("a value is not a text");
const WANTS_NUMBER: Fault = Fault::Json("a value is not a whole number of 64 bits");

/// Reads the attributes of an object.
#[derive(Clone, Debug)]
pub(in crate::wire::otlp) struct AttributeList<'a> {
    cursor: Cursor<'a>,
    state: ListState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ListState {
    Begin,
    /// Before the first element.
    First,
    /// Behind an element, which ended here.
    Behind(usize),
    Done,
}

/// An attribute in its list.
pub(in crate::wire::otlp) struct Pair<'a> {
    pub(in crate::wire::otlp) key: Cow<'a, [u8]>,
    /// The text of its value, which has not been read.
    pub(in crate::wire::otlp) value: &'a [u8],
    /// Its element.
    pub(in crate::wire::otlp) range: Range<usize>,
    /// Where it begins with the comma before it.
    pub(in crate::wire::otlp) before: usize,
    /// Where it ends with the comma behind it.
    pub(in crate::wire::otlp) behind: usize,
}

impl<'a> AttributeList<'a> {
    pub(in crate::wire::otlp) fn new(text: &'a [u8]) -> Self {
        Self { cursor: Cursor { text, at: 0 }, state: ListState::Begin }
    }

    pub(in crate::wire::otlp) fn take(&mut self) -> Result<Option<Pair<'a>>, Fault> {
        if self.state == ListState::Begin {
            self.begin()?;
        }
        if self.state == ListState::Done {
            return Ok(None);
        }
        if self.cursor.skip(b']') {
            self.state = ListState::Done;
            return Ok(None);
        }
        self.cursor.skip(b',');
        let is_object = self.cursor.peek() == b'{';
        let begin = self.cursor.at;
        let (key, value) = if is_object { read_pair(&mut self.cursor)? } else { return Err(WANTS_OBJECT) };
        let end = self.cursor.at;
        let mut behind = Cursor { at: end, ..self.cursor };
        let behind = if behind.skip(b',') { behind.at } else { end };
        let before = match self.state {
            ListState::Behind(before) => before,
            _ => begin,
        };
        self.state = ListState::Behind(end);
        Ok(Some(Pair { key, value, range: begin..end, before, behind }))
    }

    /// Looks for the list. There must be no second one.
    fn begin(&mut self) -> Result<(), Fault> {
        let (mut found, mut seen) = (None, Seen::default());
        self.state = ListState::Done;
        let mut cursor = self.cursor;
        if !cursor.skip(b'{') {
            return Err(WANTS_OBJECT);
        }
        while cursor.peek() == b'"' {
            let is_list = cursor.key().is("attributes")?;
            cursor.peek();
            let at = cursor.at;
            let value = cursor.value();
            if is_list {
                seen.add(0)?;
                match value.first() {
                    Some(b'[') => found = Some(at + 1),
                    _ if value == b"null" => {}
                    _ => return Err(WANTS_LIST),
                }
            }
            cursor.skip(b',');
        }
        if let Some(at) = found {
            self.cursor.at = at;
            self.state = ListState::First;
        }
        Ok(())
    }
}

/// Calls `each` with the keys and values of an object, which is next, and skips it.
fn each_pair<'a>(
    cursor: &mut Cursor<'a>,
    mut each: impl FnMut(&Key<'_>, &'a [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    cursor.skip(b'{');
    while cursor.peek() == b'"' {
        let key = cursor.key();
        each(&key, cursor.value())?;
        cursor.skip(b',');
    }
    cursor.skip(b'}');
    Ok(())
}

/// Reads a `KeyValue`, which is next: its key, and its value as it is written.
fn read_pair<'a>(cursor: &mut Cursor<'a>) -> Result<(Cow<'a, [u8]>, &'a [u8]), Fault> {
    let (mut key, mut value) = (None, None);
    each_pair(cursor, |name, text| {
        if name.is("key")? {
            let is_text = text.starts_with(b"\"") || text == b"null";
            let twice = key.replace(string(text)).is_some();
            return if twice { Err(Fault::Repeated) } else { is_text.then_some(()).ok_or(WANTS_TEXT) };
        }
        if name.is("value")? && value.replace(text).is_some() {
            return Err(Fault::Repeated);
        }
        Ok(())
    })?;
    Ok((key.unwrap_or_default(), value.unwrap_or(b"null")))
}

/// The kinds of an `AnyValue`, of which it has one.
const KINDS: [&str; 7] =
    ["stringValue", "intValue", "boolValue", "doubleValue", "arrayValue", "kvlistValue", "bytesValue"];

/// Reads an `AnyValue`, or `null`.
pub(in crate::wire::otlp) fn read_value(any: &[u8]) -> Result<AttributeValue<'_>, Fault> {
    let Some(any) = object(any)? else { return Ok(AttributeValue::Other) };
    let (mut found, mut seen) = (None, Seen::default());
    each_pair(&mut Cursor { text: any, at: 0 }, |name, text| {
        for (bit, kind) in KINDS.into_iter().enumerate() {
            if !name.is(kind)? {
                continue;
            }
            seen.add(bit)?;
            // A `oneof` has one value; of several, decoders take different ones.
            if text != b"null" && found.replace(read_kind(kind, text)?).is_some() {
                return Err(Fault::Repeated);
            }
        }
        Ok(())
    })?;
    Ok(found.unwrap_or(AttributeValue::Other))
}

/// Reads the value of this one of [`KINDS`], which is not `null`.
fn read_kind<'a>(kind: &str, text: &'a [u8]) -> Result<AttributeValue<'a>, Fault> {
    Ok(match kind {
        "stringValue" if text.starts_with(b"\"") => AttributeValue::Text(string(text)),
        "stringValue" => return Err(WANTS_TEXT),
        "intValue" => {
            let digits = if text.starts_with(b"\"") { string(text) } else { Cow::Borrowed(text) };
            AttributeValue::Int(whole_number(&digits).ok_or(WANTS_NUMBER)?)
        }
        "boolValue" => match text {
            b"true" => AttributeValue::Bool(true),
            b"false" => AttributeValue::Bool(false),
            _ => return Err(Fault::Json("a value is neither true nor false")),
        },
        _ => AttributeValue::Other,
    })
}

/// Reads a number of 64 bits in any form that ProtoJSON allows, such as `5`, `5.0` and `1e3`; `None` if it is no whole
/// one. Exact: a tenant is named by its digits.
fn whole_number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let (whole, sign) = whole.strip_prefix('-').map_or((whole, 1), |whole| (whole, -1));
    if whole.is_empty() || fraction.is_empty() {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let mut value = 0_i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        value = value.checked_mul(10)?.checked_add(digit.into())?;
    }
    let mut exponent = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    while exponent < 0 && value % 10 == 0 && value != 0 {
        (value, exponent) = (value / 10, exponent + 1);
    }
    if value == 0 {
        return Some(0);
    }
    let power = 10_i128.checked_pow(u32::try_from(exponent).ok()?)?;
    i64::try_from(value.checked_mul(power)? * sign).ok()
}
