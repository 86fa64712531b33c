//! The head of a request: where it ends, how its body is framed, and the few fields that matter to us.

#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use super::passed::Passed;
use super::refusal::Refusal;
use super::sender::Sender;
use super::syntax::{Delimiters, Persistence, has_bare_lf, lists_token, range_in};
use crate::limits::HEAD_FIELDS_MAX;

/// A parsed request head. Ranges refer to the parsed buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The path of the request target, without the query. Empty for an absolute-form target without a path.
    pub path: Range<usize>,
    /// The query, without the question mark; empty if there is none.
    pub query: Range<usize>,
    /// How the body is delimited.
    pub framing: Framing,
    /// The content type, by `Content-Type`.
    pub media: Media,
    /// The compression, by `Content-Encoding`.
    pub encoding: Encoding,
    /// Whether the client waits for `100 Continue` before it sends the body. False if there is no body, and in HTTP/1.0
    /// (RFC 9110 section 10.1.1).
    pub expect_continue: bool,
    /// Whether the client may send further requests on this connection.
    pub keep_alive: bool,
    /// The value of the tenant header, if present and not empty. All ASCII.
    pub source_tenant: Option<Range<usize>>,
    /// The value of `Authorization`, if present.
    pub authorization: Option<Range<usize>>,
    /// The kind of sender.
    pub sender: Sender,
    /// The headers to pass on to the upstream.
    pub passed: Option<Arc<Passed>>,
}

/// A request's method (RFC 9110 section 9), as far as it matters here. Methods are case-sensitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// Any other well-formed method.
    Other,
}

/// How a request's body is delimited (RFC 9112 section 6). A request never ends with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The content type (Remote Write 2.0 specification, "Protocol"; for Loki its HTTP API).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/x-protobuf` without a `proto` parameter, or no field at all.
    Protobuf,
    /// `application/x-protobuf;proto=prometheus.WriteRequest`.
    RemoteWriteV1,
    /// `application/x-protobuf;proto=io.prometheus.write.v2.Request`.
    RemoteWriteV2,
    /// `application/json`.
    Json,
    /// Anything else.
    Other,
}

/// The content encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// None given. The path determines what that means.
    Absent,
    /// `snappy`.
    Snappy,
    /// `zstd`.
    Zstd,
    /// `gzip`.
    Gzip,
    /// `identity`.
    Identity,
    /// Anything else.
    Other,
}

impl RequestHead {
    /// Parses the head at the start of `buf`, and returns its length in bytes, including empty lines before it.
    ///
    /// `None` means that the head is not complete yet; the caller limits its size. `tenant_header` is the name, in any
    /// case, of the field for [`RequestHead::source_tenant`]. Pass an empty name if its value is not needed, because a
    /// repeated tenant header is refused.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] or [`Refusal::TooManyFields`]. The bytes after a refused head cannot be trusted to be a
    /// request, so the connection has to be closed. An error found in an incomplete head remains an error when more of
    /// it arrives.
    pub fn parse(buf: &[u8], tenant_header: &str) -> Result<Option<(Self, usize)>, Refusal> {
        Self::parse_passing(buf, tenant_header, &[])
    }

    /// Like [`parse`](Self::parse). Headers of these names are passed on to the upstream, besides those of a trace.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse), and headers that cannot be passed on.
    pub fn parse_passing(
        buf: &[u8],
        tenant_header: &str,
        pass_headers: &[Box<str>],
    ) -> Result<Option<(Self, usize)>, Refusal> {
        let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let head_bytes = match request.parse_with_uninit_headers(buf, &mut fields).map_err(refusal)? {
            httparse::Status::Complete(head_bytes) => Some(head_bytes),
            httparse::Status::Partial => None,
        };
        if has_bare_lf(buf.get(..head_bytes.unwrap_or(buf.len())).unwrap_or(buf)) {
            return Err(Refusal::BadRequest("a line ends in a bare LF"));
        }
        let (Some(head_bytes), Some(method), Some(target), Some(minor_version)) =
            (head_bytes, request.method, request.path, request.version)
        else {
            return Ok(None);
        };

        let mut seen = Fields::default();
        for field in request.headers.iter() {
            seen.note(field.name, field.value, tenant_header).map_err(Refusal::BadRequest)?;
            seen.passes |= Passed::concerns(field.name, pass_headers);
        }
        seen.check(minor_version).map_err(Refusal::BadRequest)?;
        let (path, query) = path_and_query(target, method).map_err(Refusal::BadRequest)?;
        let framing = seen.framing();
        let head = Self {
            method: Method::of(method),
            path: range_in(buf, path.as_bytes()),
            query: range_in(buf, query.as_bytes()),
            framing,
            media: seen.media.unwrap_or(Media::Protobuf),
            encoding: seen.encoding.unwrap_or(Encoding::Absent),
            expect_continue: seen.expect_continue
                && minor_version > 0
                && !matches!(framing, Framing::None | Framing::Length(0)),
            keep_alive: seen.persistence.persists(minor_version),
            source_tenant: seen
                .source_tenant
                .filter(|value| !value.is_empty())
                .map(|value| range_in(buf, value)),
            authorization: seen.authorization.map(|value| range_in(buf, value)),
            sender: seen.sender,
            passed: match seen.passes {
                true => Passed::gather(request.headers, pass_headers)?,
                false => None,
            },
        };
        Ok(Some((head, head_bytes)))
    }
}

impl Method {
    fn of(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            _ => Self::Other,
        }
    }
}

impl Media {
    /// Reads the value of a Content-Type.
    pub fn of(content_type: &[u8]) -> Self {
        let end = content_type.iter().position(|&byte| byte == b';').unwrap_or(content_type.len());
        let (essence, mut rest) = content_type.split_at(end);
        let essence = essence.trim_ascii();
        let json = essence.eq_ignore_ascii_case(b"application/json");
        if !json && !essence.eq_ignore_ascii_case(b"application/x-protobuf") {
            return Self::Other;
        }
        let mut media = None;
        while !rest.is_empty() {
            let Some((name, value, after)) = parameter(rest) else { return Self::Other };
            rest = after;
            if json || !name.eq_ignore_ascii_case(b"proto") {
                continue;
            }
            let named = match value {
                b"prometheus.WriteRequest" => Self::RemoteWriteV1,
                b"io.prometheus.write.v2.Request" => Self::RemoteWriteV2,
                _ => Self::Other,
            };
            // Two contradicting parameters name no message.
            media = Some(if media.is_none_or(|earlier| earlier == named) { named } else { Self::Other });
        }
        media.unwrap_or(if json { Self::Json } else { Self::Protobuf })
    }
}

impl Encoding {
    /// Reads the value of a Content-Encoding.
    pub fn of(content_encoding: &[u8]) -> Self {
        let known = [
            ("", Self::Absent),
            ("snappy", Self::Snappy),
            // The Collector's name for frames of snappy, which are told from a block by their first bytes.
            ("x-snappy-framed", Self::Snappy),
            ("zstd", Self::Zstd),
            ("gzip", Self::Gzip),
            ("identity", Self::Identity),
        ];
        let found =
            known.into_iter().find(|(name, _)| content_encoding.eq_ignore_ascii_case(name.as_bytes()));
        found.map_or(Self::Other, |(_, encoding)| encoding)
    }
}

/// Splits the first of several media type parameters, each preceded by a semicolon (RFC 9110 section 5.6.6). Returns
/// its name, its value without quotes, and the rest. The name is empty if there is only a semicolon.
///
/// `None` if it is malformed. Escapes in a quoted value are kept: no known value has any.
fn parameter(parameters: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let text = parameters.strip_prefix(b";")?.trim_ascii_start();
    if text.is_empty() || text.starts_with(b";") {
        return Some((b"", b"", text));
    }
    let equals = text.iter().position(|&byte| byte == b'=' || byte == b';' || byte == b'"')?;
    let (name, text) = text.split_at(equals);
    let text = text.strip_prefix(b"=")?;
    let (value, rest) = match text.strip_prefix(b"\"") {
        Some(quoted) => {
            let mut escaped = false;
            let close = quoted.iter().position(|&byte| {
                let closes = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                closes
            })?;
            let (value, rest) = quoted.split_at(close);
            (value, rest.strip_prefix(b"\"")?)
        }
        None => {
            let end = text.iter().position(|&byte| byte == b';').unwrap_or(text.len());
            let (value, rest) = text.split_at(end);
            (value.trim_ascii_end(), rest)
        }
    };
    let rest = rest.trim_ascii_start();
    (rest.is_empty() || rest.starts_with(b";")).then_some((name, value, rest))
}

/// The fields of a request's head, collected one by one.
#[derive(Default)]
struct Fields<'a> {
    delimiters: Delimiters,
    persistence: Persistence,
    host: bool,
    media: Option<Media>,
    encoding: Option<Encoding>,
    expect_continue: bool,
    source_tenant: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
    sender: Sender,
    /// Whether there may be headers to pass on.
    passes: bool,
}

impl<'a> Fields<'a> {
    /// Records one field. The error says what is wrong with it.
    fn note(&mut self, name: &str, value: &'a [u8], tenant_header: &str) -> Result<(), &'static str> {
        self.delimiters.note(name, value)?;
        self.persistence.note(name, value);
        self.sender.note(name, value);
        if name.eq_ignore_ascii_case("host") {
            if self.host {
                return Err("repeated Host");
            }
            if !is_authority(value) {
                return Err("malformed Host");
            }
            self.host = true;
        } else if name.eq_ignore_ascii_case("content-type") {
            if self.media.is_some() {
                return Err("repeated Content-Type");
            }
            self.media = Some(if value.is_empty() { Media::Protobuf } else { Media::of(value) });
        } else if name.eq_ignore_ascii_case("content-encoding") {
            // A second field would mean a second layer of compression, which we do not support.
            let alone = self.encoding.is_none();
            self.encoding = Some(if alone { Encoding::of(value) } else { Encoding::Other });
        } else if name.eq_ignore_ascii_case("authorization") {
            // Whichever we checked, another server may have meant the other.
            if self.authorization.is_some() {
                return Err("repeated Authorization");
            }
            self.authorization = Some(value);
        } else if name.eq_ignore_ascii_case("expect") {
            self.expect_continue |= lists_token(value, "100-continue");
        }
        if name.eq_ignore_ascii_case(tenant_header) {
            // Whichever we took, a proxy in front may have meant the other.
            if self.source_tenant.is_some() {
                return Err("repeated tenant header");
            }
            if !value.is_ascii() {
                return Err("the tenant header is not ASCII");
            }
            self.source_tenant = Some(value);
        }
        Ok(())
    }

    /// Checks the fields for contradictions, after all are recorded.
    fn check(&self, minor_version: u8) -> Result<(), &'static str> {
        self.delimiters.check(minor_version)?;
        if minor_version > 0 && !self.host {
            return Err("no Host");
        }
        Ok(())
    }

    fn framing(&self) -> Framing {
        match self.delimiters.length {
            _ if self.delimiters.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::None,
        }
    }
}

/// Path and query of a request target (RFC 9112 section 3.2): origin-form, absolute-form (from senders with a proxy
/// setting) or, for OPTIONS, the asterisk. CONNECT asks for a tunnel, which we do not offer.
fn path_and_query<'a>(target: &'a str, method: &str) -> Result<(&'a str, &'a str), &'static str> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err("malformed request target");
    }
    if method == "CONNECT" {
        return Err("CONNECT is not for servers");
    }
    if target == "*" && method == "OPTIONS" {
        return Ok(target.split_at(target.len()));
    }
    let path_and_query = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://").ok_or("malformed request target")?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err("malformed request target");
        }
        let (authority, path_and_query) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() || !is_authority(authority.as_bytes()) {
            return Err("malformed request target");
        }
        path_and_query
    };
    let (path, query) = path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()));
    Ok((path, query.strip_prefix('?').unwrap_or(query)))
}

/// Whether `authority` consists of characters allowed in a host and a port (RFC 3986 section 3.2.2). User information
/// is excluded, as RFC 9110 section 4.2.4 demands. Empty is allowed: it means that the target has no authority.
fn is_authority(authority: &[u8]) -> bool {
    authority.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
}

/// Translates httparse's errors.
fn refusal(error: httparse::Error) -> Refusal {
    Refusal::BadRequest(match error {
        httparse::Error::TooManyHeaders => return Refusal::TooManyFields,
        httparse::Error::HeaderName => "malformed field name",
        httparse::Error::HeaderValue => "malformed field value",
        httparse::Error::NewLine => "malformed line end",
        httparse::Error::Version => "neither HTTP/1.0 nor HTTP/1.1",
        httparse::Error::Token | httparse::Error::Status => "malformed request line",
    })
}

#[cfg(test)]
mod tests;
