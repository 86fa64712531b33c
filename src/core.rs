//! What a core is made of: its thread and ring, and what tasks on it do their I/O with.
//!
//! [`thread`] stands at the top: it starts a core and joins ingest and egress to the exchange. The others are its
//! tools, at the bottom: they know sockets, time and buffers, and nothing of requests.

pub mod buffers;
pub mod deadline;
pub mod driver;
pub mod stream;
pub mod tasks;
pub mod thread;
