//! Sends requests and reports what became of them.
//!
//! Constraints that shaped it:
//! - The server is what is measured. So a fleet's requests are complete buffers before the clock starts: each costs one
//!   write, and the parser of the answer keeps nothing. Where nothing is measured, a source may encode each request
//!   when it is due ([`crate::stamped`]).
//! - A sender has one request in flight, like a shard of Prometheus, and can retry like one.
//! - At a fixed rate, latency counts from when a request *should* have left. If it counted from when the request did
//!   leave, a server that stalls would also stop the clock that measures it (coordinated omission).

pub(crate) mod answer;
mod bodies;
mod outcome;
mod pace;
mod sender;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use crate::client::Url;
use crate::fleet::{Fleet, Format};
use crate::journal::{BodyCount, Fate, ledger};
use crate::process::Process;
pub use crate::retry::RetryRules;
use crate::tls::Credentials;
use crate::typed::{duration, header};

use bodies::Bodies;
pub use outcome::{Outcome, Percentiles, ServerCost};
pub(crate) use pace::Pace;
use sender::Sender;

/// How often the caller hears how it goes.
const TICK: Duration = Duration::from_millis(200);

/// How long senders send if neither a duration nor a number of requests is given.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);

/// What to send where, and for how long. The default has the defaults of the command line.
#[derive(Clone, Debug, Parser)]
pub struct SendConfig {
    /// Where to send; without a path, to where receivers take the format
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    pub url: Url,
    /// A header besides those of the format, NAME=VALUE; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// How long to send; 10s if --requests is not given either
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// How many requests, of all senders together
    #[arg(long, value_name = "N")]
    pub requests: Option<u64>,
    /// How long to wait for an answer
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub timeout: Duration,
    /// Open a new connection for each request; at an https URL this is how its handshake goes
    #[arg(long, value_name = "HANDSHAKE", value_enum)]
    pub new_connections: Option<Handshake>,
    /// What TLS and authentication need.
    #[command(flatten)]
    pub credentials: Credentials,
    /// Requests per second of all senders together; None to send the next as soon as the last is answered. There may be
    /// more senders than the rate needs: each has its turn. Requests that were due before the end are still sent.
    #[arg(skip)]
    pub rate: Option<f64>,
    /// How a request that failed is sent again; None to send each once.
    #[arg(skip)]
    pub retry: Option<RetryRules>,
    /// The server's process, to tell what the requests cost it.
    #[arg(skip)]
    pub server: Option<Process>,
    /// Whether answers are those of OTLP; what is sent decides that.
    #[arg(skip)]
    pub is_otlp: bool,
}

impl Default for SendConfig {
    fn default() -> Self {
        Self::parse_from(["send"])
    }
}

/// How the TLS handshake of a new connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Handshake {
    /// In full
    Full,
    /// Resume an earlier session, if the server lets one
    Resumed,
}

impl SendConfig {
    /// Reads the files of its credentials, and adds a duration of ten seconds if there is no other bound.
    ///
    /// # Errors
    /// When a file cannot be read, or an https URL comes without authorities to trust.
    pub fn ready(mut self) -> io::Result<Self> {
        if self.requests.is_none() {
            self.duration.get_or_insert(DURATION_DEFAULT);
        }
        let mut tls = self.credentials.load()?;
        if self.new_connections == Some(Handshake::Full) {
            tls = tls.map(|tls| tls.never_resuming());
        }
        self.url = self.url.with_tls(tls);
        if self.url.lacks_tls() {
            return Err(io::Error::other("an https URL needs --ca"));
        }
        self.headers.extend(self.credentials.header());
        Ok(self)
    }

    /// The same for bodies of this format: where they go, what answers say, and which of them senders retry on.
    pub(crate) fn for_format(&self, format: Format) -> Self {
        let is_otlp = format.export().is_some();
        Self {
            url: self.url.clone().or_path(format.path()),
            retry: self.retry.map(|rules| if is_otlp { rules.otlp() } else { rules }),
            is_otlp,
            ..self.clone()
        }
    }
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
    /// How often a request was sent again.
    pub retries: AtomicU64,
    /// Set it, and senders stop after the request that they are at.
    pub stop: AtomicBool,
}

/// Where a sender has its requests from.
pub(crate) trait Source: Send {
    /// The next request; None if there is none left.
    fn next(&mut self) -> Option<Message<'_>>;

    /// Notes what became of the request that came last.
    fn note(&mut self, fate: Fate);
}

/// A request that is to leave.
pub(crate) struct Message<'a> {
    /// Head and body.
    pub(crate) bytes: &'a [u8],
    pub(crate) body_bytes: u64,
}

/// Sends a fleet's bodies until a bound of `config` is reached or [`Progress::stop`] is set. `tick` is called five
/// times a second.
///
/// # Errors
/// When there are no threads to be had. That requests fail is no error here: the [`Outcome`] tells of it.
pub fn send(
    fleet: &Fleet,
    config: &SendConfig,
    progress: &Progress,
    tick: impl FnMut(&Progress),
) -> io::Result<Outcome> {
    let count = fleet.senders.len();
    let config = &config.for_format(fleet.format);
    let source = |index| (Bodies::new(config, fleet, index), Pace::new(config.rate, index, count));
    let (mut outcome, sources) = run(config, (0..count).map(source), progress, tick)?;
    let counts: Vec<Vec<BodyCount>> = sources.iter().map(|bodies| bodies.counts().collect()).collect();
    (outcome.ledger, outcome.parts) = ledger(fleet, &counts);
    Ok(outcome)
}

/// The same with other sources, one for each sender; they are given back.
pub(crate) fn run<S: Source>(
    config: &SendConfig,
    sources: impl Iterator<Item = (S, Pace)>,
    progress: &Progress,
    mut tick: impl FnMut(&Progress),
) -> io::Result<(Outcome, Vec<S>)> {
    let (connected, all_connected) = mpsc::channel::<()>();
    let (over, all_over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let mut senders = Vec::new();
        let mut gates = Vec::new();
        for (index, (mut source, pace)) in sources.enumerate() {
            let mut sender = Sender::new(config, progress)?;
            let (gate, opened) = mpsc::channel::<Instant>();
            let (connected, over) = (connected.clone(), over.clone());
            let run = move || {
                sender.connect();
                drop(connected);
                // No start comes if there was no thread for another sender.
                if let Ok(started) = opened.recv() {
                    sender.run(&mut source, pace, started);
                }
                drop(over);
                (sender.outcome, source)
            };
            senders.push(thread::Builder::new().name(format!("sender-{index}")).spawn_scoped(scope, run)?);
            gates.push(gate);
        }
        drop((connected, over));
        // Nothing is sent on it: it ends when the last sender has connected.
        let _ = all_connected.recv();
        let server = config.server.and_then(|process| Some((process, process.cpu_time().ok()?)));
        let started = Instant::now();
        for gate in gates {
            let _ = gate.send(started);
        }
        while matches!(all_over.recv_timeout(TICK), Err(RecvTimeoutError::Timeout)) {
            tick(progress);
        }
        let mut total = Outcome::new()?;
        total.elapsed = started.elapsed();
        total.server = server.and_then(|(process, cpu)| ServerCost::since(&process, cpu));
        let mut sources = Vec::with_capacity(senders.len());
        for sender in senders {
            let (outcome, source) = sender.join().map_err(|_| io::Error::other("a sender panicked"))?;
            total = total + outcome;
            sources.push(source);
        }
        Ok((total, sources))
    })
}
