//! Bytes are taken for a stream's labels. We have to read what another reader reads, word by word; what is left when a
//! label is cut out has to be the others; and what we quote has to read back.
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
        // No escape, no copy.
        let raw = text.windows(label.value.len().max(1)).any(|bytes| bytes == &*label.value);
        assert!(matches!(label.value, Cow::Borrowed(_)) || !raw || text.contains(&b'\\'));
        quoted(&label.value);
    }
    quoted(text);
}

/// Text that we quote reads back, here and there.
fn quoted(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut set = b"{a=".to_vec();
    quote(text, &mut set);
    set.push(b'}');
    let expected = vec![(b"a".to_vec(), text.as_bytes().to_vec())];
    assert_eq!(read(&set), Ok(expected.clone()));
    assert_eq!(reader::labels(&set), Some(expected));
    // Prometheus' lexer takes U+FFFD for bytes that are no UTF-8, and no line ends within quotes.
    let set = String::from_utf8(set).expect("quoting keeps UTF-8");
    assert!(!set.contains(|c: char| c == '\u{fffd}' || c.is_control()), "{set:?}");
}
