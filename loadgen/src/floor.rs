//! What the work on a request costs without any I/O: the floor under every figure of a comparison.
//!
//! Constraints that shaped it:
//! - The same bodies as `send` sends, in turn, through the server's own splitter, on one thread. So what is above it
//!   in a comparison is I/O, queues, metrics, and caches that others have emptied.
//! - A splitter does not tell how long its stages took. So its two calls are timed as they are, and from them is taken
//!   what inflating alone and deflating alone cost, each measured in a pass of its own over the same bodies.
//! - Time is the thread's CPU time: whoever else uses the machine does not count.
//! - The figure is the median over requests: one that an interrupt fell upon does not count.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tenantry::model::{Protocol, SplitLimits};
use tenantry::split::{Body, Compression, SplitError, SplitRules, Splitter};
use tenantry::tenant::TenantRules;
use tenantry::wire::snappy::{Deflater, Inflater, SnappyError};
use tenantry::wire::varint;

use crate::fleet::{Fleet, FleetConfig, FleetError, Format};

/// Most requests whose times are kept for a median.
const REQUESTS_MAX: usize = 1_000_000;

/// Bounds that no body here reaches.
const LIMITS: SplitLimits = SplitLimits { inflated_bytes_max: 1 << 30, tenants_max: 1 << 20 };

/// CPU time of each stage, in microseconds a request; and what a request is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Floor {
    /// Different bodies that took turns.
    pub bodies: usize,
    /// Series in a request.
    pub series: f64,
    /// Tenants in a request, on average.
    pub tenants: f64,
    /// Size of a body, on average.
    pub block_bytes: f64,
    /// What it inflates to, on average.
    pub inflated_bytes: f64,
    /// From the snappy block to its bytes.
    pub inflate_us: f64,
    /// Finding every series and its tenant.
    pub scan_us: f64,
    /// Bringing each tenant's series together.
    pub split_us: f64,
    /// From each tenant's bytes to a snappy block; nothing for a request that passes through.
    pub deflate_us: f64,
}

impl Floor {
    /// The stages in their order, by name.
    #[must_use]
    pub fn stages(&self) -> [(&'static str, f64); 4] {
        [
            ("inflate", self.inflate_us),
            ("scan", self.scan_us),
            ("split", self.split_us),
            ("deflate", self.deflate_us),
        ]
    }

    /// All of them together.
    #[must_use]
    pub fn total_us(&self) -> f64 {
        self.stages().iter().map(|(_, us)| us).sum()
    }
}

/// Why there is no floor.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The bodies cannot be built.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A body cannot be split: what was asked for is beyond what a server takes.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// A block cannot be inflated.
    #[error(transparent)]
    Snappy(#[from] SnappyError),
}

/// Measures each stage over the bodies of `config`, for `time` in all; `label_remove` takes the tenant's label out.
///
/// # Errors
/// When the bodies cannot be built or split.
pub fn floor(config: &FleetConfig, label_remove: bool, time: Duration) -> Result<Floor, FloorError> {
    let fleet = Fleet::build(config)?;
    // Metadata names no tenant: there is nothing to split.
    let bodies = || fleet.senders.iter().flatten().filter(|body| !body.shares.is_empty());
    let blocks: Vec<Bytes> = bodies().map(|body| body.block.clone()).collect();
    let tenant = tenant_rules(config, label_remove);
    let rules = SplitRules::new(&tenant, LIMITS);
    let rules = Rules { format: config.format, rules };
    let time = time / 3;
    let inflate_us = inflating(&blocks, time)?;
    let (scanned_us, taken_us) = splitting(&blocks, &rules, time)?;
    let deflate_us = deflating(&parts(&blocks, &rules)?, time)?;
    Ok(Floor {
        bodies: blocks.len(),
        series: mean(bodies().map(|body| body.shares.iter().map(|(_, tally)| tally.series).sum())),
        tenants: mean(bodies().map(|body| body.shares.len() as u64)),
        block_bytes: mean(blocks.iter().map(|block| block.len() as u64)),
        inflated_bytes: mean(bodies().map(|body| body.inflated_bytes as u64)),
        inflate_us,
        scan_us: (scanned_us - inflate_us).max(0.0),
        split_us: (taken_us - deflate_us).max(0.0),
        deflate_us,
    })
}

/// How bodies are read and split.
struct Rules<'a> {
    format: Format,
    rules: SplitRules<'a>,
}

impl Rules<'_> {
    /// A block as the server would take it.
    fn body(&self, block: &Bytes) -> Body {
        let (protocol, compression) = match self.format {
            Format::RemoteWrite1 => (Protocol::RemoteWriteV1, Compression::Snappy),
            Format::RemoteWrite1Zstd => (Protocol::RemoteWriteV1, Compression::Zstd),
            Format::RemoteWrite2 => (Protocol::RemoteWriteV2, Compression::Snappy),
            Format::Loki => (Protocol::Loki, Compression::Snappy),
            Format::LokiJson => (Protocol::LokiJson, Compression::Identity),
            Format::LokiJsonGzip => (Protocol::LokiJson, Compression::Gzip),
        };
        Body { protocol, compression, bytes: block.clone() }
    }
}

/// What a configuration that names only the tenant's label comes to.
fn tenant_rules(config: &FleetConfig, label_remove: bool) -> TenantRules {
    TenantRules { label_remove, ..TenantRules::of_label(config.tenant_label.as_bytes()) }
}

fn inflating(blocks: &[Bytes], time: Duration) -> Result<f64, FloorError> {
    let mut inflater = Inflater::default();
    let mut times = Vec::new();
    in_turn(blocks, time, |block| {
        let begin = cpu();
        inflater.inflate(black_box(block), LIMITS.inflated_bytes_max)?;
        times.push(cpu() - begin);
        Ok(())
    })?;
    Ok(median_us(times))
}

/// The splitter's two calls as a server makes them: scanning, which inflates first, and taking the parts.
fn splitting(blocks: &[Bytes], rules: &Rules<'_>, time: Duration) -> Result<(f64, f64), FloorError> {
    let mut splitter = Splitter::new();
    let (mut scanned, mut taken) = (Vec::new(), Vec::new());
    in_turn(blocks, time, |block| {
        let begin = cpu();
        splitter.scan(rules.body(block), &rules.rules, None)?;
        let middle = cpu();
        while let Some(part) = splitter.next_part() {
            black_box(part);
        }
        scanned.push(middle - begin);
        taken.push(cpu() - middle);
        Ok(())
    })?;
    Ok((median_us(scanned), median_us(taken)))
}

/// Deflating the parts of each request, which lie in the cache as they do when a splitter has just gathered them.
fn deflating(requests: &[Parts], time: Duration) -> Result<f64, FloorError> {
    let mut deflater = Deflater::default();
    let mut hot = Vec::new();
    let mut times = Vec::new();
    in_turn(requests, time, |parts| {
        hot.clear();
        hot.extend_from_slice(&parts.bytes);
        let begin = cpu();
        let mut start = 0;
        for &end in &parts.ends {
            black_box(deflater.elements(hot.get(start..end).unwrap_or_default()));
            start = end;
        }
        times.push(cpu() - begin);
        Ok(())
    })?;
    let none = requests.iter().all(|parts| parts.ends.is_empty());
    Ok(if none { 0.0 } else { median_us(times) })
}

/// What there is to deflate in a request: its parts, inflated, behind each other; nothing if it passes through.
#[derive(Default)]
struct Parts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

fn parts(blocks: &[Bytes], rules: &Rules<'_>) -> Result<Vec<Parts>, FloorError> {
    let mut splitter = Splitter::new();
    let mut inflater = Inflater::default();
    let mut requests = Vec::with_capacity(blocks.len());
    for block in blocks {
        let mut parts = Parts::default();
        let passthrough = splitter.scan(rules.body(block), &rules.rules, None)?.passthrough;
        while let Some(part) = splitter.next_part().filter(|_| !passthrough) {
            let mut block = Vec::with_capacity(part.elements.len() + 5);
            varint::put(&mut block, u64::from(part.inflated_bytes));
            block.extend_from_slice(&part.elements);
            inflater.inflate(&block, LIMITS.inflated_bytes_max)?;
            parts.bytes.extend_from_slice(inflater.bytes());
            parts.ends.push(parts.bytes.len());
        }
        requests.push(parts);
    }
    Ok(requests)
}

/// Does `work` on each of `things` in turn until `time` is over; at least once on each.
fn in_turn<T>(
    things: &[T],
    time: Duration,
    mut work: impl FnMut(&T) -> Result<(), FloorError>,
) -> Result<(), FloorError> {
    let begun = Instant::now();
    for (done, thing) in things.iter().cycle().enumerate().take(REQUESTS_MAX) {
        if done >= things.len() && begun.elapsed() >= time {
            break;
        }
        work(thing)?;
    }
    Ok(())
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn mean(counts: impl Iterator<Item = u64>) -> f64 {
    let (mut sum, mut count) = (0, 0u64);
    for each in counts {
        sum += each;
        count += 1;
    }
    if count == 0 { 0.0 } else { sum as f64 / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::numbered_tenants;

    fn measure(tenants: usize, label_remove: bool) -> Floor {
        let tenants = numbered_tenants(tenants);
        let config =
            FleetConfig { senders: 1, series: 400, run_length: 10, tenants, ..FleetConfig::default() };
        floor(&config, label_remove, Duration::from_millis(30)).unwrap()
    }

    #[test]
    fn a_request_of_several_tenants_has_all_stages() {
        let floor = measure(4, false);
        assert_eq!((floor.bodies, floor.series, floor.tenants), (4, 400.0, 4.0));
        assert!(floor.inflated_bytes > floor.block_bytes && floor.block_bytes > 1000.0, "{floor:?}");
        assert!(floor.inflate_us > 0.0 && floor.scan_us > 0.0 && floor.deflate_us > 0.0, "{floor:?}");
        let stages: f64 = floor.stages().iter().map(|(_, us)| us).sum();
        assert!((floor.total_us() - stages).abs() < 1e-9);
    }

    #[test]
    fn one_tenants_request_passes_through_unless_its_label_goes() {
        assert!(measure(1, false).deflate_us == 0.0);
        assert!(measure(1, true).deflate_us > 0.0);
    }
}
