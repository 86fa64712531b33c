//! Reasons to refuse a request before its content is parsed.

#![forbid(unsafe_code)]

/// Why a request is answered without being forwarded. [`crate::verdict`] gives each reason its status.
///
/// The text of each is one line for the sender's log. All but [`Refusal::Overloaded`], [`Refusal::Draining`] and
/// [`Refusal::Timeout`] are the client's fault, and a retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are not one unambiguous HTTP/1.x request. The connection cannot be used further.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// The path is unknown.
    #[error("no such path")]
    NotFound,
    /// The path is known, and what it takes has no target.
    #[error("nothing is taken here: {key} is not set, and its default is this server itself")]
    NoTarget {
        /// The setting of the target.
        key: &'static str,
    },
    /// The path does not support this method.
    #[error("this path is for {allow}")]
    MethodNotAllowed {
        /// The value of the `Allow` field: the supported methods, separated by commas.
        allow: &'static str,
    },
    /// The client took longer than `timeout` to send this part of the request. A retry may succeed if the network is
    /// faster then.
    #[error("timed out while waiting for the request's {0}")]
    Timeout(&'static str),
    /// The body exceeds the limit, as announced or as received.
    #[error("the request's body is over the limit of {limit} bytes")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The head exceeds the limit.
    #[error("the request's head is over the limit of {limit} bytes")]
    HeadTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The head has more fields than [`crate::limits::HEAD_FIELDS_MAX`].
    #[error("the request's head has more than {} fields", crate::limits::HEAD_FIELDS_MAX)]
    TooManyFields,
    /// The path does not accept this content type.
    #[error("unsupported Content-Type: this path takes {taken}")]
    UnsupportedMedia {
        /// What it takes.
        taken: &'static str,
    },
    /// The path does not accept this compression.
    #[error("unsupported Content-Encoding: this path takes {taken}")]
    UnsupportedEncoding {
        /// What it takes.
        taken: &'static str,
    },
    /// The content is a Remote Write 2.0 request. By the specification the sender should fall back to 1.0; Prometheus 3
    /// does not.
    #[error("Remote Write 2.0 is not supported: send prometheus.WriteRequest (1.0)")]
    RemoteWriteV2,
    /// The request has no credentials that are accepted here. A retry helps only with others.
    #[error("unauthorized: {why}")]
    Unauthorized {
        /// Why they are not accepted.
        why: String,
        /// The `WWW-Authenticate` lines, each with its CRLF.
        challenge: Box<str>,
    },
    /// The request's credentials may write to no tenant at all.
    #[error("forbidden: {why}")]
    Forbidden {
        /// Which credentials, and why not.
        why: String,
    },
    /// A limit on work in progress is reached. A retry helps once other requests are done.
    #[error("overloaded: {why}")]
    Overloaded {
        /// The limit that was reached.
        why: &'static str,
    },
    /// The connection was opened under other demands of TLS than now hold. A retry helps: it opens a new one.
    #[error("the demands of TLS have changed since this connection was opened")]
    Renewed,
    /// The process is shutting down. A retry helps: it reaches another process, or the next one.
    #[error("shutting down")]
    Draining,
}
