//! The I/O tools of a core: its driver, and the streams, deadlines, buffers and tasks that run on it. They know nothing
//! of requests. [`core`](crate::core) builds a core from them.

pub mod buffers;
pub mod deadline;
pub mod driver;
pub mod stream;
pub mod tasks;
pub mod verdicts;
