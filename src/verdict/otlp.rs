//! Answers in OTLP's words (OTLP specification, "OTLP/HTTP Response").
//!
//! # Constraints
//! - A sender reads any 200 as "never send this again", and `partial_success` as what was lost on the way. So what
//!   parts could never be stored is told there, once others are stored. If none is, the answer is a 4xx.
//! - Senders retry on 429, 502, 503 and 504 only. On any other 5xx they drop the data, so an upstream's 500 becomes a
//!   503, and the text says so.
//! - A body has the notation of the request: protobuf or JSON.
#![forbid(unsafe_code)]

use super::{Listing, combine as combine_any, conclude as conclude_any, describe};
use crate::limits::ERROR_BODY_BYTES_MAX;
use crate::model::{Answer, Content, Destination, Fate, Outcome, RefusedSeries, Signal, cut};
use crate::tenant::TenantId;
use crate::wire::otlp::Notation;
use crate::wire::otlp::answer::{PartialSuccess, write_status, write_success};

/// A part as its answer sees it: its tenant, its items, and its outcome.
pub type PartOutcome<'a> = (&'a TenantId, u32, &'a Outcome);

/// Returns the answer to an export, given the outcomes of its `parts` and the resources in `refused`, which were not
/// sent. It is in plain words: [`worded`] makes it one of OTLP.
pub fn conclude<'a>(
    destination: Destination,
    parts: impl IntoIterator<Item = PartOutcome<'a>> + Clone,
    refused: &RefusedSeries,
    accept_all: bool,
) -> Answer {
    let fates = || parts.clone().into_iter().map(|(_, _, outcome)| Fate::of(outcome.sender_status()));
    let may_succeed = fates().any(|fate| fate >= Fate::Throttled);
    let some_stored = fates().any(|fate| fate == Fate::Delivered);
    if accept_all || may_succeed || !some_stored {
        let parts = parts.clone().into_iter().map(|(tenant, _, outcome)| (tenant, outcome));
        let parts: Vec<_> = parts.collect();
        let answer = conclude_any(destination, parts, refused, accept_all);
        // OTLP knows no 204.
        return Answer { status: if answer.status == 204 { 200 } else { answer.status }, ..answer };
    }
    let rejected = rejected(parts.clone(), refused);
    let body = rejected_text(destination, parts, refused, rejected);
    Answer { rejected, ..Answer::new(200, body) }
}

/// Combines the outcomes of a part's pieces, with the number of items of each. Once some pieces are stored, those that
/// never can be are rejected items of a part that is delivered. All else is combined as for other protocols.
pub fn combine(items: &[u32], pieces: &[Outcome]) -> Outcome {
    let combined = combine_any(pieces);
    if let Some(partial) = pieces.iter().find(|piece| piece.rejected > 0).filter(|_| combined.is_delivered())
    {
        return Outcome { message: partial.message.clone(), ..combined };
    }
    let stored = pieces.iter().find(|piece| piece.is_delivered());
    let Some(stored) = stored.filter(|_| !combined.is_delivered() && !combined.invites_retry()) else {
        return combined;
    };
    let of_piece = |(piece, items): (&Outcome, &u32)| match piece.is_delivered() {
        true => piece.rejected,
        false => u64::from(*items),
    };
    let rejected = pieces.iter().zip(items).map(of_piece).sum();
    let message = format!("status {}: {}", combined.status, combined.message);
    let message = cut(&message, ERROR_BODY_BYTES_MAX).into();
    Outcome { rejected, message, written: None, ..stored.clone() }
}

/// The items that can never be stored.
fn rejected<'a>(parts: impl IntoIterator<Item = PartOutcome<'a>>, refused: &RefusedSeries) -> u64 {
    let of_part = |(_, items, outcome): PartOutcome<'_>| match outcome.is_delivered() {
        true => outcome.rejected,
        false => u64::from(items),
    };
    refused.samples + parts.into_iter().map(of_part).sum::<u64>()
}

/// One line that names each tenant of which something was rejected, with the reason. Empty if there is nothing to tell.
fn rejected_text<'a>(
    destination: Destination,
    parts: impl IntoIterator<Item = PartOutcome<'a>> + Clone,
    refused: &RefusedSeries,
    rejected: u64,
) -> String {
    let tells = |(_, _, outcome): &PartOutcome<'_>| {
        !outcome.is_delivered() || outcome.rejected > 0 || !outcome.message.is_empty()
    };
    let told: Vec<_> = parts.into_iter().filter(tells).collect();
    let refusal = describe(destination, refused);
    let left = told.len() + usize::from(refusal.is_some());
    if left == 0 {
        return String::new();
    }
    let text = match rejected {
        // Warnings.
        0 => String::new(),
        _ => format!("{rejected} {} rejected: ", destination.nouns().samples),
    };
    let mut line = Listing { text, left, first: true };
    for (tenant, items, outcome) in told {
        let tenant = tenant.as_str();
        let name = match (outcome.is_delivered(), outcome.rejected) {
            (false, _) => format!("{tenant}: {items} with status {}", outcome.sender_status()),
            (true, 0) => format!("{tenant}:"),
            (true, rejected) => format!("{tenant}: {rejected}"),
        };
        if !line.push(&name, &outcome.reason()) {
            return line.finish();
        }
    }
    if let Some(refusal) = refusal {
        line.push("", &refusal);
    }
    line.finish()
}

/// Puts any answer into OTLP's words, for a sender of this signal in this notation.
pub fn worded(answer: Answer, signal: Signal, notation: Notation) -> Answer {
    let answer = retried(answer);
    let media = match notation {
        Notation::Protobuf => "application/x-protobuf",
        Notation::Json => "application/json",
    };
    let bytes = match Fate::of(answer.status) {
        Fate::Delivered => {
            let message = cut(&answer.body, ERROR_BODY_BYTES_MAX).to_owned();
            write_success(notation, signal, &PartialSuccess { rejected: answer.rejected, message })
        }
        _ => write_status(notation, answer.status, cut(&answer.body, ERROR_BODY_BYTES_MAX)),
    };
    Answer { content: Some(Box::new(Content { media, bytes })), ..answer }
}

/// Replaces a 5xx on which senders drop the data by one on which they retry.
fn retried(answer: Answer) -> Answer {
    match answer.status {
        500..600 if !matches!(answer.status, 502..=504) => {
            let body =
                format!("an upstream answered {}, told as 503 to be retried: {}", answer.status, answer.body);
            Answer { status: 503, body: cut(&body, ERROR_BODY_BYTES_MAX).to_owned(), ..answer }
        }
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::IdRules;
    use crate::wire::otlp::answer::{read_partial_success, read_status};

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id, IdRules::Mimir).unwrap()
    }

    fn answer(outcomes: &[Outcome], refused: &RefusedSeries) -> Answer {
        let tenants: Vec<_> = (0..outcomes.len()).map(|n| tenant(&format!("t{n}"))).collect();
        let parts: Vec<PartOutcome<'_>> =
            tenants.iter().zip(outcomes).map(|(tenant, outcome)| (tenant, 10, outcome)).collect();
        conclude(Destination::OtlpLogs, parts, refused, false)
    }

    fn upstream(status: u16, text: &str) -> Outcome {
        Outcome::upstream(status, None, text.as_bytes())
    }

    #[test]
    fn what_is_never_stored_is_a_partial_success_once_some_is() {
        let none = RefusedSeries::default();
        let partial = Outcome { rejected: 3, ..upstream(200, "too old") };
        let one = answer(&[upstream(200, ""), partial.clone(), upstream(400, "bad\nthing")], &none);
        assert_eq!((one.status, one.rejected), (200, 13));
        assert_eq!(one.body, "13 log records rejected: t1: 3 too old; t2: 10 with status 400 bad thing");
        let refused = RefusedSeries { missing: 1, samples: 5, ..RefusedSeries::default() };
        let two = answer(&[partial], &refused);
        assert_eq!((two.status, two.rejected), (200, 8));
        assert!(
            two.body.contains("1 resources with 5 log records refused: 1 without a tenant"),
            "{}",
            two.body
        );
    }

    #[test]
    fn refused_pieces_are_rejected_items_once_others_are_stored() {
        let partial = Outcome { rejected: 3, ..upstream(202, "too old") };
        let [full, bad, down] = [upstream(200, ""), upstream(413, "too large"), upstream(503, "later")];
        let some = combine(&[5, 7, 9], &[full.clone(), bad.clone(), partial.clone()]);
        assert_eq!((some.status, some.rejected, &*some.message), (200, 10, "status 413: too large"));
        let none = combine(&[7, 7], &[bad.clone(), bad.clone()]);
        assert_eq!((none.status, none.rejected), (413, 0));
        assert_eq!(combine(&[5, 7, 1], &[full.clone(), bad, down]).status, 503);
        let partial = Outcome { status: 200, ..partial };
        let both = combine(&[5, 9], &[full, partial]);
        assert_eq!((both.status, both.rejected, &*both.message), (200, 3, "too old"));
    }

    #[test]
    fn full_success_is_silent_and_a_warning_is_passed_on() {
        let none = RefusedSeries::default();
        let full = answer(&[upstream(200, ""), upstream(202, "")], &none);
        assert_eq!((full.status, full.rejected, &*full.body), (200, 0, ""));
        let warned = answer(&[upstream(200, "use the other endpoint")], &none);
        assert_eq!((warned.status, warned.rejected, &*warned.body), (200, 0, "t0: use the other endpoint"));
        assert_eq!(answer(&[], &none).status, 200);
    }

    #[test]
    fn a_retry_comes_before_a_partial_success_and_nothing_stored_is_an_error() {
        let none = RefusedSeries::default();
        assert_eq!(answer(&[upstream(200, ""), upstream(400, ""), upstream(429, "")], &none).status, 429);
        assert_eq!(answer(&[upstream(200, ""), upstream(500, "x")], &none).status, 500);
        assert_eq!(answer(&[upstream(422, "x"), upstream(400, "y")], &none).status, 400);
        let refused = RefusedSeries { invalid: 2, samples: 5, ..RefusedSeries::default() };
        assert_eq!(answer(&[], &refused).status, 400);
    }

    #[test]
    fn answers_are_worded_in_both_notations_and_only_retried_statuses_are_5xx() {
        for notation in [Notation::Protobuf, Notation::Json] {
            for status in [500, 501, 505, 507, 599] {
                let told = worded(Answer::new(status, "why".into()), Signal::Logs, notation);
                let bytes = told.content.unwrap().bytes;
                assert_eq!(told.status, 503);
                let text = read_status(&bytes).unwrap();
                assert_eq!(text, format!("an upstream answered {status}, told as 503 to be retried: why"));
            }
            for status in [400, 401, 403, 404, 413, 429, 502, 503, 504] {
                let told = worded(Answer::new(status, "why".into()), Signal::Logs, notation);
                assert_eq!(told.status, status);
                assert_eq!(read_status(&told.content.unwrap().bytes).unwrap(), "why");
            }
            let partial = Answer { rejected: 3, ..Answer::new(200, "é".repeat(2000)) };
            let Content { bytes, .. } = *worded(partial, Signal::Traces, notation).content.unwrap();
            let read = read_partial_success(&bytes).unwrap();
            assert_eq!((read.rejected, read.message.len()), (3, ERROR_BODY_BYTES_MAX));
            let full = worded(Answer::ok(), Signal::Traces, notation).content.unwrap().bytes;
            assert!(matches!(&full[..], b"" | b"{}"));
        }
    }
}
