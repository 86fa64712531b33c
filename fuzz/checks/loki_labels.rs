//! Reads bytes as a stream's labels. The result must be that of an independent reader, a text without one label must
//! read as the other labels, and text that was quoted must read back.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

use std::borrow::Cow;

use tenantry::wire::loki::labels::{Labels, Malformed, quote};
use testkit::oracle::loki_labels as reader;

/// A name and a value.
type Pair = (Vec<u8>, Vec<u8>);

fn read(text: &[u8]) -> Result<Vec<Pair>, Malformed> {
    let mut labels = Labels::new(text);
    let mut all = Vec::new();
    while let Some(label) = labels.take()? {
        all.push((label.name.into_owned(), label.value.into_owned()));
    }
    Ok(all)
}

/// What the fuzz target does.
pub(crate) fn check(text: &[u8]) {
    let expected = reader::labels(text);
    let labels = match (read(text), expected) {
        (Ok(labels), Some(expected)) => {
            assert_eq!(labels, expected, "{}", text.escape_ascii());
            labels
        }
        (Err(malformed), None) => {
            assert!(malformed.at_byte <= text.len());
            assert!(!malformed.to_string().contains(|c: char| c.is_control()));
            return;
        }
        (ours, theirs) => panic!("{}: {ours:?}, but {theirs:?}", text.escape_ascii()),
    };
    let mut walk = Labels::new(text);
    for at in 0..labels.len() {
        let label = walk.take().expect("it was read before").expect("there are as many");
        let kept = [&text[..label.cut.start], &text[label.cut.end..]].concat();
        let mut others = labels.clone();
        others.remove(at);
        assert_eq!(read(&kept).as_ref(), Ok(&others), "{}", kept.escape_ascii());
        // A value without an escape is not copied.
        let raw = text.windows(label.value.len().max(1)).any(|bytes| bytes == &*label.value);
        assert!(matches!(label.value, Cow::Borrowed(_)) || !raw || text.contains(&b'\\'));
        quoted(&label.value);
    }
    quoted(text);
}

/// Text that was quoted reads back, with both readers.
fn quoted(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut set = b"{a=".to_vec();
    quote(text, &mut set);
    set.push(b'}');
    let expected = vec![(b"a".to_vec(), text.as_bytes().to_vec())];
    assert_eq!(read(&set), Ok(expected.clone()));
    assert_eq!(reader::labels(&set), Some(expected));
    // Prometheus' lexer takes U+FFFD for invalid UTF-8, and accepts no line end within quotes.
    let set = String::from_utf8(set).expect("quoting keeps UTF-8");
    assert!(!set.contains(|c: char| c == '\u{fffd}' || c.is_control()), "{set:?}");
}
