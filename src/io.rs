//! A core's tools: its ring, and what tasks on it do their I/O with. They know sockets, time and buffers, and nothing
//! of requests. [`core`](crate::core) builds a core from them.

pub mod buffers;
pub mod deadline;
pub mod driver;
pub mod stream;
pub mod tasks;
