//! Exports in JSON (OTLP specification, "JSON Protobuf Encoding"), read as ranges of their text:
//!
//! ```text
//! {"resourceLogs": [{"resource": {"attributes": [{"key": "tenant", "value": {"stringValue": "a"}}]},
//!                    "scopeLogs": [{"logRecords": [{"body": {"stringValue": "line"}}]}]}]}
//! ```
//!
//! Design constraints:
//!
//! * Nothing is converted: what a receiver gets is the sender's text, so unknown keys, the digits of numbers and the
//!   order of keys stay.
//! * The whole body is [checked](check) first, by a parser that refuses all that is not JSON. So the cursor below may
//!   rely on its syntax. It does not recurse. What that parser skips without reading it is checked by [`check_skipped`].
//! * Later decoders must see what we see. Receivers take the keys in camelCase, as the specification demands, and many
//!   also as protobuf has them (`resource_logs`). Both are read; a key that is spelled in yet another way, which some
//!   decoder may take, is refused. So is a key that is there twice.
//! * `null` is the same as no value (protobuf.dev, "ProtoJSON Format").
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use super::level::{Fault, Level, Member, Signal};
use super::value::AttributeValue;
use super::{Held, Survey};
use crate::limits::JSON_FAULT_CHARS_MAX;

/// The body is not JSON. The sender is at fault, and a retry does not help.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body is not JSON: {0}")]
pub struct NotJson(String);

/// Values in values, as serde_json and others read them by default. A deeper document is no export: its receivers refuse
/// it.
const DEPTH_MAX: usize = 128;

/// Checks that `text` is one JSON document in UTF-8, whose strings are Unicode.
///
/// # Errors
/// If it is not, or is nested more deeply than [`DEPTH_MAX`] values.
pub fn check(text: &[u8]) -> Result<(), NotJson> {
    let read = std::str::from_utf8(text).map_err(|error| error.to_string()).and_then(|text| {
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| error.to_string())?;
        check_skipped(text.as_bytes()).map_err(|(fault, at)| format!("{fault} at byte {at}"))
    });
    read.map_err(|text| {
        let shown = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        NotJson(shown.take(JSON_FAULT_CHARS_MAX).collect())
    })
}

/// Checks the depth of a document, and that no half of a surrogate pair is alone. `IgnoredAny` looks at neither.
///
/// # Errors
/// What is wrong, and where.
fn check_skipped(text: &[u8]) -> Result<(), (&'static str, usize)> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => {
                at = check_string(text, at + 1)?;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(("it is nested too deeply", at));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Checks the escapes of a string whose content begins here. Returns where it has ended.
fn check_string(text: &[u8], mut at: usize) -> Result<usize, (&'static str, usize)> {
    loop {
        at += plain_len(text.get(at..).unwrap_or_default());
        match text.get(at) {
            Some(b'\\') => {
                at += escape_len(text.get(at..).unwrap_or_default()).ok_or((LONE_SURROGATE, at))?
            }
            _ => return Ok(at + 1),
        }
    }
}

/// The number of bytes up to the first quote or backslash. Half of all bytes are in strings, so it reads eight at a time.
#[inline]
fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    /// The highest bit of each byte that is 0, and perhaps of bytes above it.
    const fn zeros(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & (ONES << 7)
    }
    let mut at = 0;
    while let Some(eight) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*eight);
        let found = zeros(word ^ (ONES * b'"' as u64)) | zeros(word ^ (ONES * b'\\' as u64));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(rest.len())
}

const LONE_SURROGATE: &str = "a string has half of a surrogate pair";

/// The length of an escape, or of the two of a surrogate pair; `None` if one half of it is missing.
fn escape_len(text: &[u8]) -> Option<usize> {
    let unit = |text: &[u8]| {
        let digits = text.strip_prefix(b"\\u")?.get(..4)?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match unit(text) {
        Some(0xd800..=0xdbff) => {
            let low = unit(text.get(6..)?)?;
            (0xdc00..=0xdfff).contains(&low).then_some(12)
        }
        Some(0xdc00..=0xdfff) => None,
        Some(_) => Some(6),
        None => Some(2),
    }
}

/// A place in a checked text.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&mut self) -> u8 {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied().unwrap_or_default()
    }

    /// Skips `byte`, if it is next.
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == byte;
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes a value.
    fn value(&mut self) -> &'a [u8] {
        let first = self.peek();
        let begin = self.at;
        match first {
            b'"' => self.string(),
            b'{' | b'[' => self.container(),
            _ => {
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']');
                let rest = self.text.get(begin..).unwrap_or_default();
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        self.text.get(begin..self.at).unwrap_or_default().trim_ascii_end()
    }

    /// Skips an object or a list, which is next.
    fn container(&mut self) {
        let mut depth = 0_usize;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
    }

    /// Skips a string, which is next.
    fn string(&mut self) {
        self.at += 1;
        loop {
            self.at += plain_len(self.text.get(self.at..).unwrap_or_default());
            match self.text.get(self.at) {
                Some(b'\\') => self.at = self.text.len().min(self.at + 2),
                Some(_) => return self.at += 1,
                None => return,
            }
        }
    }

    /// Takes a key, which is next, with its colon.
    fn key(&mut self) -> Key<'a> {
        let begin = self.at;
        self.string();
        let text = string(self.text.get(begin..self.at).unwrap_or_default());
        self.skip(b':');
        let letters = text.iter().map(|&byte| usize::from(byte != b'_')).sum();
        Key { text, letters }
    }
}

/// The content of a string, without its escapes. Empty if `value` is none.
fn string(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::Borrowed(b"");
    };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let unescaped = serde_json::from_slice::<String>(value);
    Cow::Owned(unescaped.unwrap_or_default().into_bytes())
}

/// A key of an object. It is compared with many names, of which nearly all have another length.
struct Key<'a> {
    text: Cow<'a, [u8]>,
    /// Its length without underscores.
    letters: usize,
}

impl Key<'_> {
    /// Whether it is `name`, which is in camelCase, in either of its spellings.
    ///
    /// # Errors
    /// If it is spelled in yet another way.
    fn is(&self, name: &str) -> Result<bool, Fault> {
        if self.letters != name.len() || !same_letters(&self.text, name) {
            return Ok(false);
        }
        let is_known = *self.text == *name.as_bytes() || snake(name).eq(self.text.iter().copied());
        if is_known { Ok(true) } else { Err(Fault::Json("a known key is spelled in an unknown way")) }
    }
}

fn same_letters(key: &[u8], name: &str) -> bool {
    let letters = key.iter().filter(|&&byte| byte != b'_');
    letters.zip(name.bytes()).all(|(a, b)| a.eq_ignore_ascii_case(&b))
}

/// A name in camelCase, as protobuf has it.
fn snake(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().flat_map(|byte| {
        let upper = byte.is_ascii_uppercase();
        upper.then_some(b'_').into_iter().chain([byte.to_ascii_lowercase()])
    })
}

/// Where the reading of an object is.
#[derive(Clone, Copy, Debug)]
enum State {
    Begin,
    /// In the list of its children, of this level.
    List(Level),
    /// Behind a member.
    Between,
}

/// Reads the members of an object.
#[derive(Clone, Debug)]
pub(super) struct Object<'a> {
    cursor: Cursor<'a>,
    state: State,
    /// The known keys that were there.
    seen: Seen,
}

/// A set of known keys.
#[derive(Clone, Copy, Default, Debug)]
struct Seen(u16);

/// Bits of [`Seen`] behind those of the children of a message, of which there are five at most.
const SEEN_OWNER: usize = 6;
const SEEN_TEMPORALITY: usize = 7;
const SEEN_COMMON: usize = 8;

impl Seen {
    /// Adds the key of this bit. Whatever its value is: decoders differ in whether `null` replaces what came before.
    fn add(&mut self, bit: usize) -> Result<(), Fault> {
        let before = self.0;
        self.0 |= 1 << bit;
        if self.0 == before { Err(Fault::Repeated) } else { Ok(()) }
    }
}

const WANTS_OBJECT: Fault = Fault::Json("a value is not an object");
const WANTS_LIST: Fault = Fault::Json("a value is not a list");
const WANTS_TEXT: Fault = Fault::Json("a value is not a text");
const WANTS_NUMBER: Fault = Fault::Json("a value is not a whole number of 64 bits");

/// A value that has to be an object, or `null`.
fn object(value: &[u8]) -> Result<Option<&[u8]>, Fault> {
    match value.first() {
        Some(b'{') => Ok(Some(value)),
        _ if value == b"null" => Ok(None),
        _ => Err(WANTS_OBJECT),
    }
}

/// What an object has next.
enum Step<'a> {
    /// A child, which is an object and is next. Where its field begins; of a list, its element.
    Child(Level, usize),
    /// Another member, and its range.
    Other(Member<'a>, Range<usize>),
}

impl<'a> Object<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self::at(Cursor { text, at: 0 })
    }

    fn at(cursor: Cursor<'a>) -> Self {
        Self { cursor, state: State::Begin, seen: Seen::default() }
    }

    /// The next member of a message of this level, or the next element of the list of its children.
    pub(super) fn member(
        &mut self,
        level: Level,
        signal: Signal,
    ) -> Result<Option<(Member<'a>, Range<usize>)>, Fault> {
        Ok(match self.step(level, signal)? {
            None => None,
            Some(Step::Other(member, range)) => Some((member, range)),
            Some(Step::Child(child, begin)) => {
                let value = self.cursor.value();
                Some((Member::Child(child, value), begin..self.cursor.at))
            }
        })
    }

    /// The same, with what a child holds; of a fault within one, where it begins.
    pub(super) fn surveyed(
        &mut self,
        level: Level,
        signal: Signal,
    ) -> Result<Option<(Member<'a>, Range<usize>, Survey<'a>)>, (Fault, Option<usize>)> {
        let nothing = (Held::default(), None);
        Ok(match self.step(level, signal).map_err(|fault| (fault, None))? {
            None => None,
            Some(Step::Other(member, range)) => Some((member, range, nothing)),
            Some(Step::Child(child, begin)) => {
                let mut inner = Self::at(self.cursor);
                let (held, owner) = inner.survey(child, signal).map_err(|fault| (fault, Some(begin)))?;
                let at = std::mem::replace(&mut self.cursor, inner.cursor).at;
                let value = self.cursor.text.get(at..self.cursor.at).unwrap_or_default();
                // Its range in the child, and not in what the child is in.
                let owner = owner.map(|(bytes, range)| (bytes, range.start - at..range.end - at));
                Some((Member::Child(child, value), begin..self.cursor.at, (held, owner)))
            }
        })
    }

    /// Finds what the object holds, in one pass over its text: where a child ends is known when it has been read.
    pub(super) fn survey(&mut self, level: Level, signal: Signal) -> Result<Survey<'a>, Fault> {
        let mut all = Held { metrics: level == Level::Metric, ..Held::default() };
        let (mut owner, mut data) = (None, 0_u32);
        while let Some(step) = self.step(level, signal)? {
            match step {
                Step::Child(child, _) if child.is_item() => {
                    self.cursor.value();
                    all.items = all.items.saturating_add(1);
                }
                // As deep as the levels, whatever the input is.
                Step::Child(child, _) => {
                    data += u32::from(matches!(child, Level::Data(_)));
                    let mut inner = Self::at(self.cursor);
                    let (held, _) = inner.survey(child, signal)?;
                    self.cursor = inner.cursor;
                    all = all.and(held);
                }
                Step::Other(Member::Owner(bytes), range) => owner = Some((bytes, range)),
                Step::Other(Member::Other, _) => all.unknown = true,
                Step::Other(..) => {}
            }
        }
        self.cursor.skip(b'}');
        if data > 1 { Err(Fault::Repeated) } else { Ok((all, owner)) }
    }

    /// The next member, or the next element of the list of children. A child has to be read or skipped before the next
    /// step.
    fn step(&mut self, level: Level, signal: Signal) -> Result<Option<Step<'a>>, Fault> {
        loop {
            match self.state {
                State::Begin if !self.cursor.skip(b'{') => return Err(WANTS_OBJECT),
                State::List(child) => {
                    if self.cursor.skip(b']') {
                        self.state = State::Between;
                        continue;
                    }
                    self.cursor.skip(b',');
                    let is_object = self.cursor.peek() == b'{';
                    return if is_object {
                        Ok(Some(Step::Child(child, self.cursor.at)))
                    } else {
                        Err(WANTS_OBJECT)
                    };
                }
                State::Begin | State::Between => {}
            }
            self.state = State::Between;
            self.cursor.skip(b',');
            if self.cursor.peek() != b'"' {
                return Ok(None);
            }
            if let Some(found) = self.named(level, signal)? {
                return Ok(Some(found));
            }
        }
    }

    /// Reads a key and its value; of children only their beginning, and of `null` nothing.
    fn named(&mut self, level: Level, signal: Signal) -> Result<Option<Step<'a>>, Fault> {
        let begin = self.cursor.at;
        let key = self.cursor.key();
        for (bit, &child) in level.children(signal).iter().enumerate() {
            if !key.is(child.key(signal))? {
                continue;
            }
            self.seen.add(bit)?;
            if child.is_listed() {
                return self.begin_list(child).map(|()| None);
            }
            if self.cursor.peek() == b'{' {
                return Ok(Some(Step::Child(child, begin)));
            }
            return object(self.cursor.value()).map(|_| None);
        }
        self.cursor.peek();
        let value_at = self.cursor.at;
        let value = self.cursor.value();
        let range = begin..value_at + value.len();
        if let Some(owner) = level.owner()
            && key.is(owner.key)?
        {
            self.seen.add(SEEN_OWNER)?;
            return Ok(object(value)?.map(|value| Step::Other(Member::Owner(value), range)));
        }
        let mut is_common = matches!(level, Level::Data(_)) && key.is("aggregationTemporality")?;
        if is_common {
            self.seen.add(SEEN_TEMPORALITY)?;
        }
        for (at, (_, name)) in level.common().iter().enumerate() {
            if key.is(name)? {
                self.seen.add(SEEN_COMMON + at)?;
                is_common = true;
            }
        }
        let member = match value.first() {
            _ if is_common => Member::Common,
            Some(b'"' | b'{' | b'[') => Member::Other,
            _ => Member::Scalar,
        };
        Ok(Some(Step::Other(member, range)))
    }

    fn begin_list(&mut self, child: Level) -> Result<(), Fault> {
        if self.cursor.skip(b'[') {
            self.state = State::List(child);
            return Ok(());
        }
        if self.cursor.value() == b"null" { Ok(()) } else { Err(WANTS_LIST) }
    }
}

/// Reads the attributes of an object.
#[derive(Clone, Debug)]
pub(super) struct AttributeList<'a> {
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
pub(super) struct Pair<'a> {
    pub(super) key: Cow<'a, [u8]>,
    /// The text of its value, which has not been read.
    pub(super) value: &'a [u8],
    /// Its element.
    pub(super) range: Range<usize>,
    /// Where it begins with the comma before it.
    pub(super) before: usize,
    /// Where it ends with the comma behind it.
    pub(super) behind: usize,
}

impl<'a> AttributeList<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { cursor: Cursor { text, at: 0 }, state: ListState::Begin }
    }

    pub(super) fn take(&mut self) -> Result<Option<Pair<'a>>, Fault> {
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
        self.cursor.peek();
        let begin = self.cursor.at;
        let pair = object(self.cursor.value())?.ok_or(WANTS_OBJECT)?;
        let end = begin + pair.len();
        let mut behind = Cursor { at: end, ..self.cursor };
        let behind = if behind.skip(b',') { behind.at } else { end };
        let before = match self.state {
            ListState::Behind(before) => before,
            _ => begin,
        };
        self.state = ListState::Behind(end);
        let (key, value) = read_pair(pair)?;
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

/// Calls `each` with the keys and values of an object.
fn each_pair<'a>(
    text: &'a [u8],
    mut each: impl FnMut(&Key<'_>, &'a [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.skip(b'{');
    while cursor.peek() == b'"' {
        let key = cursor.key();
        each(&key, cursor.value())?;
        cursor.skip(b',');
    }
    Ok(())
}

/// Reads a `KeyValue`: its key, and its value as it is written.
fn read_pair(pair: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Fault> {
    let (mut key, mut value) = (None, None);
    each_pair(pair, |name, text| {
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
pub(super) fn read_value(any: &[u8]) -> Result<AttributeValue<'_>, Fault> {
    let Some(any) = object(any)? else { return Ok(AttributeValue::Other) };
    let (mut found, mut seen) = (None, Seen::default());
    each_pair(any, |name, text| {
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
