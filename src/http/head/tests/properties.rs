//! Properties of all bytes: arbitrary ones, heads assembled from pieces, and heads that were changed.

use proptest::prelude::*;

use super::*;

/// Parses an accepted head again, line by line and without httparse, and compares.
fn assert_reads_as_lines(buf: &[u8], head: &RequestHead, head_bytes: usize) {
    let text = &buf[..head_bytes];
    assert!(text.ends_with(b"\r\n\r\n"));
    assert!(
        head.path.end <= head_bytes
            && head.source_tenant.as_ref().is_none_or(|range| range.end <= head_bytes)
    );
    let text = String::from_utf8_lossy(text);
    let mut lines = text.split("\r\n").skip_while(|line| line.is_empty());
    assert_eq!(lines.next().unwrap().split(' ').count(), 3);
    let (mut lengths, mut codings) = (Vec::new(), Vec::new());
    for line in lines.take_while(|line| !line.is_empty()) {
        assert!(!line.contains(['\r', '\n', '\0']) && !line.starts_with([' ', '\t']));
        let (name, value) = line.split_once(':').unwrap();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value.trim().parse::<u64>().unwrap()),
            "transfer-encoding" => codings.push(value.trim().to_ascii_lowercase()),
            _ => {}
        }
    }
    match head.framing {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(length) => assert!(lengths == [length] && codings.is_empty()),
        Framing::Chunked => assert!(lengths.is_empty() && codings == ["chunked"]),
    }
}

/// A result for a prefix of `buf` must also be the result for `buf`.
fn assert_consistent(buf: &[u8]) {
    let whole = parse(buf);
    if let Ok(Some((head, head_bytes))) = &whole {
        assert_reads_as_lines(buf, head, *head_bytes);
        assert_eq!(parse(&buf[..*head_bytes]), whole);
    }
    for end in 0..buf.len() {
        match parse(&buf[..end]) {
            Ok(None) => {}
            Ok(Some((head, head_bytes))) => {
                assert!(head_bytes <= end);
                assert_eq!(whole, Ok(Some((head, head_bytes))));
            }
            Err(_) => assert!(whole.is_err()),
        }
    }
}

/// Heads assembled from valid and invalid lines that matter.
fn pieced_head() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::sample::select(vec![
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "X: y\r\n",
        "Content-Length: 5\n",
        " folded\r\n",
        "Connection: close\r\n",
        "Expect: 100-continue\r\n",
        "\r\n",
        "\n",
        "\r",
        "X-Scope-OrgID: a\r\n",
        "Content-Type: application/x-protobuf;proto=\"a\r\n",
        "GET / HTTP/1.1\r\n",
        "0\r\n\r\n",
    ]);
    (
        prop::sample::select(vec![
            "POST /push HTTP/1.1\r\n",
            "GET http://a/?b HTTP/1.0\r\n",
            "\r\nOPTIONS * HTTP/1.1\r\n",
        ]),
        prop::collection::vec(lines, 0..8),
    )
        .prop_map(|(line, lines)| [line, &lines.concat(), "\r\n"].concat().into_bytes())
}

/// Accepted and refused heads with some bytes replaced, inserted or removed.
fn mutated_head() -> impl Strategy<Value = Vec<u8>> {
    let heads = prop::sample::select([GOOD, BAD].concat());
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\r\n\0\t :,;/\"\\".to_vec())];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), byte, 0..3_u8), 1..6);
    (heads, edits).prop_map(|(head, edits)| {
        let mut head = head.as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at.index(head.len());
            match kind {
                0 => head[at] = byte,
                1 => head.insert(at, byte),
                _ => drop(head.remove(at)),
            }
        }
        head
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_consistently(buf in prop::collection::vec(any::<u8>(), 0..256)) {
        assert_consistent(&buf);
    }

    #[test]
    fn pieced_heads_are_read_consistently(buf in pieced_head()) {
        assert_consistent(&buf);
    }

    #[test]
    fn mutated_heads_are_read_consistently(buf in mutated_head()) {
        assert_consistent(&buf);
    }
}
