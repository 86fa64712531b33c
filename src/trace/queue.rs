//! What goes through the queue between the cores and the exporter, and what became of it.
#![forbid(unsafe_code)]

use std::sync::atomic::AtomicU64;

use crossbeam_channel::Sender;

use super::otlp::Span;

/// What is in the queue.
#[derive(Debug)]
pub(super) enum Item {
    /// A span to export.
    Span(Box<Span>),
    /// Asks for a message once all spans before it are exported or dropped.
    Flush(Sender<()>),
}

/// What became of spans.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) exported: AtomicU64,
    pub(super) dropped: AtomicU64,
}
