//! Headers of a request that are passed on to the upstream unchanged.
//!
//! Design constraints:
//!
//! * Some change the upstream's behaviour (`upstream.pass_headers`). Requests that differ in them must not be merged.
//!   Others only identify a trace (W3C Trace Context); a merged request carries one of the traces.
//! * Almost no request has any. They are detected while the head is parsed. Only then are the lines allocated, once for
//!   all parts of the request.
//! * They are untrusted input. Names are written as configured. Values are visible ASCII, blanks and tabs, so they
//!   cannot end the line early.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::Refusal;
use crate::limits::{PASSED_BYTES_MAX, TRACESTATE_BYTES_MAX};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// The known part of a `traceparent`.
const TRACEPARENT_BYTES: usize = 55;

/// The lines of these headers, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Passed {
    lines: Vec<u8>,
    /// Where the trace begins. The lines before it change the upstream's behaviour.
    trace_at: usize,
}

/// What a sender's `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: u128,
    /// The sender's span.
    pub span: u64,
    /// Whether the sender records the trace.
    pub is_sampled: bool,
}

impl Passed {
    /// All lines, each with its CRLF.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// The lines that must be equal in all requests that are merged.
    pub fn deciding(passed: Option<&Self>) -> &[u8] {
        passed.and_then(|passed| passed.lines.get(..passed.trace_at)).unwrap_or_default()
    }

    /// The trace, if there is one.
    pub fn trace_parent(&self) -> Option<TraceParent> {
        let line = self.lines.get(self.trace_at..)?;
        let value =
            std::str::from_utf8(line.strip_prefix(b"traceparent: ")?.get(..TRACEPARENT_BYTES)?).ok()?;
        // `is_traceparent` has checked it, so all but the version has this form.
        let mut fields = value.split('-').skip(1);
        let trace = u128::from_str_radix(fields.next()?, 16).ok()?;
        let span = u64::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u8::from_str_radix(fields.next()?, 16).ok()?;
        Some(TraceParent { trace, span, is_sampled: flags & 1 == 1 })
    }

    /// Appends the lines of `passed`, if any, with this trace and span in place of those that the sender named. The
    /// sender's state goes along if it belongs to the trace.
    pub fn write_traced(passed: Option<&Self>, trace: u128, span: u64, out: &mut Vec<u8>) {
        let deciding = Self::deciding(passed);
        out.extend_from_slice(deciding);
        let parent = format!("00-{trace:032x}-{span:016x}-01");
        line(TRACEPARENT, parent.as_bytes(), out);
        let trace = passed.and_then(|passed| passed.lines.get(deciding.len()..)).unwrap_or_default();
        if let Some(at) = trace.iter().position(|byte| *byte == b'\n') {
            out.extend_from_slice(trace.get(at + 1..).unwrap_or_default());
        }
    }

    /// Appends its bytes: where the trace begins, in 32 bits, little-endian, then the lines.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // The lines are limited to some kilobytes.
        let trace_at = u32::try_from(self.trace_at).unwrap_or(u32::MAX);
        out.extend_from_slice(&trace_at.to_le_bytes());
        out.extend_from_slice(&self.lines);
    }

    /// Reads what [`Self::encode`] has written. `None` if it would not have been passed on like this.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (trace_at, lines) = bytes.split_first_chunk()?;
        let trace_at = usize::try_from(u32::from_le_bytes(*trace_at)).ok()?;
        let (deciding, trace) = lines.split_at_checked(trace_at)?;
        let is_well = !lines.is_empty()
            && deciding.len() <= PASSED_BYTES_MAX
            && fields_of(deciding)?.iter().all(|(name, value)| is_token(name) && is_plain(value))
            && is_trace(&fields_of(trace)?);
        is_well.then(|| Self { lines: lines.into(), trace_at })
    }

    /// Whether a header of this name may be passed on.
    pub(super) fn concerns(name: &str, names: &[Box<str>]) -> bool {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        is(TRACEPARENT) || is(TRACESTATE) || names.iter().any(|known| is(known))
    }

    /// Collects the headers to pass on: those of `names`, in that order, then the trace. `None` if there are none.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] if a value cannot be passed on, or if they are too long. Dropping one would change what
    /// the upstream does.
    pub(super) fn gather(
        headers: &[httparse::Header<'_>],
        names: &[Box<str>],
    ) -> Result<Option<Arc<Self>>, Refusal> {
        let mut lines = Vec::new();
        for name in names {
            for value in values(headers, name) {
                if !is_plain(value) {
                    return Err(Refusal::BadRequest("a header that is to be passed on is not plain ASCII"));
                }
                line(name, value, &mut lines);
            }
        }
        if lines.len() > PASSED_BYTES_MAX {
            return Err(Refusal::BadRequest("the headers that are to be passed on are too long together"));
        }
        let trace_at = lines.len();
        trace(headers, &mut lines);
        Ok((!lines.is_empty()).then(|| Arc::new(Self { lines, trace_at })))
    }
}

impl std::fmt::Debug for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Passed({}; {})", self.lines.escape_ascii(), self.trace_at)
    }
}

/// Appends the trace, if there is one. A malformed trace counts as absent (W3C Trace Context section 3.2.4), and its
/// state means nothing without it.
fn trace(headers: &[httparse::Header<'_>], lines: &mut Vec<u8>) {
    let mut parents = values(headers, TRACEPARENT);
    let (Some(parent), None) = (parents.next(), parents.next()) else { return };
    if !is_traceparent(parent) {
        return;
    }
    line(TRACEPARENT, parent, lines);
    // Several fields form one list, joined by commas (section 3.3.1).
    let bytes: usize = values(headers, TRACESTATE).map(|value| value.len() + 1).sum();
    if bytes <= TRACESTATE_BYTES_MAX + 1 && values(headers, TRACESTATE).all(is_plain) {
        values(headers, TRACESTATE).for_each(|value| line(TRACESTATE, value, lines));
    }
}

fn values<'a>(headers: &'a [httparse::Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

fn line(name: &str, value: &[u8], lines: &mut Vec<u8>) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        lines.extend_from_slice(part);
    }
}

/// The names and values of lines; `None` if these are not lines as [`line`] writes them.
fn fields_of(mut lines: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut fields = Vec::new();
    while !lines.is_empty() {
        let end = lines.iter().position(|&byte| byte == b'\n')?;
        let (line, rest) = lines.split_at_checked(end + 1)?;
        let line = line.strip_suffix(b"\r\n")?;
        let (name, value) = line.split_at_checked(line.iter().position(|&byte| byte == b':')?)?;
        fields.push((name, value.strip_prefix(b": ")?));
        lines = rest;
    }
    Some(fields)
}

/// Whether these are the lines that [`trace`] writes.
fn is_trace(fields: &[(&[u8], &[u8])]) -> bool {
    let Some(((name, parent), states)) = fields.split_first() else { return true };
    let bytes: usize = states.iter().map(|(_, value)| value.len() + 1).sum();
    *name == TRACEPARENT.as_bytes()
        && is_traceparent(parent)
        && bytes <= TRACESTATE_BYTES_MAX + 1
        && states.iter().all(|(name, value)| *name == TRACESTATE.as_bytes() && is_plain(value))
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_plain(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t')
}

/// Whether `value` is a version, trace, parent and flags in lower-case hexadecimal (W3C Trace Context section 3.2),
/// none of the first three with a forbidden value. More may follow only in an unknown version.
fn is_traceparent(value: &[u8]) -> bool {
    let Some((known, more)) = value.split_at_checked(TRACEPARENT_BYTES) else { return false };
    let is_hex = |field: &[u8]| field.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut fields = known.split(|&byte| byte == b'-');
    let mut field = |length: usize| fields.next().filter(|field| field.len() == length && is_hex(field));
    let (Some(version), Some(trace), Some(parent), Some(_)) = (field(2), field(32), field(16), field(2))
    else {
        return false;
    };
    let is_zero = |id: &[u8]| id.iter().all(|&byte| byte == b'0');
    let more_is_well = more.is_empty() || (version != b"00" && more.first() == Some(&b'-') && is_plain(more));
    version != b"ff"
        && !is_zero(trace)
        && !is_zero(parent)
        && more_is_well
        && more.len() <= TRACESTATE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn gather(headers: &[(&str, &str)], names: &[&str]) -> Result<Option<Arc<Passed>>, Refusal> {
        let headers: Vec<_> =
            headers.iter().map(|&(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        let names: Vec<Box<str>> = names.iter().map(|&name| name.into()).collect();
        Passed::gather(&headers, &names)
    }

    fn lines(headers: &[(&str, &str)], names: &[&str]) -> String {
        let passed = gather(headers, names).unwrap();
        passed.map_or(String::new(), |passed| String::from_utf8(passed.lines().to_vec()).unwrap())
    }

    #[test]
    fn named_headers_are_passed_on_unchanged_under_their_configured_names() {
        let headers = [("x-b", "2"), ("Host", "h"), ("X-A", "one, two"), ("X-B", "")];
        assert_eq!(lines(&headers, &["X-A", "X-B"]), "X-A: one, two\r\nX-B: 2\r\nX-B: \r\n");
        assert_eq!(lines(&headers, &[]), "");
        assert_eq!(gather(&headers, &["X-C"]).unwrap(), None);
    }

    #[test]
    fn a_value_that_cannot_be_passed_on_is_refused() {
        for value in ["a\rb", "a\nb", "\0", "\u{7f}", "ü"] {
            assert!(matches!(gather(&[("X-A", value)], &["X-A"]), Err(Refusal::BadRequest(_))), "{value:?}");
            assert_eq!(gather(&[("X-B", value)], &["X-A"]), Ok(None));
        }
        let fits = "a".repeat(PASSED_BYTES_MAX - "X-A: \r\n".len());
        assert!(gather(&[("X-A", &fits)], &["X-A"]).is_ok());
        assert!(gather(&[("X-A", &format!("{fits}a"))], &["X-A"]).is_err());
    }

    #[test]
    fn a_trace_is_passed_on_and_does_not_prevent_merging() {
        let headers = [("tracestate", "a=1"), ("Traceparent", PARENT), ("TraceState", "b=2"), ("X-A", "1")];
        let passed = gather(&headers, &["X-A"]).unwrap().unwrap();
        let expected = format!("X-A: 1\r\ntraceparent: {PARENT}\r\ntracestate: a=1\r\ntracestate: b=2\r\n");
        assert_eq!(String::from_utf8_lossy(passed.lines()), expected);
        assert_eq!(Passed::deciding(Some(&passed)), b"X-A: 1\r\n");
        let alone = gather(&headers, &[]).unwrap().unwrap();
        assert_eq!(Passed::deciding(Some(&alone)), Passed::deciding(None));
    }

    #[test]
    fn a_trace_is_read_and_continued_by_a_span_of_our_own() {
        let headers = [("tracestate", "a=1"), ("traceparent", PARENT), ("X-A", "1")];
        let passed = gather(&headers, &["X-A"]).unwrap().unwrap();
        let (trace, span) = (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331);
        assert_eq!(passed.trace_parent(), Some(TraceParent { trace, span, is_sampled: true }));
        let written = |passed: Option<&Passed>| {
            let mut out = Vec::new();
            Passed::write_traced(passed, trace, 7, &mut out);
            String::from_utf8(out).unwrap()
        };
        let own = PARENT.replace("b7ad6b7169203331", "0000000000000007");
        let expected = format!("X-A: 1\r\ntraceparent: {own}\r\ntracestate: a=1\r\n");
        assert_eq!(written(Some(&passed)), expected);
        let without = gather(&[("X-A", "1")], &["X-A"]).unwrap().unwrap();
        assert_eq!(without.trace_parent(), None);
        assert_eq!(written(Some(&without)), format!("X-A: 1\r\ntraceparent: {own}\r\n"));
        assert_eq!(written(None), format!("traceparent: {own}\r\n"));
        let future = format!("{}-more", PARENT.replacen("00", "01", 1).replace("-01", "-fe"));
        let unsampled = gather(&[("traceparent", &future)], &[]).unwrap().unwrap();
        assert_eq!(unsampled.trace_parent().map(|parent| parent.is_sampled), Some(false));
    }

    #[test]
    fn a_malformed_trace_is_dropped_without_an_error() {
        let other_version = PARENT.replacen("00", "01", 1);
        for wrong in [
            "",
            "00",
            &PARENT[1..],
            &format!("{PARENT}-more"),
            &format!("{PARENT}0"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &format!("{other_version}more"),
            &PARENT.replace('a', "\r"),
        ] {
            assert_eq!(gather(&[("traceparent", wrong), ("tracestate", "a=1")], &[]), Ok(None), "{wrong:?}");
        }
        assert_eq!(gather(&[("traceparent", PARENT), ("traceparent", PARENT)], &[]), Ok(None));
        assert_eq!(gather(&[("tracestate", "a=1")], &[]), Ok(None));
        let future = format!("{other_version}-more");
        assert_eq!(lines(&[("traceparent", &future)], &[]), format!("traceparent: {future}\r\n"));
        // A state that is too long, or that has forbidden bytes, is dropped alone.
        for state in ["a".repeat(TRACESTATE_BYTES_MAX + 1), "a=\u{7f}".to_owned()] {
            let only = lines(&[("traceparent", PARENT), ("tracestate", &state)], &[]);
            assert_eq!(only, format!("traceparent: {PARENT}\r\n"));
        }
        let most = "a".repeat(TRACESTATE_BYTES_MAX);
        assert!(lines(&[("traceparent", PARENT), ("tracestate", &most)], &[]).contains(&most));
    }

    #[test]
    fn what_is_encoded_decodes_and_nothing_else_does() {
        let headers = [("tracestate", "a=1"), ("traceparent", PARENT), ("X-A", "1"), ("TraceState", "")];
        for names in [&["X-A"][..], &[]] {
            let passed = gather(&headers, names).unwrap().unwrap();
            let mut bytes = Vec::new();
            passed.encode(&mut bytes);
            assert_eq!(Passed::decode(&bytes).as_ref(), Some(&*passed));
            for cut in 0..bytes.len() {
                // Cut between two lines, it is another one that could have been passed on.
                let may = bytes[..cut].ends_with(b"\n");
                assert_eq!(Passed::decode(&bytes[..cut]).is_some(), may, "{cut}");
            }
        }
        let decode = |trace_at: u32, lines: &str| {
            Passed::decode(&[&trace_at.to_le_bytes()[..], lines.as_bytes()].concat())
        };
        let parent = format!("traceparent: {PARENT}\r\n");
        assert!(decode(6, "X: 1\r\n").is_some());
        assert!(decode(0, &parent).is_some());
        let long = format!("X: {}\r\n", "a".repeat(PASSED_BYTES_MAX));
        let state = format!("{parent}tracestate: {}\r\n", "a".repeat(TRACESTATE_BYTES_MAX + 1));
        for (trace_at, wrong) in [
            (0, ""),
            (5, "X: 1\r\n"),
            (7, "X: 1\r\n"),
            (u32::MAX, "X: 1\r\n"),
            (0, "X: 1\r\n"),
            (5, "X: 1\n"),
            (5, "X:1\r\n"),
            (6, " : 1\r\n"),
            (5, ": 1\r\n"),
            (7, "X: \u{7f}1\r\n"),
            (7, "X: \r1\r\n"),
            (u32::try_from(long.len()).unwrap(), &long),
            (0, &state),
            (0, &format!("{parent}{parent}")),
            (0, "traceparent: 00\r\n"),
            (0, "tracestate: a=1\r\n"),
        ] {
            assert_eq!(decode(trace_at, wrong), None, "{wrong:?}");
        }
    }
}
