//! State that all cores share. Its counters and flags are atomics that guard no other memory. The metric families are
//! behind a lock, which the hot path rarely takes.

pub mod budget;
pub mod connections;
pub mod load;
pub mod pace;
pub mod permits;
pub mod receipt;
pub mod slow;
pub mod taps;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use self::budget::Budget;
use self::connections::Connections;
use self::load::Loads;
use self::receipt::ReceiptKey;
use self::slow::SlowTotals;
use self::taps::Taps;
use crate::split::Families;
use crate::trace::Tracer;

/// The state that all cores share. One per process.
#[derive(Debug)]
pub struct Shared {
    /// Budget of bytes in flight.
    pub bytes: Arc<Budget>,
    /// Budget of push requests that were read and have no answer yet.
    pub requests: Arc<Budget>,
    /// Inbound connections per core.
    pub connections: Arc<Connections>,
    /// What the parts for each upstream hold, if there are several.
    pub loads: Arc<Loads>,
    /// Parts and bytes that slow tenants hold.
    pub slow: SlowTotals,
    /// The key of the receipts' hash.
    pub receipt_key: ReceiptKey,
    /// Tenants by metric family, for routing metadata.
    pub families: Families,
    /// Open taps, through which operators watch what happens to series.
    pub taps: Arc<Taps>,
    /// Whether the log has warned that the translation from Remote Write 2.0 to 1.0 loses data.
    pub warned_of_lost_data: AtomicBool,
    shutting_down: AtomicBool,
    tracer: OnceLock<Tracer>,
}

impl Shared {
    /// Creates the state for `cores` cores. `bytes_max`, `requests_max` and `connections_max` limit the bytes and push
    /// requests in flight and the inbound connections, each for the whole process.
    pub fn new(cores: usize, bytes_max: usize, requests_max: usize, connections_max: usize) -> Arc<Self> {
        Self::with_upstreams(cores, bytes_max, requests_max, connections_max, 0)
    }

    /// As [`new`](Self::new), with this number of named upstreams.
    pub fn with_upstreams(
        cores: usize,
        bytes_max: usize,
        requests_max: usize,
        connections_max: usize,
        named: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            loads: Loads::new(named),
            bytes: Budget::new(bytes_max),
            requests: Budget::new(requests_max),
            connections: Connections::new(cores, connections_max),
            slow: SlowTotals::default(),
            receipt_key: ReceiptKey::random(),
            families: Families::default(),
            taps: Arc::default(),
            warned_of_lost_data: AtomicBool::new(false),
            shutting_down: AtomicBool::new(false),
            tracer: OnceLock::new(),
        })
    }

    /// What takes spans; `None` if nothing is traced.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.get()
    }

    /// Has spans go to `tracer` from now on. Only the first call has an effect.
    pub fn trace_to(&self, tracer: Tracer) {
        let _ = self.tracer.set(tracer);
    }

    /// Marks the server as shutting down: from now on `/alive` answers 503.
    pub fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Whether the server is shutting down.
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }

    /// Whether the requests or bytes in flight are near their limit, so that the server will soon refuse requests.
    pub fn is_crowded(&self) -> bool {
        self.requests.is_nearly_full() || self.bytes.is_nearly_full()
    }
}
