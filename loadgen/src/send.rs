//! Sends a fleet's bodies and tells what came of it.
//!
//! Constraints that shaped it:
//! - What is measured is the server: so a request is one buffer that exists before the clock starts, one write, and
//!   an answer read by a parser that keeps nothing.
//! - A sender has one request in flight, as a shard of Prometheus has, and may do about answers what that does.
//! - At a fixed rate a request's latency counts from when it *should* have left. Were it counted from when it did
//!   leave, a server that stalls would stop the clock that measures it (coordinated omission). The plain time from
//!   leaving to answer is kept beside it, as *service time*.

mod meter;
mod outcome;
mod pace;
mod sender;
mod tally;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::client::Url;
use crate::fleet::{Body, Fleet};
use crate::ledger::{BodyCounts, ledger};
use crate::process::Process;
pub use crate::retry::Retry;

use meter::Meter;
pub use outcome::{MetadataOutcome, Outcome, ServerCost};
use sender::Sender;
use tally::Tally;

/// How often the caller hears how it goes.
const TICK: Duration = Duration::from_millis(200);

/// What to send where, and for how long.
#[derive(Clone, Debug)]
pub struct SendConfig {
    /// The server.
    pub url: Url,
    /// Headers besides those of the fleet's format.
    pub headers: Vec<(String, String)>,
    /// Stops after this time; None for no such bound. At a fixed rate, requests that were due before are still sent.
    pub duration: Option<Duration>,
    /// Stops after so many requests of all senders together, metadata among them; None for no such bound.
    pub requests: Option<u64>,
    /// Requests per second of all senders together; None to send the next as soon as the last is answered. There may be
    /// more senders than the rate needs: each has its turn.
    pub rate: Option<f64>,
    /// Whether a request that failed is sent again.
    pub retry: Retry,
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
    /// Requests that are over, whatever came of them. Metadata counts here and below.
    pub answered: AtomicU64,
    /// Those answered with 2xx.
    pub acknowledged: AtomicU64,
    /// How often a request was sent again.
    pub retries: AtomicU64,
    /// Series in them.
    pub series: AtomicU64,
    /// Set it, and senders stop after the request that they are at.
    pub stop: AtomicBool,
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
        for index in 0..count {
            let mut sender = Sender::new(config, fleet, index)?;
            let (gate, opened) = mpsc::channel::<Instant>();
            let (connected, over) = (connected.clone(), over.clone());
            let run = move || {
                sender.connect();
                drop(connected);
                // No start comes if there was no thread for another sender.
                if let Ok(started) = opened.recv() {
                    let cpu_at_start = thread_cpu_time();
                    sender.run(progress, started);
                    sender.tally.cpu = thread_cpu_time().saturating_sub(cpu_at_start);
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
        let mut total = Tally::new(0)?;
        let mut counts = Vec::with_capacity(count);
        for sender in senders {
            let tally = sender.join().map_err(|_| io::Error::other("a sender panicked"))?;
            counts.push(total.absorb(tally)?);
        }
        Ok(Outcome {
            elapsed,
            requests: total.requests,
            statuses: total.statuses,
            complaints: total.complaints,
            dropped: total.dropped,
            abandoned: total.abandoned,
            doubtful: total.doubtful,
            bytes: total.bytes,
            parts: parts(fleet, &counts),
            latency: total.latency,
            service: total.service,
            metadata: total.metadata,
            ledger: ledger(fleet, &counts),
            sender_cpu: total.cpu,
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

/// CPU time of the calling thread so far.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Whether senders are to stop.
fn stopped(progress: &Progress) -> bool {
    progress.stop.load(Ordering::Relaxed)
}
