//! Traces of sampled requests, exported as OTLP.
//!
//! Design constraints:
//! - A request that is not sampled costs one branch. A sampled one allocates for its spans, never for its series.
//! - Cores only put spans that have ended into a bounded queue. If it is full, a span is dropped and counted. A thread
//!   of its own encodes and posts them (module `export`), so a receiver that hangs delays nothing else.
//! - OTLP over HTTP needs one message and one POST. The crates of OpenTelemetry bring an async runtime's worth of
//!   dependencies for it, so the message is written here (module `otlp`).

mod export;
mod otlp;
mod queue;

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

pub use self::export::Endpoint;
use self::export::Exporter;
pub use self::otlp::{Kind, Span, Value};
use self::queue::{Counts, Item};
use crate::limits::TRACE_QUEUE_SPANS_MAX;

/// What a part carries along of its request's trace.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The trace.
    pub trace: u128,
    /// The span of the request.
    pub request: u64,
    /// The span of the upstream request that the part is in; 0 before there is one.
    pub upstream: Cell<u64>,
    /// Since when the part waits to be sent.
    pub waits_since: Cell<Instant>,
}

/// The sending end of the queue of spans.
#[derive(Debug)]
pub struct Tracer {
    sender: Sender<Item>,
    counts: Arc<Counts>,
}

impl Tracer {
    /// Starts the thread that exports to `endpoint`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(endpoint: Endpoint) -> io::Result<Self> {
        let (sender, items) = crossbeam_channel::bounded(TRACE_QUEUE_SPANS_MAX);
        let counts = Arc::<Counts>::default();
        let exporter = Exporter::new(endpoint, Arc::clone(&counts));
        std::thread::Builder::new().name("traces".into()).spawn(move || exporter.export_all_of(&items))?;
        Ok(Self { sender, counts })
    }

    /// Hands over a span that has ended, or drops it if the queue is full. Never waits.
    pub fn push(&self, span: Span) {
        if self.sender.try_send(Item::Span(Box::new(span))).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of spans that the receiver has accepted.
    pub fn exported(&self) -> u64 {
        self.counts.exported.load(Ordering::Relaxed)
    }

    /// The number of spans that were lost.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the spans so far are exported, for at most `within`.
    pub fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        let (done, flushed) = crossbeam_channel::bounded(1);
        if self.sender.send_deadline(Item::Flush(done), until).is_ok() {
            let _ = flushed.recv_deadline(until);
        }
    }
}

/// A new ID of a span, which is never 0.
pub fn span_id() -> u64 {
    RandomState::new().hash_one(0_u8).max(1)
}

/// A new ID of a trace, which is never 0.
pub fn trace_id() -> u128 {
    let random = RandomState::new();
    (u128::from(random.hash_one(0_u8)) << 64 | u128::from(random.hash_one(1_u8))).max(1)
}
