//! The list of an export in JSON: all that several exports need to become one.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::cursor::Cursor;
use crate::wire::otlp::level::{Level, Signal};

/// Finds the elements of the list of an export: from the first to the last, with the commas between them; empty if
/// there are none. `None` unless the export is an object with this list alone. Another key, be it unknown or there
/// twice, says something of the export as a whole, and `null` is no list.
///
/// `text` must have been [checked](super::check). Otherwise the range may hold anything, within the text.
pub fn find_list(signal: Signal, text: &[u8]) -> Option<Range<usize>> {
    let mut cursor = Cursor { text, at: 0 };
    if !cursor.skip(b'{') || cursor.peek() != b'"' {
        return None;
    }
    let is_list = cursor.key().is(Level::Resource.key(signal)).ok()?;
    if !is_list || cursor.peek() != b'[' {
        return None;
    }
    let at = cursor.at;
    let inner = cursor.value().strip_prefix(b"[")?.strip_suffix(b"]")?;
    let is_all = cursor.skip(b'}') && cursor.peek() == 0 && cursor.at == text.len();
    let begin = at + 1 + inner.len() - inner.trim_ascii_start().len();
    is_all.then(|| begin..begin + inner.trim_ascii().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::otlp::json::check;

    /// The elements of an export of logs.
    fn found(text: &str) -> Option<&str> {
        find_list(Signal::Logs, text.as_bytes()).and_then(|range| text.get(range))
    }

    #[test]
    fn the_elements_of_the_only_list_are_found_whatever_white_space_is_around_them() {
        for (text, elements) in [
            (r#"{"resourceLogs":[{}]}"#, "{}"),
            (r#"{"resource_logs":[{"a":[1]},{"b":"]}"}]}"#, r#"{"a":[1]},{"b":"]}"}"#),
            (r#"{"resource\u004cogs":[{}]}"#, "{}"),
            ("\n{\t\"resourceLogs\" :\r\n [ {} ,\t{ } \n] } \n", "{} ,\t{ }"),
            (r#"{"resourceLogs":[]}"#, ""),
            ("{\"resourceLogs\":[ \n\t]}", ""),
        ] {
            check(text.as_bytes()).unwrap();
            assert_eq!(found(text), Some(elements), "{text}");
        }
    }

    #[test]
    fn an_export_with_anything_else_has_no_list_of_its_own() {
        for text in [
            "{}",
            "null",
            "[]",
            "7",
            r#""resourceLogs""#,
            r#"{"resourceLogs":null}"#,
            r#"{"resourceLogs":{}}"#,
            r#"{"resourceLogs":"[]"}"#,
            r#"{"resourceSpans":[{}]}"#,
            r#"{"ResourceLogs":[{}]}"#,
            r#"{"resourceLogs":[{}],"x":1}"#,
            r#"{"x":[],"resourceLogs":[{}]}"#,
            r#"{"resourceLogs":[{}],"resourceLogs":[{}]}"#,
            r#"{"resourceLogs":[{}],"resource_logs":[{}]}"#,
        ] {
            check(text.as_bytes()).unwrap();
            assert_eq!(found(text), None, "{text}");
        }
        let of_all = r#"{"resourceMetrics":[1],"resourceLogs":[2],"resourceSpans":[3]}"#;
        assert!(Signal::ALL.iter().all(|&signal| find_list(signal, of_all.as_bytes()).is_none()));
    }

    #[test]
    fn what_is_no_json_has_at_most_a_range_within_it() {
        let whole = r#" {"resourceLogs" : [ {"a\"\\": "]"} , {} ] } "#.as_bytes();
        for end in 0..whole.len() - 1 {
            assert_eq!(find_list(Signal::Logs, &whole[..end]), None, "{end}");
        }
        for at in 0..whole.len() {
            for byte in (0..=u8::MAX).step_by(3).chain(*b"{}[]\",:\\ ") {
                let mut broken = whole.to_vec();
                broken[at] = byte;
                if let Some(range) = find_list(Signal::Logs, &broken) {
                    assert!(broken.get(range).is_some(), "{}", broken.escape_ascii());
                }
            }
        }
    }
}
