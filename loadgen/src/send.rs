//! Sends a fleet's bodies and tells what came of it.
//!
//! Constraints that shaped it:
//! - What is measured is the server: so a request is one buffer that exists before the clock starts, one write, and
//!   an answer read by a parser that keeps nothing.
//! - A sender has one request in flight, as a shard of Prometheus has.
//! - At a fixed rate a request's latency counts from when it *should* have left. Were it counted from when it did
//!   leave, a server that stalls would stop the clock that measures it (coordinated omission).

mod pace;
mod sender;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::account::Tally;
use crate::client::Url;
use crate::fleet::{Body, Fleet};
use crate::ledger::{BodyCounts, Ledger, ledger};
use crate::process::{Memory, Process};

use sender::Sender;

/// How often the caller hears how it goes.
const TICK: Duration = Duration::from_millis(200);

/// How often memory is read.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// What to send where, and for how long.
#[derive(Clone, Debug)]
pub struct SendConfig {
    /// The server.
    pub url: Url,
    /// Headers besides those of remote write.
    pub headers: Vec<(String, String)>,
    /// Stops after this time; None for no such bound.
    pub duration: Option<Duration>,
    /// Stops after so many requests of all senders together; None for no such bound.
    pub requests: Option<u64>,
    /// Requests per second of all senders together; None to send the next as soon as the last is answered.
    pub rate: Option<f64>,
    /// How long a sender waits for an answer.
    pub timeout: Duration,
    /// The server's process, to tell what the requests cost it.
    pub server: Option<Process>,
}

/// Counts that grow while senders send.
#[derive(Debug, Default)]
pub struct Progress {
    /// Requests that senders have claimed, and one for each sender that found none left.
    claimed: AtomicU64,
    /// Requests that are over, whatever came of them.
    pub answered: AtomicU64,
    /// Those answered with 2xx.
    pub acknowledged: AtomicU64,
    /// Series in them.
    pub series: AtomicU64,
    /// Set it, and senders stop after the request that they are at.
    pub stop: AtomicBool,
}

/// What came of it all.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Requests that are over, whatever came of them.
    pub requests: u64,
    /// How often each status came; 0 stands for no answer.
    pub statuses: BTreeMap<u16, u64>,
    /// For each status that is no 2xx, the first text that came with it.
    pub complaints: BTreeMap<u16, String>,
    /// Bytes of all bodies, as sent.
    pub bytes: u64,
    /// How many tenants each acknowledged request held, summed: what a server without merging would send on.
    pub parts: u64,
    /// Latency of answered requests in microseconds.
    pub latency: Histogram<u64>,
    /// What each tenant's data came to.
    pub ledger: Ledger,
    /// What it cost the server, if its process is known and still there.
    pub server: Option<ServerCost>,
}

/// What the requests cost the server.
#[derive(Clone, Debug)]
pub struct ServerCost {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// Resident memory, second by second.
    pub memory: Memory,
}

impl Outcome {
    /// Requests that were answered with 2xx.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.statuses.iter().filter(|(status, _)| (200..300).contains(*status)).map(|(_, count)| count).sum()
    }

    /// All others.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.requests - self.acknowledged()
    }

    /// Sums over all tenants of what was acknowledged.
    #[must_use]
    pub fn acknowledged_tally(&self) -> Tally {
        let mut total = Tally::default();
        for entry in self.ledger.values() {
            total += entry.acknowledged;
        }
        total
    }

    /// The latency that `percent` of the answered requests kept within.
    #[must_use]
    pub fn latency_at(&self, percent: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(percent / 100.0))
    }

    /// The server's CPU time per request, in milliseconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^53")]
    pub fn cpu_ms_per_request(&self) -> Option<f64> {
        let cost = self.server.as_ref().filter(|_| self.requests > 0)?;
        Some(cost.cpu.as_secs_f64() * 1e3 / self.requests as f64)
    }
}

/// A histogram of microseconds, to ten minutes, with three digits.
pub(crate) fn latency_histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 600_000_000, 3).map_err(io::Error::other)
}

/// Sends until a bound of `config` is reached or [`Progress::stop`] is set. `tick` is called five times a second.
///
/// # Errors
/// When there are no threads to be had. That requests fail is no error here: the [`Outcome`] tells of it.
pub fn send(
    fleet: &Fleet,
    config: &SendConfig,
    progress: &Progress,
    mut tick: impl FnMut(&Progress),
) -> io::Result<Outcome> {
    let count = fleet.senders.len();
    let (connected, all_connected) = mpsc::channel::<()>();
    let (over, all_over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let mut senders = Vec::with_capacity(count);
        let mut gates = Vec::with_capacity(count);
        for (index, bodies) in fleet.senders.iter().enumerate() {
            let mut sender = Sender::new(config, bodies, index, count)?;
            let (gate, opened) = mpsc::channel::<Instant>();
            let (connected, over) = (connected.clone(), over.clone());
            let run = move || {
                sender.connect();
                drop(connected);
                // No start comes if there was no thread for another sender.
                if let Ok(started) = opened.recv() {
                    sender.run(progress, started);
                }
                drop(over);
                sender.tally
            };
            senders.push(thread::Builder::new().name(format!("sender-{index}")).spawn_scoped(scope, run)?);
            gates.push(gate);
        }
        drop((connected, over));
        // Nobody sends on it: it ends when the last sender has connected.
        let _ = all_connected.recv();
        let meter = Meter::start(config.server);
        let started = Instant::now();
        for gate in gates {
            let _ = gate.send(started);
        }
        let meter = watch(&all_over, meter, || tick(progress));
        let elapsed = started.elapsed();
        let server = meter.and_then(Meter::stop);
        let mut total = sender::Tally::new(0)?;
        let mut counts = Vec::with_capacity(count);
        for sender in senders {
            let tally = sender.join().map_err(|_| io::Error::other("a sender panicked"))?;
            counts.push(total.absorb(tally)?);
        }
        Ok(Outcome {
            elapsed,
            requests: total.statuses.values().sum(),
            statuses: total.statuses,
            complaints: total.complaints,
            bytes: total.bytes,
            parts: parts(fleet, &counts),
            latency: total.latency,
            ledger: ledger(fleet, &counts),
            server,
        })
    })
}

fn parts(fleet: &Fleet, counts: &[BodyCounts]) -> u64 {
    let of_sender = |(bodies, counts): (&Vec<Body>, &BodyCounts)| -> u64 {
        bodies.iter().zip(&counts.acknowledged).map(|(body, &times)| body.shares.len() as u64 * times).sum()
    };
    fleet.senders.iter().zip(counts).map(of_sender).sum()
}

/// Ticks until all senders are over.
fn watch(all_over: &mpsc::Receiver<()>, mut meter: Option<Meter>, mut tick: impl FnMut()) -> Option<Meter> {
    while matches!(all_over.recv_timeout(TICK), Err(RecvTimeoutError::Timeout)) {
        if let Some(meter) = &mut meter {
            meter.read_memory();
        }
        tick();
    }
    meter
}

/// Reads what the server uses.
struct Meter {
    process: Process,
    cpu_at_start: Duration,
    memory: Memory,
    memory_due: Instant,
}

impl Meter {
    fn start(process: Option<Process>) -> Option<Self> {
        let process = process?;
        let cpu_at_start = process.cpu_time().ok()?;
        Some(Self { process, cpu_at_start, memory: Memory::default(), memory_due: Instant::now() })
    }

    fn read_memory(&mut self) {
        if Instant::now() < self.memory_due {
            return;
        }
        self.memory_due += MEMORY_INTERVAL;
        if let Ok(resident_bytes) = self.process.resident_bytes() {
            self.memory.record(resident_bytes);
        }
    }

    fn stop(mut self) -> Option<ServerCost> {
        let cpu = self.process.cpu_time().ok()?.saturating_sub(self.cpu_at_start);
        self.memory_due = Instant::now();
        self.read_memory();
        Some(ServerCost { cpu, memory: self.memory })
    }
}

/// Whether senders are to stop.
fn stopped(progress: &Progress) -> bool {
    progress.stop.load(Ordering::Relaxed)
}
