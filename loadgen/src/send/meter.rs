//! What the server uses while senders send.

use std::time::{Duration, Instant};

use super::outcome::ServerCost;
use crate::process::{Memory, Process};

/// How often memory is read.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// Reads what the server uses.
pub(super) struct Meter {
    process: Process,
    cpu_at_start: Duration,
    memory: Memory,
    memory_due: Instant,
}

impl Meter {
    pub(super) fn start(process: Option<Process>) -> Option<Self> {
        let process = process?;
        let cpu_at_start = process.cpu_time().ok()?;
        Some(Self { process, cpu_at_start, memory: Memory::default(), memory_due: Instant::now() })
    }

    pub(super) fn read_memory(&mut self) {
        if Instant::now() < self.memory_due {
            return;
        }
        self.memory_due += MEMORY_INTERVAL;
        if let Ok(resident_bytes) = self.process.resident_bytes() {
            self.memory.record(resident_bytes);
        }
    }

    pub(super) fn stop(mut self) -> Option<ServerCost> {
        let cpu = self.process.cpu_time().ok()?.saturating_sub(self.cpu_at_start);
        self.memory_due = Instant::now();
        self.read_memory();
        Some(ServerCost { cpu, memory: self.memory })
    }
}
