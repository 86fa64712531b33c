//! Heads of requests and of responses, chunked bodies, and whole connections of requests.
//!
//! Nothing may panic. Besides:
//! - The result must not depend on how many bytes follow, nor on how the bytes are cut into reads.
//! - A strict reader that knows only lines and colons must find the same end and the same single framing in an accepted
//!   head, and the same end in a chunked body.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tenantry::http::{
    BadResponse, ChunkDecoder, Framing, Passed, Refusal, RequestHead, ResponseFraming, ResponseHead,
};

const TENANT_HEADER: &str = "X-Scope-OrgID";
const BODY_BYTES_MAX: usize = 256;
/// How many prefixes of an input are tried: all of a short input, evenly spread ones of a long input.
const PREFIXES_MAX: usize = 512;

/// What the fuzz target does.
pub(crate) fn check(data: &[u8]) {
    request(data);
    passed(data);
    response(data);
    chunks(data);
    connection(data);
}

fn parse_request(buf: &[u8]) -> Result<Option<(RequestHead, usize)>, Refusal> {
    RequestHead::parse(buf, TENANT_HEADER)
}

fn parse_response(buf: &[u8]) -> Result<Option<(ResponseHead, usize)>, BadResponse> {
    ResponseHead::parse(buf, now())
}

/// The date in RFC 9110's examples. The corpus has earlier and later dates.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(784_111_777)
}

fn request(data: &[u8]) {
    let found = parse_request(data);
    assert_same_for_prefixes(data, &found, parse_request);
    let Ok(Some((head, head_bytes))) = found else { return };
    let lines = Lines::read(data, head_bytes);
    match head.framing {
        Framing::None => assert!(lines.lengths.is_empty() && lines.codings.is_empty()),
        Framing::Length(length) => assert!(lines.lengths == [length] && lines.codings.is_empty()),
        Framing::Chunked => assert!(lines.lengths.is_empty() && lines.codings == ["chunked"]),
    }
    let (method, target) = lines.start.split_once(' ').expect("a method");
    let (target, version) = target.rsplit_once(' ').expect("a version");
    assert!(!method.is_empty() && !target.is_empty() && !target.contains(char::is_whitespace));
    assert!(lines.hosts == 1 || (lines.hosts == 0 && version == "HTTP/1.0"));
    assert!(version == "HTTP/1.1" || (version == "HTTP/1.0" && head.framing != Framing::Chunked));
    let path = data.get(head.path).expect("a path inside the head");
    let path = std::str::from_utf8(path).expect("an ASCII path");
    assert!(target.contains(path) && !path.contains('?'));
    assert!(path.is_empty() || path == "*" || path.starts_with('/'));
    let tenant = head.source_tenant.map(|range| data.get(range).expect("a value inside the head"));
    assert_eq!(tenant, lines.tenants.first().map(String::as_bytes).filter(|value| !value.is_empty()));
    assert!(lines.tenants.len() < 2 && tenant.is_none_or(<[u8]>::is_ascii));
}

/// Each line that goes on to the upstream is a name that is asked for, a value, and one CRLF.
fn passed(data: &[u8]) {
    let names = ["Accept".into(), "X-Shard".into()];
    let Ok(Some((head, _))) = RequestHead::parse_passing(data, TENANT_HEADER, &names) else { return };
    let Some(passed) = head.passed else { return };
    let lines = std::str::from_utf8(passed.lines()).expect("ASCII lines");
    for line in lines.strip_suffix("\r\n").expect("a CRLF at the end").split("\r\n") {
        let (name, value) = line.split_once(": ").expect("a name");
        assert!(["Accept", "X-Shard", "traceparent", "tracestate"].contains(&name));
        assert!(value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')));
    }
    assert!(passed.lines().starts_with(Passed::deciding(Some(&passed))));
}

fn response(data: &[u8]) {
    let found = parse_response(data);
    assert_same_for_prefixes(data, &found, parse_response);
    let Ok(Some((head, head_bytes))) = found else { return };
    let lines = Lines::read(data, head_bytes);
    assert!(lines.lengths.len() + lines.codings.len() <= 1);
    assert!((100..600).contains(&head.status) && head.status != 101);
    assert!(lines.start.get(9..12) == Some(&head.status.to_string()));
    match head.framing {
        ResponseFraming::None => assert!(matches!(head.status, 100..200 | 204 | 304)),
        ResponseFraming::Length(length) => assert_eq!(lines.lengths, [length]),
        ResponseFraming::Chunked => assert_eq!(lines.codings, ["chunked"]),
        ResponseFraming::UntilClose => {
            assert!(lines.lengths.is_empty() && lines.codings.is_empty() && !head.keep_alive);
        }
    }
}

/// A result for all of `data` must come of no prefix shorter than what it consumes, and of every longer prefix.
fn assert_same_for_prefixes<T: PartialEq + std::fmt::Debug, E>(
    data: &[u8],
    found: &Result<Option<(T, usize)>, E>,
    parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>,
) {
    let step = data.len() / PREFIXES_MAX + 1;
    let mut refused = false;
    for end in (0..data.len()).step_by(step) {
        match (parse(&data[..end]), found) {
            (Ok(None), Ok(Some((_, head_bytes)))) => assert!(end < *head_bytes),
            (Ok(None), _) => assert!(!refused, "an error went away"),
            (Ok(Some((head, head_bytes))), Ok(Some((whole, whole_bytes)))) => {
                assert!(head_bytes <= end && head_bytes == *whole_bytes && head == *whole);
            }
            (Ok(Some(head)), _) => panic!("{head:?} is not there when more comes"),
            (Err(_), whole) => {
                assert!(whole.is_err(), "an error went away");
                refused = true;
            }
        }
    }
    if let Ok(Some((_, head_bytes))) = found {
        assert!(*head_bytes <= data.len());
    }
}

/// A head as a strict reader sees it, which knows only lines and colons.
struct Lines {
    start: String,
    lengths: Vec<u64>,
    codings: Vec<String>,
    hosts: usize,
    tenants: Vec<String>,
}

impl Lines {
    /// Reads the head of `head_bytes` bytes in `data`; its end must be where the first empty line after a
    /// non-empty one ends.
    fn read(data: &[u8], head_bytes: usize) -> Self {
        let head = &data[..head_bytes];
        let leading = head.chunks(2).take_while(|pair| pair == b"\r\n").count() * 2;
        let end = head[leading..].windows(4).position(|four| four == b"\r\n\r\n").expect("an empty line");
        assert_eq!(leading + end + 4, head_bytes);
        let head = String::from_utf8_lossy(&head[leading..leading + end]).into_owned();
        assert!(!head.contains('\0'));
        let mut lines = head.split("\r\n");
        let start = lines.next().expect("a first line").to_owned();
        let mut seen = Self { start, lengths: vec![], codings: vec![], hosts: 0, tenants: vec![] };
        for line in lines {
            assert!(!line.contains(['\r', '\n']));
            let (name, value) = line.split_once(':').expect("a colon");
            assert!(!name.is_empty() && !name.contains(char::is_whitespace));
            let value = value.trim_matches([' ', '\t']);
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    assert!(value.bytes().all(|byte| byte.is_ascii_digit()));
                    seen.lengths.push(value.parse().expect("a length"));
                }
                "transfer-encoding" => seen.codings.push(value.to_ascii_lowercase()),
                "host" => seen.hosts += 1,
                "x-scope-orgid" => seen.tenants.push(value.to_owned()),
                _ => {}
            }
        }
        seen
    }
}

/// A chunked body, decoded whole, in pieces, byte by byte, and by a reader that splits at line ends.
fn chunks(data: &[u8]) {
    let whole = decode(data, |rest| rest.len());
    assert_eq!(decode(data, |_| 1), whole);
    // Pieces of irregular sizes, taken from the data.
    assert_eq!(decode(data, |rest| 1 + usize::from(rest[0] % 11)), whole);
    let Ok((body, consumed, done)) = whole else { return };
    assert!(body.len() <= BODY_BYTES_MAX && body.len() <= consumed && consumed <= data.len());
    if done {
        assert_eq!(decode_by_lines(data), Some((body, consumed)));
        // A body that lacks its last byte is incomplete.
        let (_, _, early) = decode(&data[..consumed - 1], |rest| rest.len()).expect("a good beginning");
        assert!(!early);
    } else {
        assert_eq!(consumed, data.len());
    }
}

/// The data, the bytes consumed, and whether the body ended; fed in pieces of `size(rest)` bytes.
fn decode(data: &[u8], size: impl Fn(&[u8]) -> usize) -> Result<(Vec<u8>, usize, bool), Refusal> {
    let mut decoder = ChunkDecoder::new(BODY_BYTES_MAX);
    let (mut out, mut rest, mut done) = (Vec::new(), data, false);
    while !rest.is_empty() && !done {
        let piece = &rest[..size(rest).min(rest.len())];
        let consumed;
        (consumed, done) = decoder.decode(piece, &mut out)?;
        assert!(consumed == piece.len() || (done && consumed < piece.len()));
        assert!(out.len() <= BODY_BYTES_MAX);
        rest = &rest[consumed..];
    }
    Ok((out, data.len() - rest.len(), done))
}

/// A body's data and length, as found by a reader that looks for line ends in the whole body.
fn decode_by_lines(data: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut out, mut rest) = (Vec::new(), data);
    let line = |rest: &[u8]| rest.windows(2).position(|pair| pair == b"\r\n");
    loop {
        let end = line(rest)?;
        let size = rest[..end].split(|&byte| byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        out.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let end = line(rest)?;
        rest = &rest[end + 2..];
        if end == 0 {
            return Some((out, data.len() - rest.len()));
        }
    }
}

/// What a server reads from all requests on one connection.
#[derive(Default, PartialEq, Debug)]
struct Heard {
    requests: Vec<(RequestHead, Vec<u8>)>,
    refused: bool,
}

/// Reads requests one after another, once with all bytes present and once as they arrive piece by piece.
fn connection(data: &[u8]) {
    let whole = hear(data, data.len());
    for piece_bytes in [1, 7] {
        assert_eq!(hear(data, piece_bytes), whole);
    }
}

/// Reads requests until `data` ends or one is refused, getting `piece_bytes` at a time.
fn hear(data: &[u8], piece_bytes: usize) -> Heard {
    let mut heard = Heard::default();
    let mut buf = Vec::new();
    // The head whose body is being read, the decoder if that is chunked, and the body so far.
    let mut open: Option<(RequestHead, ChunkDecoder, Vec<u8>)> = None;
    for piece in data.chunks(piece_bytes.max(1)) {
        buf.extend_from_slice(piece);
        loop {
            let Some((head, mut decoder, mut body)) = open.take() else {
                match parse_request(&buf) {
                    Ok(None) => break,
                    Ok(Some((head, head_bytes))) => {
                        drop(buf.drain(..head_bytes));
                        open = Some((head, ChunkDecoder::new(BODY_BYTES_MAX), Vec::new()));
                        continue;
                    }
                    Err(_) => {
                        heard.refused = true;
                        return heard;
                    }
                }
            };
            let (consumed, done) = match head.framing {
                Framing::None => (0, true),
                Framing::Length(length) => {
                    let left = length - body.len() as u64;
                    let taken = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    body.extend_from_slice(&buf[..taken]);
                    (taken, taken as u64 == left)
                }
                Framing::Chunked => match decoder.decode(&buf, &mut body) {
                    Ok(progress) => progress,
                    Err(_) => {
                        heard.refused = true;
                        return heard;
                    }
                },
            };
            drop(buf.drain(..consumed));
            if done {
                heard.requests.push((head, body));
            } else {
                open = Some((head, decoder, body));
                break;
            }
        }
    }
    heard
}
