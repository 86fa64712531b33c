//! Shows the resources of an export of OTLP, and the scopes and items in them that have attributes of their own.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;

use super::labelled::{Labelled, Pair, Visit};
use crate::split::error::SplitError;
use crate::wire::otlp::{
    AttributeValue, Attributes, Fault, Level, Malformed, Member, Members, Notation, Signal, count_items,
    owner,
};

/// Calls `visit` for each item with attributes, and once for all others of a scope.
pub(super) fn each_resource(
    inflated: &[u8],
    (signal, notation): (Signal, Notation),
    labels_max: usize,
    visit: &mut impl Visit,
) -> Result<(), SplitError> {
    let mut at_byte = 0;
    let mut place = 0;
    let malformed =
        |fault, at_byte| SplitError::MalformedExport(Malformed { signal, notation, fault, at_byte });
    let mut members = Members::new(notation, signal, Level::Export, inflated);
    while let Some((member, range)) = members.take().map_err(|fault| malformed(fault, at_byte))? {
        at_byte = range.start;
        let Member::Child(level, resource) = member else { continue };
        place += 1;
        let mut showing = Showing { signal, notation, labels_max, visit };
        match showing.resource(level, resource, place) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            Err(fault) => return Err(malformed(fault, at_byte)),
        }
    }
    Ok(())
}

/// Shows the items of a resource.
struct Showing<'v, V> {
    signal: Signal,
    notation: Notation,
    labels_max: usize,
    visit: &'v mut V,
}

/// The attributes of a message, or that there are too many.
type Pairs<'a> = Result<Option<Vec<Pair<'a>>>, Fault>;

impl<V: Visit> Showing<'_, V> {
    fn resource(&mut self, level: Level, resource: &[u8], place: u64) -> Result<ControlFlow<()>, Fault> {
        let Some(labels) = self.owned_pairs(level, resource)? else { return Ok(ControlFlow::Continue(())) };
        let mut shown = Labelled { labels, within: Vec::new(), place, samples: 0, lost_in_v1: false };
        let mut members = Members::new(self.notation, self.signal, level, resource);
        while let Some((member, _)) = members.take()? {
            let Member::Child(level, scope) = member else { continue };
            let Some(pairs) = self.owned_pairs(level, scope)? else { continue };
            if !pairs.is_empty() {
                shown.within.push(pairs);
            }
            shown.samples = 0;
            if self.items(level, scope, &mut shown)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if shown.samples > 0 && (self.visit)(&shown).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            shown.within.clear();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Shows the items with attributes, and counts the others.
    fn items<'a>(
        &mut self,
        level: Level,
        message: &'a [u8],
        shown: &mut Labelled<'a>,
    ) -> Result<ControlFlow<()>, Fault> {
        let mut members = Members::new(self.notation, self.signal, level, message);
        while let Some((member, _)) = members.take()? {
            let Member::Child(level, child) = member else { continue };
            let Some(holder) = level.holder() else {
                if self.items(level, child, shown)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            };
            let Some(pairs) = self.pairs(Attributes::new(self.notation, holder, child))? else { continue };
            if pairs.is_empty() {
                shown.samples += u64::from(count_items(self.notation, self.signal, level, child)?);
                continue;
            }
            let others = std::mem::replace(&mut shown.samples, 1);
            shown.within.push(pairs);
            let flow = (self.visit)(shown);
            shown.within.pop();
            shown.samples = others;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The attributes of the resource or the scope in a message.
    fn owned_pairs<'a>(&self, level: Level, message: &'a [u8]) -> Pairs<'a> {
        match (level.owner(), owner(self.notation, self.signal, level, message)?) {
            (Some(holder), Some((bytes, _))) => self.pairs(Attributes::new(self.notation, holder, bytes)),
            _ => Ok(Some(Vec::new())),
        }
    }

    fn pairs<'a>(&self, mut attributes: Attributes<'a>) -> Pairs<'a> {
        let mut pairs = Vec::new();
        while let Some(attribute) = attributes.take()? {
            if pairs.len() >= self.labels_max {
                return Ok(None);
            }
            // The splitter reads no values but those that may name a tenant, and forwards this one as it is.
            let text = attribute.value().unwrap_or(AttributeValue::Other).into_text();
            pairs.push((attribute.key, text));
        }
        Ok(Some(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_the_splitter_does_not_read_hides_nothing() {
        let value = |text: &str| {
            format!(
                r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"x","value":{text}}},
                {{"key":"tenant","value":{{"stringValue":"a"}}}}]}},"scopeLogs":[{{"logRecords":[{{}}]}}]}}]}}"#
            )
        };
        for text in [r#"{"intValue":"18446744073709551615"}"#, r#"{"intValue":"7"}"#] {
            let mut seen = Vec::new();
            let mut visit = |shown: &Labelled<'_>| {
                seen.push(shown.samples);
                ControlFlow::Continue(())
            };
            let export = value(text);
            each_resource(export.as_bytes(), (Signal::Logs, Notation::Json), 10, &mut visit).unwrap();
            assert_eq!(seen, [1], "{text}");
        }
    }
}
