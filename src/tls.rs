//! TLS without sockets: sessions as state machines, and their configurations.
//!
//! Design constraints:
//!
//! * A core must not block, and its buffers belong to the ring while an operation is in flight. So nothing here reads
//!   or writes: a [`Session`](session::Session) takes bytes that came, gives plaintext, and appends the bytes that
//!   have to be sent to an [`Outgoing`](outgoing::Outgoing). One stream type drives it, on io_uring as on epoll, and
//!   tests and the fuzzer drive it without any.
//! * Encryption takes CPU time from the other connections of a core. Each call therefore does a bounded amount of work:
//!   [`TLS_STEP_BYTES_MAX`](crate::limits::TLS_STEP_BYTES_MAX) of plaintext at most.
//! * A peer decides how much it sends. All that a session holds has a bound in [`limits`](crate::limits).
//! * Files are read and checked on a loader's thread, because a read from a dead mount may never return. All mistakes
//!   are reported at once. Only [`files`] reads; everything else gets bytes and a time.
//!
//! | module | what it is |
//! |---|---|
//! | [`session`] | one connection's state, server or client, over rustls |
//! | [`outgoing`], `incoming` | the two buffers of ciphertext |
//! | `sealing` | slices into full records |
//! | [`error`] | why a session ended |
//! | [`server`], [`sni`], [`client`] | configurations, shared by all cores |
//! | [`names`] | versions, cipher suites and curves by the names that Go and Prometheus use |
//! | [`material`], [`identity`] | certificates and keys: their checks, and the names in them |
//! | [`mistake`] | what can be wrong with them |
//! | [`files`] | the only I/O: reads a file, and the system's roots |
//!
//! # Why rustls' unbuffered API
//!
//! rustls 0.23 has two. Both decrypt in place, copy each record's plaintext into a `Vec`, and encrypt each record in a
//! `Vec` of its own. What they add differs:
//!
//! * The buffered one reads in steps of 4 KiB into a buffer of its own, and moves what is left to the front after each
//!   record. The unbuffered one decrypts in the very buffer that the ring filled.
//! * The buffered one queues encrypted records and copies them out afterwards; the unbuffered one writes them to the
//!   caller's buffer, which has to be initialised: `Outgoing` keeps its memory so that this happens once. It takes one
//!   contiguous slice, so only a record that spans slices is put together first, 16 KiB at a time.
//! * Only the unbuffered one can hand its keys to the kernel (kTLS), should that ever be available.

pub mod client;
pub mod error;
pub mod files;
pub mod identity;
mod incoming;
pub mod material;
pub mod mistake;
pub mod names;
pub mod outgoing;
mod sealing;
pub mod server;
pub mod session;
pub mod sni;
mod verifier;
