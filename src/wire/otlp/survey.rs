//! What is found in one pass over a message.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::level::{Fault, Member};

/// What a message holds, besides what describes it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Held {
    /// Its items.
    pub items: u32,
    /// Whether there is a metric, with points or without.
    pub metrics: bool,
    /// Whether there is an unknown field of bytes around the items: it may be data of a kind that is new to us.
    pub unknown: bool,
}

impl Held {
    /// Whether nothing is lost with the message.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// What both hold.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_add(other.items),
            metrics: self.metrics || other.metrics,
            unknown: self.unknown || other.unknown,
        }
    }
}

/// The bytes of a resource or a scope, and the range of the whole field in its message.
pub type Owner<'a> = (&'a [u8], Range<usize>);

/// What a message holds, and its resource or scope.
pub type Survey<'a> = (Held, Option<Owner<'a>>);

/// A field, its range, and what it holds if it is a child.
pub type Surveyed<'a> = (Member<'a>, Range<usize>, Survey<'a>);

/// A fault; if a child has it, also where the child begins.
pub type SurveyFault = (Fault, Option<usize>);
