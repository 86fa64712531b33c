//! What a table of metrics consists of: families with a name, a help text and the cells they show.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cells::{
    ByLabel, Counter, Counters, Distribution, Gauge, Histogram, Label, ThreadId, UpstreamGauges,
};
use super::stalls::{Stalled, Stalls};

/// A metric family: what the exposition shows under one name. `T` is the struct that has its cells.
#[derive(Debug)]
pub struct Family<T: 'static> {
    /// Its name.
    pub name: &'static str,
    /// Its help text.
    pub help: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its samples.
    pub samples: &'static [Sample<T>],
}

/// A cell of a family.
#[derive(Debug)]
pub struct Sample<T> {
    /// Name and value of the label that tells it from the family's other cells.
    pub label: Option<(&'static str, &'static str)>,
    /// Reads the cell.
    pub read: fn(&T) -> Value,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A counter, summed over the cores.
    Counter,
    /// A counter, shown by core.
    CoreCounter,
    /// A gauge, shown by core.
    Gauge,
    /// A histogram, summed over the cores.
    Histogram,
}

impl Kind {
    /// Its name in the exposition format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter | Self::CoreCounter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    /// Whether each core has a sample of its own.
    pub fn is_by_core(self) -> bool {
        matches!(self, Self::CoreCounter | Self::Gauge)
    }
}

/// A cell as it was read.
#[derive(Clone, Debug)]
pub enum Value {
    /// A counter or a gauge.
    Number(u64),
    /// The longest stall up to a time.
    Stall(Stalled),
    /// A gauge for the main upstream, and one for each named upstream.
    Upstreams(u64, Vec<(Arc<str>, u64)>),
    /// A counter for each value of a label.
    Counters(ByLabel),
    /// A histogram.
    Histogram(Distribution),
    /// A histogram for each status; 0 stands for all statuses that have none of their own.
    ByStatus(BTreeMap<u16, Distribution>),
    /// The CPU time of the thread with this ID.
    ThreadCpu(i32),
}

impl Value {
    /// Adds the same cell of another core.
    pub fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Number(ours), Self::Number(theirs)) => *ours += theirs,
            (Self::Counters(ours), Self::Counters(theirs)) => ours.add(&theirs),
            (Self::Histogram(ours), Self::Histogram(theirs)) => ours.add(&theirs),
            (Self::ByStatus(ours), Self::ByStatus(theirs)) => {
                for (status, part) in theirs {
                    ours.entry(status).and_modify(|sum| sum.add(&part)).or_insert(part);
                }
            }
            // A cell always reads as the same variant.
            _ => {}
        }
    }
}

/// A type of cell.
pub trait Cell {
    /// The type of a family of such cells.
    const KIND: Kind;

    /// Reads the cell.
    fn value(&self) -> Value;
}

impl Cell for Counter {
    const KIND: Kind = Kind::Counter;

    fn value(&self) -> Value {
        Value::Number(self.get())
    }
}

impl<L: Label, const N: usize> Cell for Counters<L, N> {
    const KIND: Kind = Kind::Counter;

    fn value(&self) -> Value {
        Value::Counters(self.read())
    }
}

impl Cell for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn value(&self) -> Value {
        Value::Number(self.get())
    }
}

impl Cell for UpstreamGauges {
    const KIND: Kind = Kind::Gauge;

    fn value(&self) -> Value {
        Value::Upstreams(self.main(), self.named().collect())
    }
}

impl Cell for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn value(&self) -> Value {
        Value::Histogram(self.read())
    }
}

impl Cell for Stalls {
    const KIND: Kind = Kind::Gauge;

    fn value(&self) -> Value {
        Value::Stall(self.read())
    }
}

impl Cell for ThreadId {
    const KIND: Kind = Kind::CoreCounter;

    fn value(&self) -> Value {
        Value::ThreadCpu(self.get())
    }
}

/// Declares a struct of cells, its `Default`, and `FAMILIES`, the list that the exposition shows in this order.
///
/// An entry is `"name", "help" => field: Type;`. A field may have an initial value (`= expression`) and more docs. A
/// family may have several fields, each with a label: `first [label = "text"]: Type, second [label = "text"]: Type;`.
/// Fields after `cells:` belong to no family of this table.
macro_rules! metrics {
    (@new) => { Default::default() };
    (@new $init:expr) => { $init };
    (@label) => { None };
    (@label $key:ident $text:literal) => { Some((stringify!($key), $text)) };
    (
        $(#[$struct_doc:meta])*
        pub struct $name:ident {
            $($family:literal, $help:literal => $(
                $(#[$doc:meta])*
                $field:ident $([$key:ident = $text:literal])?: $type:ty $(= $init:expr)?
            ),+;)*
            $(cells: $($(#[$cell_doc:meta])* $cell:ident: $cell_type:ty = $cell_init:expr;)*)?
        }
    ) => {
        $(#[$struct_doc])*
        #[derive(Debug)]
        pub struct $name {
            $($(#[doc = $help] $(#[$doc])* pub $field: $type,)+)*
            $($($(#[$cell_doc])* pub $cell: $cell_type,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($($field: $crate::metrics::table::metrics!(@new $($init)?),)+)*
                    $($($cell: $cell_init,)*)?
                }
            }
        }

        impl $name {
            /// The families, in the order of the exposition.
            pub const FAMILIES: &'static [$crate::metrics::table::Family<Self>] = &[
                $($crate::metrics::table::Family {
                    name: $family,
                    help: $help,
                    kind: [$(<$type as $crate::metrics::table::Cell>::KIND),+][0],
                    samples: &[$($crate::metrics::table::Sample {
                        label: $crate::metrics::table::metrics!(@label $($key $text)?),
                        read: |cells| $crate::metrics::table::Cell::value(&cells.$field),
                    }),+],
                },)*
            ];
        }
    };
}
pub(super) use metrics;
