//! HTTP/1.1 on byte slices: requests that we accept, answers that we write, and responses of upstreams.
//!
//! Design constraints:
//!
//! * A message has only one reading. A proxy in front and an upstream behind must see the same message boundaries as we
//!   do, or a byte of one tenant ends up in another's request (request smuggling). So whatever RFC 9112 lets a
//!   recipient repair (bare LF, repeated lengths, list-valued codings) is refused, in both directions.
//! * No I/O and no clock. The input is a slice; the result is a value with ranges into it. Incomplete input is
//!   `Ok(None)`, never an error. The result does not depend on how the bytes were cut into reads.
//! * No allocation. A head lives on the stack, and a chunked body is decoded into the caller's buffer. Only headers
//!   that are passed on to the upstream are copied, if a request has any.
//!
//! [`head`] parses a request's head, and [`passed`] keeps the headers for the upstream. [`body`] decodes a chunked
//! body, also an upstream's. [`response`] parses an upstream's head, and [`reply`] writes our answers. [`refusal`]
//! lists everything that can be wrong with a request before its content is parsed. [`crate::verdict`] gives each
//! refusal its status, like every other status.
//!
//! httparse finds the tokens. It tolerates a bare LF as line end and does not interpret fields. The helpers in
//! `syntax`, shared by requests and responses, do both.

#![forbid(unsafe_code)]

pub mod body;
pub mod head;
pub mod passed;
pub mod refusal;
pub mod reply;
pub mod response;
pub mod sender;
mod syntax;

pub use body::ChunkDecoder;
pub use head::{Encoding, Framing, Media, Method, RequestHead};
pub use passed::Passed;
pub use refusal::Refusal;
pub use response::{BadResponse, ResponseFraming, ResponseHead};
