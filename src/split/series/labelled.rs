//! What is shown of a series.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::ControlFlow;

use crate::tenant::{Decision, Grant, TenantRules};

/// A name and a value.
pub(super) type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// A series, a stream with some of its entries, or a resource with some of its items, in a request.
#[derive(Clone, Debug)]
pub struct Labelled<'a> {
    pub(super) labels: Vec<Pair<'a>>,
    /// What names its tenant if the labels do not, in this order: the structured metadata of the entry, if this is one
    /// entry of a stream; the attributes of scope and item, if this is an item of a resource.
    pub(super) within: Vec<Vec<Pair<'a>>>,
    /// Its position in the request, from 1. Entries of a stream share theirs, and items of a resource.
    pub place: u64,
    /// Samples and histograms, entries, or items.
    pub samples: u64,
    /// Whether it has nothing that Remote Write 1.0 can express, so that a request that is forwarded as 1.0 loses it.
    pub lost_in_v1: bool,
}

impl Labelled<'_> {
    /// Its labels, in order.
    pub fn labels(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.labels.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Decides about its tenant. The labels of a stream name it or, if they do not, the metadata of each entry; and the
    /// attributes of a resource or, if they do not, those of each scope or item. Only labels and attributes of
    /// resources are removed.
    pub fn decide(
        &self,
        rules: &TenantRules,
        source: Option<&str>,
        grant: &Grant,
        label_remove: bool,
    ) -> Decision {
        let by_labels = rules.decide(|name| first_value(&self.labels, name), source, grant, label_remove);
        let mut decided = by_labels;
        for pairs in &self.within {
            if decided.label.is_some() {
                break;
            }
            decided = rules.decide(|name| first_value(pairs, name), source, grant, false);
        }
        decided
    }
}

/// What a series is shown to; see [`each_series`].
pub(super) trait Visit: FnMut(&Labelled<'_>) -> ControlFlow<()> {}

impl<F: FnMut(&Labelled<'_>) -> ControlFlow<()>> Visit for F {}

/// The labels; `None` if there are too many.
pub(super) fn collect<'a>(
    labels: impl Iterator<Item = Pair<'a>>,
    labels_max: usize,
) -> Option<Vec<Pair<'a>>> {
    let labels: Vec<_> = labels.take(labels_max.saturating_add(1)).collect();
    (labels.len() <= labels_max).then_some(labels)
}

/// The first value of this name that is not empty.
fn first_value<'a>(pairs: &'a [Pair<'_>], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let found = pairs.iter().find(|(known, value)| **known == *name && !value.is_empty());
    found.map(|(_, value)| Cow::Borrowed(&**value))
}
