//! What all cores share: a few counters and flags, none of which guards other memory.

pub mod budget;
pub mod connections;
pub mod pace;
pub mod permits;
pub mod receipt;
pub mod slow;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::budget::Budget;
use self::connections::Connections;
use self::receipt::ReceiptKey;
use self::slow::SlowTotals;
use crate::split::Families;

/// The shared state of all cores. One for the process.
#[derive(Debug)]
pub struct Shared {
    /// Bytes of requests in flight.
    pub bytes: Arc<Budget>,
    /// Push requests that have been read and not answered yet.
    pub requests: Arc<Budget>,
    /// Inbound connections of each core.
    pub connections: Arc<Connections>,
    /// How many bytes and requests the parts of slow tenants hold.
    pub slow: SlowTotals,
    /// What receipts are made with.
    pub receipt_key: ReceiptKey,
    /// Which tenants have which metric families: for metadata.
    pub families: Families,
    /// Whether the log has warned that a translation from Remote Write 2.0 to 1.0 loses data.
    pub warned_of_lost_data: AtomicBool,
    shutting_down: AtomicBool,
}

impl Shared {
    /// For `cores` cores, with the bounds on bytes, requests and inbound connections in flight.
    pub fn new(cores: usize, bytes_max: usize, requests_max: usize, connections_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: Budget::new(bytes_max),
            requests: Budget::new(requests_max),
            connections: Connections::new(cores, connections_max),
            slow: SlowTotals::default(),
            receipt_key: ReceiptKey::random(),
            families: Families::default(),
            warned_of_lost_data: AtomicBool::new(false),
            shutting_down: AtomicBool::new(false),
        })
    }

    /// From now on `/alive` answers 503.
    pub fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Whether the server is shutting down.
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }

    /// Whether requests or bytes in flight come near their bound, so that other requests will soon be refused.
    pub fn is_crowded(&self) -> bool {
        self.requests.is_nearly_full() || self.bytes.is_nearly_full()
    }
}
