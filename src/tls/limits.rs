//! The bounds of TLS that are not settings. Each has its unit in its name and its reason in its comment.

#![forbid(unsafe_code)]

/// Plaintext of a full record (RFC 8446 section 5.1: 2^14).
pub const RECORD_BYTES: usize = 16_384;

/// What a record adds to its plaintext at most: header 5, explicit nonce 8 (TLS 1.2), content type 1 (TLS 1.3), tag 16.
pub const RECORD_OVERHEAD_BYTES_MAX: usize = 30;

/// A record on the wire at most: TLS 1.2 lets a ciphertext be 2,048 bytes longer than the plaintext (RFC 5246 section
/// 6.2.3), TLS 1.3 only 256 (RFC 8446 section 5.2); and the header.
pub const RECORD_WIRE_BYTES_MAX: usize = RECORD_BYTES + 2_048 + 5;

/// Plaintext that one call encrypts or decrypts: about 100 µs of a core's time. Full records, so that a request's end
/// is its only short one.
pub const STEP_BYTES_MAX: usize = 16 * RECORD_BYTES;

/// Room for one read while the handshake lasts. A ClientHello has 250 to 1,800 bytes, and thousands of connections may
/// be in a handshake at once. A server's certificates take two reads.
pub const HANDSHAKE_READ_BYTES: usize = 4_096;

/// Room for one read after the handshake: a request of usual size in two reads.
pub const READ_BYTES: usize = 65_536;

/// Ciphertext that a session holds: one read on top of what is left of the read before. That is a part of a record,
/// or a handshake message in pieces.
pub const INCOMING_BYTES_MAX: usize = 131_072;

/// Bytes that a peer may send until its handshake is complete. Certificate chains have 2 to 10 KiB, and a long list of
/// accepted authorities some 20 KiB. rustls takes as much for a single message.
pub const HANDSHAKE_BYTES_MAX: usize = 65_536;

/// TLS 1.2 sessions that a server remembers for clients without tickets, at about 200 bytes and two names each.
pub const SERVER_SESSIONS_MAX: usize = 4_096;

/// Server names for which a client remembers sessions. A target has one.
pub const CLIENT_SESSIONS_MAX: usize = 32;

/// The largest certificate, key or bundle file. Debian's bundle of all public roots has 220 KB.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
