//! Makes one export of several of a tenant and signal.
//!
//! In protobuf they are put one behind the other: a repeated field goes on. In JSON that would be several documents. So
//! the elements of each list go behind those of the first, as they came; what is around the first list stays around
//! all of them. Each byte is moved once, however many exports there are.
#![forbid(unsafe_code)]

use crate::model::{Notation, Signal};
use crate::wire::otlp::json::find_list;

/// An export that others are added to.
#[derive(Debug)]
pub(in crate::split) struct Joined {
    signal: Signal,
    notation: Notation,
    content: Vec<u8>,
    has_first: bool,
    /// In JSON: where the elements of the list begin. It is open at its end, which `content` lacks.
    open_list: Option<usize>,
}

/// What ends an open list.
const LIST_END: &[u8] = b"]}";

impl Joined {
    pub(in crate::split) fn new(signal: Signal, notation: Notation) -> Self {
        Self { signal, notation, content: Vec::new(), has_first: false, open_list: None }
    }

    /// The most bytes that it has with a further export of so many.
    pub(in crate::split) fn bytes_with(&self, more: usize) -> usize {
        self.content.len() + more
    }

    /// Adds an export. The first stays as it came if no other follows. `None` if it cannot be joined to the others, or
    /// others cannot be joined to it: a document with other keys, or none. Then nothing has changed.
    pub(in crate::split) fn add(&mut self, export: &[u8]) -> Option<()> {
        if self.has_first && self.notation == Notation::Json {
            return self.add_elements(export);
        }
        self.has_first = true;
        self.content.extend_from_slice(export);
        Some(())
    }

    fn add_elements(&mut self, export: &[u8]) -> Option<()> {
        let elements = export.get(find_list(self.signal, export)?)?;
        let begin = match self.open_list {
            Some(begin) => begin,
            None => {
                let first = find_list(self.signal, &self.content)?;
                self.content.truncate(first.end);
                first.start
            }
        };
        self.open_list = Some(begin);
        if !elements.is_empty() && self.content.len() > begin {
            self.content.push(b',');
        }
        self.content.extend_from_slice(elements);
        Some(())
    }

    /// The export.
    pub(in crate::split) fn into_content(mut self) -> Vec<u8> {
        if self.open_list.is_some() {
            self.content.extend_from_slice(LIST_END);
        }
        self.content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Joins exports of logs in JSON, as many as can be. Returns the content, and how many it has.
    fn joined(exports: &[&str]) -> (String, usize) {
        let mut joined = Joined::new(Signal::Logs, Notation::Json);
        let bytes_max = exports.iter().map(|export| export.len()).sum();
        let count = exports.iter().take_while(|export| joined.add(export.as_bytes()).is_some()).count();
        let content = joined.into_content();
        assert!(content.len() <= bytes_max, "{} of {bytes_max} bytes", content.len());
        (String::from_utf8(content).unwrap(), count)
    }

    #[test]
    fn elements_go_behind_those_of_the_first_as_they_came() {
        let one = r#"{"resourceLogs":[{"a":1.50}]}"#;
        let spaced = " {\n\"resourceLogs\" :\t[ {\"b\" :\r\n[ ] } , { } ]\n}\n";
        let snake = r#"{"resource_logs":[{"c":"]}"}]}"#;
        for (exports, expected) in [
            (&[one, one][..], r#"{"resourceLogs":[{"a":1.50},{"a":1.50}]}"#),
            (&[one, snake], r#"{"resourceLogs":[{"a":1.50},{"c":"]}"}]}"#),
            (&[snake, one], r#"{"resource_logs":[{"c":"]}"},{"a":1.50}]}"#),
            (&[one, spaced, one], "{\"resourceLogs\":[{\"a\":1.50},{\"b\" :\r\n[ ] } , { },{\"a\":1.50}]}"),
            (&[spaced, one], " {\n\"resourceLogs\" :\t[ {\"b\" :\r\n[ ] } , { },{\"a\":1.50}]}"),
            (&[spaced], spaced),
        ] {
            assert_eq!(joined(exports), (expected.to_owned(), exports.len()));
        }
    }

    #[test]
    fn empty_lists_leave_no_comma() {
        let one = r#"{"resourceLogs":[{}]}"#;
        let empty = r#"{"resourceLogs":[]}"#;
        let spaced = "{\"resource_logs\": [ \n ] }";
        assert_eq!(joined(&[empty, empty, empty]), (empty.to_owned(), 3));
        assert_eq!(joined(&[empty, spaced, one]), (one.to_owned(), 3));
        assert_eq!(joined(&[one, empty, spaced]), (one.to_owned(), 3));
        let two = r#"{"resourceLogs":[{},{}]}"#;
        assert_eq!(joined(&[empty, one, spaced, one, empty]), (two.to_owned(), 5));
        assert_eq!(joined(&[spaced, one]), ("{\"resource_logs\": [ \n {}]}".to_owned(), 2));
    }

    #[test]
    fn what_has_other_keys_or_is_damaged_is_joined_to_nothing() {
        let one = r#"{"resourceLogs":[{}]}"#;
        for other in [
            r#"{"resourceLogs":[{}],"x":1}"#,
            r#"{"resourceLogs":[{}],"resourceLogs":[{}]}"#,
            r#"{"resourceSpans":[{}]}"#,
            r#"{"resourceLogs":null}"#,
            "{}",
            "",
            r#"{"resourceLogs":[{}]"#,
            r#"{"resourceLogs":[{}]}}"#,
            r#"{"resourceLogs":[{"a":"}]}"#,
            "\u{0}",
        ] {
            assert_eq!(joined(&[one, other, one]), (one.to_owned(), 1), "{other}");
            assert_eq!(joined(&[one, one, other]).1, 2, "{other}");
            assert_eq!(joined(&[other, one]), (other.to_owned(), 1));
        }
    }

    #[test]
    fn protobuf_is_put_one_behind_the_other() {
        let mut joined = Joined::new(Signal::Logs, Notation::Protobuf);
        for export in [&b"\x0a\x00"[..], b"", b"\x0a\x01x"] {
            joined.add(export).unwrap();
        }
        assert_eq!(joined.bytes_with(2), 7);
        assert_eq!(joined.into_content(), b"\x0a\x00\x0a\x01x");
    }

    /// Each export is read once, and the first once more, however many there are.
    #[test]
    fn the_work_grows_as_the_bytes_do() {
        let export =
            format!(r#"{{"resourceLogs":[{}{{}}]{}}}"#, r#"{"a":[[]]},"#.repeat(100), " ".repeat(500));
        let read = |count: usize| {
            crate::wire::otlp::json::bytes_read();
            let all = vec![&export[..]; count];
            assert_eq!(joined(&all).1, count);
            crate::wire::otlp::json::bytes_read()
        };
        let (two, many) = (read(2), read(200));
        assert!(many <= two * 101, "{two} bytes for 2 exports, {many} for 200");
    }
}
