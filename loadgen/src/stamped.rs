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

use crate::chaos::Pulse;
use crate::fleet::Format;
use crate::journal::{Entries, Fate, Journal};
use crate::proto::WriteRequest;
use crate::send::{Message, Outcome, Pace, Progress, SendConfig, Source};
use crate::stamp::SenderId;

use strand::Strand;

/// What stamped senders send, and where.
#[derive(Clone, Debug)]
pub struct StampedConfig {
    /// Where to, for how long, and when again. The last requests' retries may go on past its duration.
    pub send: SendConfig,
    /// In which words.
    pub format: Format,
    /// The tenants' names.
    pub tenants: Vec<String>,
    /// Name of the label that names the tenant.
    pub tenant_label: String,
    /// Tenants in a request; those of a sender take turns. All, if there are no more.
    pub tenants_per_request: usize,
    /// The header that names a request's tenant, for a server that does not split: each request then holds one tenant.
    pub tenant_header: Option<String>,
    /// What stands before the tenant in that header.
    pub prefix: String,
    /// Series of each tenant in a request, with one sample each.
    pub series: u32,
    /// Requests of each sender; None for no such bound.
    pub requests: Option<u64>,
    /// From one request of a sender to its next; zero to send as soon as the last is settled.
    pub interval: Duration,
    /// Where it is noted whose requests are sent for the first time; None to note it nowhere.
    pub pulse: Option<Arc<Pulse>>,
}

/// One sender's samples, and what became of them.
struct Stamps<'a> {
    config: &'a StampedConfig,
    id: SenderId,
    strands: Vec<Strand>,
    /// The tenant whose turn it is, by its place.
    turn: usize,
    sent: u64,
    /// The request that was made last: the tenants in it, by their places, each with its sequence number.
    parts: Vec<(usize, u64)>,
    bytes: Vec<u8>,
}

impl<'a> Stamps<'a> {
    fn new(config: &'a StampedConfig, id: SenderId) -> Self {
        let strand = |tenant: &String| Strand::new(&config.tenant_label, tenant, id, config.series);
        Self {
            config,
            id,
            strands: config.tenants.iter().map(strand).collect(),
            // Senders begin with different tenants, lest all send for the same at once.
            turn: usize::try_from(id.index).unwrap_or_default(),
            sent: 0,
            parts: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// The next samples of the tenants whose turn it is.
    fn request(&mut self) -> WriteRequest {
        let tenants = self.strands.len();
        let most = if self.config.tenant_header.is_some() { 1 } else { self.config.tenants_per_request };
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
    fn tenants(&self) -> impl Iterator<Item = &'a String> {
        self.parts.iter().filter_map(|&(tenant, _)| self.config.tenants.get(tenant))
    }

    /// All that is known of what was sent.
    fn journal(self) -> Journal {
        let mut journal = Journal::default();
        for (tenant, strand) in self.config.tenants.iter().zip(self.strands) {
            if strand.entries != Entries::new(self.config.series) {
                journal.add(self.id, tenant, strand.entries);
            }
        }
        journal
    }
}

impl Source for Stamps<'_> {
    fn next(&mut self) -> Option<Message<'_>> {
        let config = self.config;
        if config.requests.is_some_and(|most| self.sent >= most) {
            return None;
        }
        self.sent += 1;
        let (_, body) = config.format.encode(&self.request());
        let mut headers = config.send.headers.clone();
        if let Some((name, tenant)) = config.tenant_header.as_ref().zip(self.tenants().next()) {
            headers.push((name.clone(), format!("{}{tenant}", config.prefix)));
        }
        self.bytes = config.send.url.push(config.format.headers(), &headers, &body);
        if let Some(pulse) = &config.pulse {
            self.tenants().for_each(|tenant| pulse.sent(tenant));
        }
        Some(Message { bytes: &self.bytes, body_bytes: body.len() as u64, metadata: None })
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
    let source = |index| (Stamps::new(config, SenderId { run, index }), Pace::every(config.interval));
    let (outcome, sources) = crate::send::run(&config.send, (0..senders).map(source), progress, tick)?;
    let mut journal = Journal::default();
    sources.into_iter().for_each(|source| journal.merge(source.journal()));
    Ok((journal, outcome))
}
