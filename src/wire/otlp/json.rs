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
//!   rely on its syntax. It does not recurse.
//! * The work is linear in the size of the body, whatever is in it: each level reads its text a bounded number of
//!   times.
//! * Later decoders must see what we see. Receivers take the keys in camelCase, as the specification demands, and many
//!   also as protobuf has them (`resource_logs`). Both are read; a key that is spelled in yet another way, which some
//!   decoder may take, is refused. So is a key that is there twice.
//! * `null` is the same as no value (protobuf.dev, "ProtoJSON Format").
#![forbid(unsafe_code)]

mod attributes;
mod check;
mod cursor;
mod list;

use std::ops::Range;

use super::level::{Fault, Level, Member, Signal};
use super::survey::{Held, Survey, SurveyFault, Surveyed};

pub(super) use attributes::{AttributeList, Pair, read_value};
pub use check::{NotJson, check};
use cursor::Cursor;
#[cfg(test)]
pub(crate) use cursor::tests::bytes_read;
pub use list::find_list;

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
    ) -> Result<Option<Surveyed<'a>>, SurveyFault> {
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
            if let State::List(child) = self.state {
                if !self.cursor.skip(b']') {
                    self.cursor.skip(b',');
                    let is_object = self.cursor.peek() == b'{';
                    let step = Step::Child(child, self.cursor.at);
                    return if is_object { Ok(Some(step)) } else { Err(WANTS_OBJECT) };
                }
            } else if matches!(self.state, State::Begin) && !self.cursor.skip(b'{') {
                return Err(WANTS_OBJECT);
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
