//! Requests of stamped samples, and a journal of what became of each.
//!
//! Constraints that shaped it:
//! - It is for proofs: a request is encoded when it is sent, no two are alike, and what is measured is nothing but
//!   time.
//! - Retries are Prometheus', as a proof by other rules would prove little about Prometheus; but each request has a
//!   time of its own, lest a proof never end.
//! - Whatever ends a sender, its journal holds every request that was sent.
//!
//! A request holds several tenants, for a server to split; or, where [`StampedConfig::tenant_header`] is set, one
//! tenant and the header that names it, for an upstream itself.

mod strand;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use crate::chaos::Pulse;
use crate::fleet::Format;
use crate::journal::{Entries, Fate, Journal};
use crate::proto::WriteRequest;
use crate::send::{Message, Outcome, Pace, Progress, SendConfig, Source};
use crate::stamp::SenderId;
use crate::typed::{count, duration, header_name, tenant_names};

use strand::Strand;

/// What stamped senders send, and where. The default has the defaults of the command line.
#[derive(Clone, Debug, Parser)]
pub struct StampedConfig {
    /// Where to, for how long, and when again. The last requests' retries may go on past its duration.
    #[command(flatten)]
    pub send: SendConfig,
    /// How bodies are written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Tenants: a number, or names as in `payments,search`
    #[arg(long, default_value = "10", value_parser = tenant_names)]
    pub tenants: Names,
    /// Name of the tenant's label
    #[arg(long, default_value = "__tenant__")]
    pub tenant_label: String,
    /// Tenants in one request, in turns; all of them if not given
    #[arg(long, value_name = "COUNT", value_parser = count(u64::MAX))]
    pub tenants_per_request: Option<usize>,
    /// Name the tenant in this header, and send one tenant in a request: for a server that does not split, or the sink
    /// itself
    #[arg(long, value_name = "NAME", conflicts_with = "tenants_per_request", value_parser = header_name)]
    pub tenant_header: Option<String>,
    /// What the server puts before each tenant
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// Series of each tenant in a request, with a sample each
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub series: u32,
    /// From one request of a sender to its next; 0s to send as soon as the last is settled
    #[arg(long, value_parser = duration, default_value = "0s")]
    pub interval: Duration,
    /// Where it is noted whose requests are sent for the first time; None to note it nowhere.
    #[arg(skip)]
    pub pulse: Option<Arc<Pulse>>,
}

impl Default for StampedConfig {
    fn default() -> Self {
        Self::parse_from(["stamped"])
    }
}

/// Tenants' names. (An alias, since clap takes a bare `Vec` for an option that may be repeated.)
type Names = Vec<String>;

/// One sender's samples, and what became of them.
pub(crate) struct Stamps {
    config: Arc<StampedConfig>,
    id: SenderId,
    strands: Vec<Strand>,
    /// The tenant whose turn it is, by its place.
    turn: usize,
    /// The request that was made last: the tenants in it, by their places, each with its sequence number.
    parts: Vec<(usize, u64)>,
    bytes: Vec<u8>,
}

impl Stamps {
    pub(crate) fn new(config: Arc<StampedConfig>, id: SenderId) -> Self {
        let strand = |tenant: &String| Strand::new(&config.tenant_label, tenant, id, config.series);
        Self {
            id,
            strands: config.tenants.iter().map(strand).collect(),
            // Senders begin with different tenants, lest all send for the same at once.
            turn: usize::try_from(id.index).unwrap_or_default(),
            parts: Vec::new(),
            bytes: Vec::new(),
            config,
        }
    }

    /// The next samples of the tenants whose turn it is.
    fn request(&mut self) -> WriteRequest {
        let tenants = self.strands.len();
        let one = self.config.tenant_header.as_ref().map(|_| 1);
        let most = one.or(self.config.tenants_per_request).unwrap_or(tenants);
        let mut request = WriteRequest::default();
        self.parts.clear();
        for _ in 0..most.min(tenants) {
            let tenant = self.turn % tenants;
            self.turn = tenant + 1;
            if let Some(strand) = self.strands.get_mut(tenant) {
                let (sequence, series) = strand.next();
                request.timeseries.extend(series);
                self.parts.push((tenant, sequence));
            }
        }
        request
    }

    /// The tenants of the request that was made last.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &String> {
        self.parts.iter().filter_map(|&(tenant, _)| self.config.tenants.get(tenant))
    }

    /// The parts of the request that was made last: the sender, the tenant, and the sequence number of each.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (SenderId, String, u64)> {
        let tenants = &self.config.tenants;
        self.parts.iter().filter_map(|&(at, sequence)| Some((self.id, tenants.get(at)?.clone(), sequence)))
    }

    /// All that is known of what was sent.
    pub(crate) fn journal(self) -> Journal {
        let mut journal = Journal::default();
        for (tenant, strand) in self.config.tenants.iter().zip(self.strands) {
            if strand.entries != Entries::new(self.config.series) {
                journal.add(self.id, tenant, strand.entries);
            }
        }
        journal
    }
}

impl Source for Stamps {
    fn next(&mut self) -> Option<Message<'_>> {
        let (_, body) = self.config.format.encode(&self.request());
        let config = &self.config;
        let mut headers = config.send.headers.clone();
        if let Some((name, tenant)) = config.tenant_header.as_ref().zip(self.tenants().next()) {
            headers.push((name.clone(), format!("{}{tenant}", config.prefix)));
        }
        self.bytes = config.send.url.push(config.format.headers(), &headers, &body);
        if let Some(pulse) = &config.pulse {
            let destination = config.format.destination();
            self.tenants().for_each(|tenant| pulse.sent(tenant, destination));
        }
        Some(Message { bytes: &self.bytes, body_bytes: body.len() as u64 })
    }

    fn note(&mut self, fate: Fate) {
        for &(tenant, sequence) in &self.parts {
            if let Some(strand) = self.strands.get_mut(tenant) {
                strand.entries.settle(sequence, fate);
            }
        }
    }
}

/// Runs `senders` senders, each on a thread of its own; `run` is [`SenderId::run`] of all, and no other run may have
/// the same. Returns when the last has settled its last request. `tick` is called five times a second.
///
/// # Errors
/// When there are no threads to be had. That requests fail is no error here: journal and outcome tell of it.
pub fn send(
    config: &StampedConfig,
    run: u64,
    senders: u32,
    progress: &Progress,
    tick: impl FnMut(&Progress),
) -> io::Result<(Journal, Outcome)> {
    let shared = Arc::new(StampedConfig { send: config.send.for_format(config.format), ..config.clone() });
    let stamps = |index| Stamps::new(Arc::clone(&shared), SenderId { run, index });
    let source = |index| (stamps(index), Pace::every(config.interval));
    let (outcome, sources) = crate::send::run(&shared.send, (0..senders).map(source), progress, tick)?;
    let mut journal = Journal::default();
    sources.into_iter().for_each(|source| journal.merge(source.journal()));
    Ok((journal, outcome))
}
