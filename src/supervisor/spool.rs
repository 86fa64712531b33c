//! Opens the spool when the server starts, and brings what it has back to the lanes.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Failure;
use crate::config::plan::{self, Fsync, Plan};
use crate::core::SpoolStart;
use crate::exchange::fragment::{Message, home_core};
use crate::exchange::mailbox::Post;
use crate::limits::EXIT_SECS;
use crate::metrics::Metrics;
use crate::model::UpstreamId;
use crate::spool::limits::STREAMS_MAX;
use crate::spool::worker::{Handle, Reply, Worker, WorkerSettings};
use crate::spool::{DeadLetters, Disk, Folder, Store, StoreLimits, Stream, StreamTotals};

/// The spool's files, read and checked, and where each stream in them goes.
pub struct Opened<D: Disk> {
    store: Store<D>,
    dead_letters: Option<DeadLetters>,
    found: Vec<(UpstreamId, Stream, StreamTotals)>,
}

/// Opens the spool, if the plan has one.
///
/// # Errors
/// When its folder can't be used, or has data for an upstream or target that the plan has not.
pub(super) fn open(plan: &Plan) -> Result<Option<Opened<Folder>>, Failure> {
    let Some(settings) = &plan.spool else { return Ok(None) };
    let failure = |reason: String| failure(settings, reason);
    let folder = Folder::open(&settings.dir).map_err(|error| failure(error.to_string()))?;
    Opened::read(folder, plan, settings).map(Some)
}

fn failure(settings: &plan::Spool, reason: String) -> Failure {
    Failure::Spool { dir: settings.dir.display().to_string(), reason }
}

impl<D: Disk> Opened<D> {
    /// Reads what `disk` has for the upstreams of the plan.
    ///
    /// # Errors
    /// When the disk can't be used, or has data for an upstream or target that the plan has not.
    pub fn read(disk: D, plan: &Plan, settings: &plan::Spool) -> Result<Self, Failure> {
        let failure = |reason: String| failure(settings, reason);
        let store = Store::open(disk, limits(settings)).map_err(|error| failure(error.to_string()))?;
        for damage in store.damage() {
            tracing::error!("the spool in {}: {damage}: what was there is lost", settings.dir.display());
        }
        let mut found = Vec::new();
        for (stream, totals) in store.streams() {
            let is_its = |id: &UpstreamId| {
                id.destination() == stream.destination && plan.upstreams.name_of(*id) == &*stream.upstream
            };
            let id = plan.upstream_ids().find(is_its).ok_or_else(|| {
                let (name, key, parts) = (&stream.upstream, stream.destination.key(), totals.records);
                failure(format!(
                    "it has {parts} parts for {key} of the upstream {name:?}, which the configuration does not have: \
                     add it again, or move the spool's files away"
                ))
            })?;
            // What was sent to ourselves would be refused, and lost.
            if plan.is_ourselves(id) {
                let (key, parts) = (stream.destination.key(), totals.records);
                return Err(failure(format!(
                    "it has {parts} parts for {key}, which is not set any more: set it again, or move the spool's \
                     files away"
                )));
            }
            found.push((id, stream.clone(), totals));
        }
        let dead_letters = settings.dead_letter.as_ref().map(|path| {
            DeadLetters::open(path).map_err(|error| failure(format!("spool.dead_letter: {error}")))
        });
        Ok(Self { store, dead_letters: dead_letters.transpose()?, found })
    }
}

/// The size of a segment; a small spool has smaller ones.
const SEGMENT_BYTES: u64 = 64 << 20;

fn limits(settings: &plan::Spool) -> StoreLimits {
    StoreLimits {
        bytes_max: settings.bytes_max,
        tenant_bytes_max: settings.tenant_bytes_max,
        age_max: settings.age_max,
        segment_bytes: SEGMENT_BYTES,
        streams_max: STREAMS_MAX,
    }
}

/// What the cores need of the spool.
pub struct Spool {
    handle: Handle,
    found: Vec<Vec<(UpstreamId, Stream, StreamTotals)>>,
}

impl Spool {
    /// Creates the work of the spool's thread, whose replies go to `posts`.
    pub fn new<D: Disk>(
        opened: Opened<D>,
        plan: &Plan,
        posts: &[Post<Message>],
        metrics: &Arc<Metrics>,
    ) -> (Self, Worker<D>) {
        let Opened { store, dead_letters, found } = opened;
        let totals = store.totals();
        if totals.records > 0 {
            let (parts, bytes) = (totals.records, totals.bytes);
            tracing::warn!(parts, bytes, streams = found.len(), "the spool has data, which is sent now");
        }
        metrics.spool.damaged.add(store.damage().len() as u64);
        let settings = WorkerSettings {
            syncs_each_group: plan.spool.as_ref().is_none_or(|spool| spool.fsync == Fsync::Always),
            bytes_max: plan.spool.as_ref().map_or(0, |spool| spool.bytes_max),
        };
        let to: Box<[_]> = posts.into();
        let deliver = move |reply: Reply| {
            if let Some(post) = to.get(reply.to.core) {
                post.post(Message::Spool(Box::new(reply)));
            }
        };
        let (worker, handle) =
            Worker::new(store, dead_letters, settings, Arc::new(deliver), Arc::clone(metrics));
        let mut of_cores = vec![Vec::new(); posts.len()];
        for one in found {
            let core = home_core(&one.1.tenant, posts.len());
            of_cores.get_mut(core).into_iter().for_each(|all: &mut Vec<_>| all.push(one.clone()));
        }
        (Self { handle, found: of_cores }, worker)
    }

    /// What a core needs.
    pub fn of_core(&self, core: usize) -> SpoolStart {
        SpoolStart { handle: self.handle.clone(), found: self.found.get(core).cloned().unwrap_or_default() }
    }
}

/// Waits for the thread. A disk that hangs holds up nobody for ever: what was acknowledged is durable.
#[expect(clippy::disallowed_methods, reason = "this is the main thread, which has nothing else to do")]
pub(super) fn wait(thread: &JoinHandle<()>) {
    let until = Instant::now() + Duration::from_secs(EXIT_SECS);
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
}
