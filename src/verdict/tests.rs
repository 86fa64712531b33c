//! The table of verdicts, row by row, and properties that hold for all outcomes.

use proptest::prelude::*;

use super::*;
use crate::model::{Failure, Source, blames_content};
use crate::tenant::{IdRules, TenantError};
use crate::wire::inflate::InflateError;
use crate::wire::protobuf::Fault;
use crate::wire::remote_write_v1::Malformed;
use crate::wire::remote_write_v2;
use crate::wire::snappy::SnappyError;
use std::time::Duration;

/// An upstream's response without a body.
fn status(status: u16) -> Outcome {
    Outcome::upstream(status, None, b"")
}

/// The answer to these outcomes of tenants `t0`, `t1` and so on.
fn conclude_all(outcomes: &[Outcome], refused: &RefusedSeries) -> Answer {
    let tenants: Vec<_> = (0..outcomes.len()).map(|index| tenant(&format!("t{index}"))).collect();
    conclude(Destination::Metrics, tenants.iter().zip(outcomes), refused, false)
}

fn tenant(id: &str) -> TenantId {
    TenantId::new(id, IdRules::Thanos).unwrap()
}

fn refused(missing: u64, invalid: u64) -> RefusedSeries {
    RefusedSeries {
        missing,
        invalid,
        samples: 7,
        example: Some("no tenant: no label".to_owned()),
        ..RefusedSeries::default()
    }
}

fn none_refused() -> RefusedSeries {
    RefusedSeries::default()
}

#[test]
fn written_counts_are_summed_whatever_the_status() {
    let wrote = |status, samples| {
        let written = Some(Written { samples, histograms: 1, exemplars: 0 });
        Outcome { written, ..Outcome::upstream(status, None, b"") }
    };
    let sum = |outcomes: &[Outcome]| {
        let written = conclude_all(outcomes, &none_refused()).written;
        assert_eq!(combine(outcomes).written, written, "pieces count like parts: {outcomes:?}");
        written
    };
    assert_eq!(sum(&[]), None, "there was nothing to report");
    assert_eq!(sum(&[status(200), status(500)]), None, "no upstream reported");
    let expected = Some(Written { samples: 12, histograms: 2, exemplars: 0 });
    assert_eq!(sum(&[wrote(200, 5), status(500), wrote(400, 7)]), expected, "a failure wrote nothing");
    assert_eq!(sum(&[wrote(200, 5), status(200), wrote(400, 7)]), None, "a partial sum is not reported");
    assert_eq!(sum(&[status(204), wrote(200, 5)]), None);
}

#[test]
fn the_highest_rank_decides() {
    for (statuses, expected) in [
        (&[][..], 200),
        (&[200], 200),
        (&[204], 204),
        (&[200, 202], 202),
        (&[204, 200], 204),
        (&[200, 400], 400),
        (&[400, 200], 400),
        (&[404, 409], 404),
        (&[422, 400, 413], 400),
        (&[415, 422], 415),
        (&[400, 429], 429),
        (&[429, 200], 429),
        (&[429, 500], 500),
        (&[500, 429, 400, 200], 500),
        (&[500, 503], 503),
        (&[504, 502], 504),
        (&[200, 301], 502),
        (&[301], 502),
        (&[100], 502),
        (&[408], 502),
        (&[499], 502),
        (&[408, 400, 429], 502),
        (&[200, 499], 502),
        (&[304, 400], 502),
        (&[600], 502),
        (&[0], 502),
        (&[301, 503], 503),
    ] {
        let outcomes: Vec<_> = statuses.iter().map(|&code| status(code)).collect();
        assert_eq!(conclude_all(&outcomes, &none_refused()).status, expected, "{statuses:?}");
    }
}

#[test]
fn refused_series_rank_between_4xx_and_2xx() {
    for (statuses, expected) in [
        (&[][..], 400),
        (&[200], 400),
        (&[202, 204], 400),
        (&[422], 422),
        (&[200, 429], 429),
        (&[200, 503], 503),
        (&[302], 502),
    ] {
        let outcomes: Vec<_> = statuses.iter().map(|&code| status(code)).collect();
        assert_eq!(conclude_all(&outcomes, &refused(1, 0)).status, expected, "{statuses:?}");
        assert_eq!(conclude_all(&outcomes, &refused(0, 1)).status, expected, "{statuses:?}");
    }
}

#[test]
fn refused_series_are_counted_and_explained() {
    assert_eq!(
        conclude_all(&[status(200)], &refused(2, 3)).body,
        "5 series with 7 samples refused: 2 without a tenant, 3 with an invalid one. One of them: no tenant: no label"
    );
    assert_eq!(
        conclude(Destination::Logs, [], &refused(1, 0), false).body,
        "1 streams with 7 entries refused: 1 without a tenant, 0 with an invalid one. One of them: no tenant: no label"
    );
}

#[test]
fn success_has_the_body_of_the_deciding_status() {
    let outcomes =
        [Outcome::delivered(200, b"first"), Outcome::delivered(202, b"second"), Outcome::delivered(202, b"")];
    let answer = conclude_all(&outcomes, &none_refused());
    assert_eq!((answer.status, answer.body.as_str()), (202, "second"));
}

#[test]
fn a_single_failure_is_passed_on_unchanged() {
    let text = "out of order sample\nfor series {a=\"b\"}\n";
    let outcomes = [status(200), Outcome::upstream(422, Some(5), text.as_bytes()), status(204)];
    let answer = conclude_all(&outcomes, &none_refused());
    assert_eq!(
        answer,
        Answer {
            status: 422,
            retry_after_secs: None,
            written: None,
            body: text.to_owned(),
            content: None,
            rejected: 0,
            allow: None,
            challenge: None,
            close: false
        }
    );
}

#[test]
fn a_status_that_is_no_valid_answer_is_explained() {
    for status in [304, 408, 499, 600] {
        let answer = conclude_all(&[Outcome::upstream(status, None, b"text")], &none_refused());
        assert_eq!(answer.body, format!("the upstream answered with status {status}. text"));
    }
}

#[test]
fn a_redirect_is_explained() {
    let answer = conclude_all(&[Outcome::redirected(307, false)], &none_refused());
    assert_eq!(answer.status, 502);
    assert!(
        answer.body.starts_with("the upstream redirects (status 307, without a Location)"),
        "{}",
        answer.body
    );
}

#[test]
fn only_a_definite_rejection_blames_the_content() {
    for status in [400, 401, 404, 409, 413, 422] {
        assert!(blames_content(status), "{status}");
    }
    for status in [200, 302, 408, 429, 499, 500, 503] {
        assert!(!blames_content(status), "{status}");
    }
}

#[test]
fn several_failures_are_listed_worst_first() {
    let outcomes = [
        Outcome::upstream(400, None, b"too old\n"),
        status(200),
        Outcome::upstream(429, Some(3), b"slow\r\ndown"),
        Failure::TimedOut.outcome(Duration::from_millis(1500)),
        Outcome::upstream(500, None, b""),
    ];
    let answer = conclude_all(&outcomes, &refused(1, 0));
    assert_eq!(answer.status, 504);
    assert_eq!(
        answer.body,
        "4 of 5 tenants failed: t3: 504 the upstream did not answer within 1.5s; t4: 500; t2: 429 slow  down; \
         t0: 400 too old; 1 series with 7 samples refused: 1 without a tenant, 0 with an invalid one. \
         One of them: no tenant: no label"
    );
}

#[test]
fn a_failure_and_refused_series_are_both_listed() {
    let answer = conclude_all(&[Outcome::upstream(422, None, b"too old")], &refused(0, 2));
    assert_eq!(
        answer.body,
        "1 of 1 tenants failed: t0: 422 too old; 2 series with 7 samples refused: 0 without a tenant, \
         2 with an invalid one. One of them: no tenant: no label"
    );
}

#[test]
fn a_list_that_is_too_long_ends_with_the_number_of_further_items() {
    let reason = "x".repeat(200);
    let outcomes = vec![Outcome::upstream(500, None, reason.as_bytes()); 4096];
    let body = conclude_all(&outcomes, &none_refused()).body;
    assert!(body.len() <= ERROR_BODY_BYTES_MAX);
    assert!(body.len() > ERROR_BODY_BYTES_MAX - REASON_BYTES_MIN - 50, "room is left: {}", body.len());
    let named = body.matches(": 500 ").count();
    assert!(body.ends_with(&format!("; … and {} more", 4096 - named)), "{body}");
}

#[test]
fn a_long_reason_leaves_room_for_the_others() {
    let long = "x".repeat(ERROR_BODY_BYTES_MAX);
    let outcomes = [
        Outcome::upstream(500, None, long.as_bytes()),
        status(503),
        Outcome::upstream(500, None, long.as_bytes()),
    ];
    let body = conclude_all(&outcomes, &none_refused()).body;
    assert!(body.len() <= ERROR_BODY_BYTES_MAX);
    for named in ["t0: 500 xxx", "t1: 503; ", "t2: 500 xxx"] {
        assert!(body.contains(named), "{named} is not in {body}");
    }
    assert_eq!(body.matches('…').count(), 2);
    assert!(!body.contains("more"));
}

#[test]
fn long_tenant_names_are_listed_in_full_or_not_at_all() {
    let tenants: Vec<_> = (0..8).map(|index| tenant(&format!("{index}{}", "n".repeat(255)))).collect();
    let outcome = Outcome::upstream(400, None, "y".repeat(500).as_bytes());
    let body = conclude(
        Destination::Metrics,
        tenants.iter().map(|tenant| (tenant, &outcome)),
        &none_refused(),
        false,
    )
    .body;
    assert!(body.len() <= ERROR_BODY_BYTES_MAX);
    let named =
        tenants.iter().filter(|tenant| body.contains(&format!("{}: 400 yyy", tenant.as_str()))).count();
    assert!((1..8).contains(&named));
    assert!(body.ends_with(&format!("; … and {} more", 8 - named)), "{body}");
}

#[test]
fn bodies_are_cut_between_characters() {
    for offset in 0..4 {
        for letter in ["é", "…", "🦀"] {
            let text = format!("{}{}", "x".repeat(offset), letter.repeat(ERROR_BODY_BYTES_MAX));
            let outcome = Outcome::upstream(400, None, text.as_bytes());
            let body = conclude_all(std::slice::from_ref(&outcome), &none_refused()).body;
            assert!(text.starts_with(&body), "{body}");
            assert!((ERROR_BODY_BYTES_MAX - 3..=ERROR_BODY_BYTES_MAX).contains(&body.len()));
            let body = conclude_all(&[outcome.clone(), outcome], &none_refused()).body;
            assert!(body.len() <= ERROR_BODY_BYTES_MAX && !body.contains('\u{fffd}'));
        }
    }
}

#[test]
fn a_body_of_exactly_the_limit_is_kept() {
    let text = "x".repeat(ERROR_BODY_BYTES_MAX);
    assert_eq!(conclude_all(&[Outcome::upstream(400, None, text.as_bytes())], &none_refused()).body, text);
}

#[test]
fn bytes_that_are_not_utf_8_are_replaced() {
    let body = conclude_all(&[Outcome::upstream(400, None, b"a\xff\xfeb")], &none_refused()).body;
    assert_eq!(body, "a\u{fffd}\u{fffd}b");
    let body = conclude_all(&[Outcome::upstream(400, None, &[0xff; 5000])], &none_refused()).body;
    assert_eq!(body, "\u{fffd}".repeat(ERROR_BODY_BYTES_MAX / 3));
}

#[test]
fn a_long_example_is_cut() {
    let refused = RefusedSeries { example: Some("é".repeat(2000)), ..refused(1, 1) };
    for outcomes in [&[][..], &[status(500)], &[status(500), status(400)]] {
        assert!(conclude_all(outcomes, &refused).body.len() <= ERROR_BODY_BYTES_MAX);
    }
}

#[test]
fn retry_after_is_the_longest_of_the_retriable_outcomes() {
    let throttled = |secs| Outcome::upstream(429, secs, b"");
    let failed = |secs| Outcome::upstream(503, secs, b"");
    let rejected = |secs| Outcome::upstream(400, secs, b"");
    let delivered = |secs| Outcome::upstream(200, secs, b"");
    for (outcomes, expected) in [
        (vec![throttled(Some(3))], Some(3)),
        (vec![throttled(None)], None),
        (vec![throttled(Some(3)), throttled(Some(9)), throttled(None)], Some(9)),
        (vec![failed(None), throttled(Some(9))], Some(9)),
        (vec![failed(Some(20)), throttled(Some(9))], Some(20)),
        (vec![failed(None)], None),
        (vec![rejected(Some(60))], None),
        (vec![delivered(Some(60))], None),
        (vec![rejected(Some(60)), delivered(Some(70)), throttled(Some(2))], Some(2)),
    ] {
        assert_eq!(conclude_all(&outcomes, &none_refused()).retry_after_secs, expected, "{outcomes:?}");
    }
}

#[test]
fn retry_after_is_limited() {
    let waits = |secs, max| {
        let answer = conclude_all(&[Outcome::upstream(429, secs, b"")], &none_refused());
        answer.with_retry_after_max(Duration::from_millis(max)).retry_after_secs
    };
    assert_eq!(waits(Some(u32::MAX), 60_000), Some(60));
    assert_eq!(waits(Some(59), 60_000), Some(59));
    assert_eq!(waits(Some(9), 1_001), Some(2));
    assert_eq!(waits(Some(9), u64::MAX), Some(9));
    assert_eq!(waits(Some(0), 60_000), Some(0));
    assert_eq!(waits(None, 60_000), None);
}

#[test]
fn our_own_503_always_has_a_retry_after() {
    let outcome = Failure::OverShare.outcome(Duration::from_secs(10));
    assert_eq!((outcome.source, outcome.status), (Source::Us, 503));
    assert_eq!(
        &*outcome.message,
        "overloaded: this tenant has its share in flight (limits.tenant_share_percent)"
    );
    let answer = conclude_all(std::slice::from_ref(&outcome), &none_refused());
    assert_eq!(answer.retry_after_secs, Some(OVERLOAD_RETRY_AFTER_SECS));
    let silent = Outcome { retry_after_secs: None, ..outcome };
    assert_eq!(conclude_all(&[silent], &none_refused()).retry_after_secs, Some(OVERLOAD_RETRY_AFTER_SECS));
}

#[test]
fn accept_all_answers_204_to_any_outcome() {
    let tenant = tenant("a");
    let outcome = Outcome::upstream(500, Some(9), b"text");
    let answer = conclude(Destination::Metrics, [(&tenant, &outcome)], &refused(1, 1), true);
    assert_eq!(answer, Answer::new(204, String::new()));
}

#[test]
fn refusals_have_their_statuses() {
    let wait = Some(OVERLOAD_RETRY_AFTER_SECS);
    for (refusal, status, close, allow, retry_after_secs) in [
        (Refusal::BadRequest("no Host"), 400, true, None, None),
        (Refusal::NotFound, 404, false, None, None),
        (Refusal::NoTarget { key: "x" }, 404, false, None, None),
        (Refusal::MethodNotAllowed { allow: "POST" }, 405, false, Some("POST"), None),
        (Refusal::Timeout("body"), 503, true, None, wait),
        (Refusal::BodyTooLarge { limit: 5 }, 413, true, None, None),
        (Refusal::UnsupportedMedia { taken: "x" }, 415, false, None, None),
        (Refusal::UnsupportedEncoding { taken: "x" }, 415, false, None, None),
        (Refusal::RemoteWriteV2, 415, false, None, None),
        (Refusal::HeadTooLarge { limit: 5 }, 431, true, None, None),
        (Refusal::TooManyFields, 431, true, None, None),
        (Refusal::Overloaded { why: "too many requests" }, 503, false, None, wait),
        (Refusal::Draining, 503, true, None, wait),
    ] {
        let body = refusal.to_string();
        assert!(!body.is_empty() && !body.contains('\n') && body.len() <= ERROR_BODY_BYTES_MAX);
        assert_eq!(
            Answer::from(&refusal),
            Answer { retry_after_secs, allow, close, ..Answer::new(status, body) }
        );
    }
}

#[test]
fn split_errors_are_client_errors() {
    let missing = TenantError::Missing { labels: "label __tenant__".to_owned() };
    let malformed = Malformed { fault: Fault::Truncated, at_byte: 3 };
    let malformed_v2 = remote_write_v2::Malformed { fault: remote_write_v2::Fault::OddLabels, at_byte: 3 };
    for (error, status) in [
        (SplitError::Inflate(InflateError::TooLarge { bytes_max: 8 }), 413),
        (SplitError::TooManyFields { fields_max: 8 }, 413),
        (SplitError::TooManyPieces { pieces_max: 8 }, 413),
        (SplitError::TooManySymbols { symbols_max: 8 }, 413),
        (SplitError::TooMuchGrowth { bytes_max: 8 }, 413),
        (SplitError::MalformedV2(malformed_v2), 400),
        (SplitError::TooManyTenants { tenants_max: 8 }, 413),
        (SplitError::Inflate(SnappyError::Header.into()), 400),
        (SplitError::Inflate(SnappyError::Corrupt.into()), 400),
        (SplitError::Malformed(malformed), 400),
        (SplitError::Empty, 400),
        (SplitError::TooManyScalars { bytes_max: 8 }, 400),
        (SplitError::Tenant { noun: "series", place: 1, name: "up".to_owned(), error: missing }, 400),
    ] {
        assert_eq!(Answer::from(&error), Answer::new(status, error.to_string()));
    }
}

#[test]
fn the_text_of_a_split_error_is_cut() {
    let error = TenantError::Missing { labels: format!("label {}", "é".repeat(2000)) };
    let answer = Answer::from(&SplitError::Tenant { noun: "series", place: 1, name: "up".to_owned(), error });
    assert!((ERROR_BODY_BYTES_MAX - 3..=ERROR_BODY_BYTES_MAX).contains(&answer.body.len()));
}

/// Text of every length up to twice the limit, with characters of every width.
fn any_text() -> impl Strategy<Value = String> {
    (".{0,8}", 0..60_usize).prop_map(|(text, times)| text.repeat(times))
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let code = prop_oneof![0..1000_u16, 200..210_u16, 400..430_u16, 500..505_u16];
    let source = prop::sample::select(vec![Source::Client, Source::Us, Source::Upstream]);
    (source, code, any::<Option<u32>>(), any_text()).prop_map(|(source, status, retry_after_secs, text)| {
        Outcome { source, ..Outcome::upstream(status, retry_after_secs, text.as_bytes()) }
    })
}

fn any_refused() -> impl Strategy<Value = RefusedSeries> {
    prop_oneof![
        Just(RefusedSeries::default()),
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<Option<String>>()).prop_map(
            |(missing, invalid, samples, example)| RefusedSeries {
                missing,
                invalid,
                samples,
                example,
                ..RefusedSeries::default()
            }
        )
    ]
}

proptest! {
    #[test]
    fn an_answer_never_promises_too_much(
        outcomes in prop::collection::vec(any_outcome(), 0..20),
        refused in any_refused(),
    ) {
        let answer = conclude_all(&outcomes, &refused);
        let delivered = |outcome: &Outcome| (200..300).contains(&outcome.status);
        let retriable = |outcome: &Outcome| {
            let known = (200..300).contains(&outcome.status) || (400..500).contains(&outcome.status);
            !known || [408, 499].contains(&outcome.status)
        };
        let all_delivered = outcomes.iter().all(delivered) && refused.missing == 0 && refused.invalid == 0;
        prop_assert_eq!((200..300).contains(&answer.status), all_delivered);
        prop_assert_eq!((500..600).contains(&answer.status), outcomes.iter().any(retriable));
        prop_assert_eq!(
            answer.status == 429,
            !outcomes.iter().any(retriable) && outcomes.iter().any(|outcome| outcome.status == 429)
        );
        prop_assert!(answer.body.len() <= ERROR_BODY_BYTES_MAX);
    }

    #[test]
    fn the_order_of_parts_does_not_change_the_status(
        outcomes in prop::collection::vec(any_outcome(), 0..8),
        refused in any_refused(),
        turn in any::<prop::sample::Index>(),
    ) {
        let before = conclude_all(&outcomes, &refused);
        let mut turned = outcomes;
        if !turned.is_empty() {
            let by = turn.index(turned.len());
            turned.rotate_left(by);
        }
        turned.reverse();
        let after = conclude_all(&turned, &refused);
        prop_assert_eq!((before.status, before.retry_after_secs), (after.status, after.retry_after_secs));
    }

    #[test]
    fn several_failures_are_listed_on_one_line(
        outcomes in prop::collection::vec(any_outcome(), 2..40),
        refused in any_refused(),
    ) {
        let failed = outcomes.iter().filter(|outcome| !(200..300).contains(&outcome.status)).count();
        prop_assume!(failed > 1);
        let body = conclude_all(&outcomes, &refused).body;
        prop_assert!(!body.contains(char::is_control));
        let start = format!("{failed} of {} tenants failed: ", outcomes.len());
        prop_assert!(body.starts_with(&start));
    }
}
