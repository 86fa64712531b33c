//! What an attribute says.
//!
//! A tenant may be named by a text, a whole number or a truth value. Other values (arrays, maps, bytes, fractions) name
//! none, and an attribute with one counts as absent.
#![forbid(unsafe_code)]

use std::borrow::Cow;

/// The value of an attribute, as far as it can name a tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttributeValue<'a> {
    /// `string_value`.
    Text(Cow<'a, [u8]>),
    /// `int_value`.
    Int(i64),
    /// `bool_value`.
    Bool(bool),
    /// Any other value, or none.
    Other,
}

impl<'a> AttributeValue<'a> {
    /// Returns it as the text that names a tenant; empty if it names none. `room` is for the digits of a number.
    pub fn text<'t>(&'t self, room: &'t mut itoa::Buffer) -> &'t [u8] {
        match self {
            Self::Text(text) => text,
            Self::Int(number) => room.format(*number).as_bytes(),
            Self::Bool(true) => b"true",
            Self::Bool(false) => b"false",
            Self::Other => b"",
        }
    }

    /// The same, to keep.
    pub fn into_text(self) -> Cow<'a, [u8]> {
        match self {
            Self::Text(text) => text,
            other => Cow::Owned(other.text(&mut itoa::Buffer::new()).to_vec()),
        }
    }
}
