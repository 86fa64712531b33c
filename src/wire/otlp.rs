//! The exports of OTLP (open-telemetry/opentelemetry-proto, `collector/{metrics,logs,trace}/v1`), read as ranges.
//!
//! An export of each signal is a tree: resources, in them scopes, and in these the items: data points (which a metric
//! and its data hold together), log records or spans. [`Members`] walks over one message of it, in protobuf and in
//! JSON.
//!
//! Design constraints:
//!
//! * One walker serves all signals and both notations. What differs between signals is a few numbers and names, which
//!   [`Level`] knows.
//! * Only what is needed is read: the attributes of resources and, if these name no tenant, those of scopes and items.
//!   Items are counted, and their content is skipped.
//! * Later decoders must see what we see: see [`super::protobuf`]. Decoders differ in what they make of a field that
//!   may be there once and is there twice: some merge the two, some take the last. So one that holds more than a number
//!   or a text is refused, and so are two kinds of data in one metric.
#![forbid(unsafe_code)]

pub mod answer;
mod attribute;
pub mod json;
mod level;
mod survey;
mod value;

use std::ops::Range;

use super::protobuf::{self, Value, take_field};

pub use attribute::{Attribute, Attributes, each_cut, find_attribute};
pub use level::{Fault, Holder, Level, Malformed, Member, Notation, Points, Signal};
pub use survey::{Held, Owner, Survey, SurveyFault, Surveyed};
pub use value::AttributeValue;

/// Iterates over the fields of a message.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    signal: Signal,
    level: Level,
    message: &'a [u8],
    reader: Reader<'a>,
    has_owner: bool,
    has_data: bool,
}

#[derive(Clone, Debug)]
enum Reader<'a> {
    Protobuf(&'a [u8]),
    Json(json::Object<'a>),
}

impl<'a> Members<'a> {
    /// Reads a message of this level. In JSON, the whole body must have been [checked](json::check).
    pub fn new(notation: Notation, signal: Signal, level: Level, message: &'a [u8]) -> Self {
        let reader = match notation {
            Notation::Protobuf => Reader::Protobuf(message),
            Notation::Json => Reader::Json(json::Object::new(message)),
        };
        Self { signal, level, message, reader, has_owner: false, has_data: false }
    }

    /// The next field and its range in the message. In JSON, the elements of a list come one by one, each with its own
    /// range; of other members the range holds key and value.
    ///
    /// # Errors
    /// If the message is malformed.
    pub fn take(&mut self) -> Result<Option<(Member<'a>, Range<usize>)>, Fault> {
        let (signal, level) = (self.signal, self.level);
        let taken = match &mut self.reader {
            Reader::Protobuf(rest) => take_protobuf(level, signal, self.message, rest)?,
            Reader::Json(object) => object.member(level, signal)?,
        };
        let repeated = match taken {
            Some((Member::Owner(_), _)) => std::mem::replace(&mut self.has_owner, true),
            Some((Member::Child(Level::Data(_), _), _)) => std::mem::replace(&mut self.has_data, true),
            _ => false,
        };
        if repeated { Err(Fault::Repeated) } else { Ok(taken) }
    }

    /// The next field of a message whose children are no items and have an [owner], with what the child holds. In JSON,
    /// this is found on the way to the child's end.
    ///
    /// # Errors
    /// If the message is malformed, or a child; then also where the child begins.
    pub fn take_surveyed(&mut self) -> Result<Option<Surveyed<'a>>, SurveyFault> {
        let (signal, level) = (self.signal, self.level);
        if let Reader::Json(object) = &mut self.reader {
            return object.surveyed(level, signal);
        }
        let Some((member, range)) = self.take().map_err(|fault| (fault, None))? else { return Ok(None) };
        let Member::Child(child, bytes) = member else {
            return Ok(Some((member, range, Survey::default())));
        };
        let notation = Notation::Protobuf;
        let held = held_protobuf(signal, child, bytes);
        let survey = held.and_then(|held| Ok((held, owner(notation, signal, child, bytes)?)));
        let survey = survey.map_err(|fault| (fault, Some(range.start)))?;
        Ok(Some((member, range, survey)))
    }
}

#[inline]
fn take_protobuf<'a>(
    level: Level,
    signal: Signal,
    message: &'a [u8],
    rest: &mut &'a [u8],
) -> Result<Option<(Member<'a>, Range<usize>)>, Fault> {
    if rest.is_empty() {
        return Ok(None);
    }
    let begin = message.len() - rest.len();
    let member = take_member(level, signal, rest)?;
    Ok(Some((member, begin..message.len() - rest.len())))
}

/// Takes a field of a message of this level from the front of `rest`, which must not be empty.
#[inline(always)]
fn take_member<'a>(level: Level, signal: Signal, rest: &mut &'a [u8]) -> Result<Member<'a>, Fault> {
    let (number, value) = take_field(rest)?;
    let child = level.child(signal, number);
    let is_owner = number == 1 && level.owner().is_some();
    match value {
        Value::Bytes(bytes) if is_owner => Ok(Member::Owner(bytes)),
        Value::Bytes(bytes) => Ok(match child {
            Some(child) => Member::Child(child, bytes),
            None if level.is_common(number) => Member::Common,
            None => Member::Other,
        }),
        _ if child.is_some() || is_owner || level.is_common(number) => {
            Err(protobuf::Fault::KnownWireType.into())
        }
        Value::Scalar => Ok(Member::Scalar),
        Value::Group => Ok(Member::Other),
    }
}

/// Finds what a message of this level holds.
///
/// # Errors
/// If it is malformed.
pub fn held(notation: Notation, signal: Signal, level: Level, message: &[u8]) -> Result<Held, Fault> {
    if level.is_item() {
        return Ok(Held { items: 1, ..Held::default() });
    }
    match notation {
        Notation::Protobuf => held_protobuf(signal, level, message),
        Notation::Json => Ok(json::Object::new(message).survey(level, signal)?.0),
    }
}

/// [`held`] in protobuf.
fn held_protobuf(signal: Signal, level: Level, message: &[u8]) -> Result<Held, Fault> {
    let mut all = Held::default();
    add_protobuf(&mut all, signal, level, message)?;
    Ok(all)
}

/// Adds what a message holds. Each message of an export goes through it, so it does without the ranges of [`Members`],
/// and each level has code of its own.
fn add_protobuf(all: &mut Held, signal: Signal, level: Level, message: &[u8]) -> Result<(), Fault> {
    match level {
        Level::Data(points) => add_fields(all, signal, Level::Data(points), message),
        Level::Metric => {
            all.metrics = true;
            add_fields(all, signal, Level::Metric, message)
        }
        Level::Scope => add_fields(all, signal, Level::Scope, message),
        level => add_fields(all, signal, level, message),
    }
}

#[inline(always)]
fn add_fields(all: &mut Held, signal: Signal, level: Level, message: &[u8]) -> Result<(), Fault> {
    let (mut owners, mut data) = (0_u32, 0_u32);
    let mut rest = message;
    while !rest.is_empty() {
        match take_member(level, signal, &mut rest)? {
            Member::Child(child, _) if child.is_item() => all.items = all.items.saturating_add(1),
            // As deep as the levels, whatever the input is.
            Member::Child(child, bytes) => {
                data += u32::from(matches!(child, Level::Data(_)));
                add_protobuf(all, signal, child, bytes)?;
            }
            Member::Other => all.unknown = true,
            Member::Owner(_) => owners += 1,
            Member::Common | Member::Scalar => {}
        }
    }
    if owners > 1 || data > 1 { Err(Fault::Repeated) } else { Ok(()) }
}

/// Counts the items in a message of this level.
///
/// # Errors
/// If it is malformed.
pub fn count_items(notation: Notation, signal: Signal, level: Level, message: &[u8]) -> Result<u32, Fault> {
    held(notation, signal, level, message).map(|held| held.items)
}

/// The resource of a `Resource…`, or the scope of a `Scope…`.
///
/// # Errors
/// If the message is malformed.
pub fn owner(
    notation: Notation,
    signal: Signal,
    level: Level,
    message: &[u8],
) -> Result<Option<Owner<'_>>, Fault> {
    let mut members = Members::new(notation, signal, level, message);
    let mut found = None;
    // To the end: a second one is a fault.
    while let Some((member, range)) = members.take()? {
        if let Member::Owner(bytes) = member {
            found = Some((bytes, range));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
