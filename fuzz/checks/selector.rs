//! Reads bytes as a selector and as a series. What is printed must read back, matching must be what its matchers say
//! one by one, and an error must be one harmless line with a place in the text.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

use tenantry::selector::{Malformed, Matcher, Op, Selector, Series, show_series};
use tenantry::text::needs_escape;

/// What the fuzz target does.
pub(crate) fn check(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match Selector::parse(text) {
        Ok(selector) => {
            let printed = selector.to_string();
            assert!(!printed.contains(needs_escape), "{printed:?}");
            // Printing may make it longer than a selector may be.
            if let Ok(again) = Selector::parse(&printed) {
                assert_eq!(again, selector, "{printed}");
                assert_eq!(again.to_string(), printed);
            } else {
                assert!(printed.len() > tenantry::limits::SELECTOR_BYTES_MAX, "{printed}");
            }
            evaluate(&selector);
        }
        Err(error) => harmless(&error, text),
    }
    match Series::parse(text) {
        Ok(series) => {
            let selector = Selector::parse(text).expect("a series is a selector");
            assert!(selector.matches(|name| series.value_of(name)), "{text}");
            assert_eq!(show_series(series.labels()), selector.to_string());
        }
        Err(error) => harmless(&error, text),
    }
}

fn harmless(error: &Malformed, text: &str) {
    assert!(error.at_byte <= text.len(), "{error} in {text:?}");
    assert!(!error.to_string().contains(|letter: char| letter.is_control()), "{error:?}");
}

/// Series that have values of the selector itself, and others.
fn evaluate(selector: &Selector) {
    let values = selector.matchers().iter().map(Matcher::value).chain([&b""[..], b"a", b"\xff", b"a\nb"]);
    for value in values {
        let of_one = |matcher: &Matcher| {
            let is = match matcher.op() {
                Op::Equal => matcher.value() == value,
                Op::NotEqual => matcher.value() != value,
                Op::Match | Op::NoMatch => matcher.holds(value),
            };
            assert_eq!(is, matcher.holds(value));
            is
        };
        let each: Vec<bool> = selector.matchers().iter().map(of_one).collect();
        assert_eq!(selector.matches(|_| Some(value)), !each.contains(&false), "{selector}");
    }
    let of_absent = selector.matchers().iter().all(|matcher| matcher.holds(b""));
    assert_eq!(selector.matches(|_| None::<&[u8]>), of_absent, "{selector}");
}
