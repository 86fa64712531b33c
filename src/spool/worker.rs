//! The spool's thread: it does for the cores what takes the disk's time.
//!
//! # Constraints
//! - A core never waits for a disk. So it sends a [`Command`] and goes on; the reply comes as a message.
//! - A write to a disk that hangs may never return. Then the commands wait here, and the cores stop waiting for them.
//! - What was appended may be acknowledged only when it is durable, and a disk makes few things durable in a second.
//!
//! # Design
//! Group commit: the thread takes whatever has come, appends all of it, and makes it durable at once. What comes
//! meanwhile is the next group. So the slower the disk, the larger the groups. Replies go out in the order of the
//! commands. One thread serves all cores: it waits for the disk nearly all of its time, and two would make things
//! durable twice as often.
//!
//! Reading comes after the commit, so that what waits to be acknowledged does not wait for a replay. After each group,
//! and now and then without one, space is given back, in small steps.
//!
//! The queue of commands is limited by what is in it: an append holds its room in flight, and a lane waits for the reply
//! to what it reads.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{DeadLetters, Disk, Refused, Sequence, Spooled, Store, Stream, StreamTotals};
use crate::metrics::{Metrics, SpoolMetrics};
use crate::model::UpstreamId;

/// The thread tidies, and with `fsync: interval` makes durable, at least this often.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Commands in one group, at most: what they append is written at once, and so is in memory twice.
const GROUP_MAX: usize = 1_024;

/// Where a reply goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The core.
    pub core: usize,
    /// Its upstream.
    pub upstream: UpstreamId,
}

/// What a core wants of the spool.
#[derive(Debug)]
pub enum Command {
    /// Store this. The reply is [`What::Appended`].
    Append(ReplyTo, Box<Spooled>),
    /// Read the oldest parts of a stream. The reply is [`What::Front`].
    Front {
        /// Where the reply goes.
        to: ReplyTo,
        /// The stream.
        stream: Stream,
        /// Parts, at most.
        parts_max: usize,
        /// Bytes of their elements, at most; but one part in any case.
        bytes_max: usize,
    },
    /// The parts of a stream up to this one have been delivered, or were refused for good.
    Remove(Stream, Sequence),
    /// The upstream has refused this part for good, for this reason: keep it where somebody may look at it.
    Bury(Box<Spooled>, String),
}

/// The reply to a command.
#[derive(Debug)]
pub struct Reply {
    /// Where it goes.
    pub to: ReplyTo,
    /// What was done.
    pub what: What,
}

/// What was done.
#[derive(Debug)]
pub enum What {
    /// The part is durable, and its stream holds this; or it is not in the spool. Replies come in the order of the
    /// commands.
    Appended(Result<StreamTotals, Refused>),
    /// The oldest parts of a stream, in their order, and what it holds; no parts if nothing is left.
    Front(Stream, io::Result<Vec<(Sequence, Spooled)>>, StreamTotals),
}

/// Takes replies to the cores. It must not block.
pub type Deliver = dyn Fn(Reply) + Send + Sync;

/// Sends commands to the thread.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: Sender<Command>,
}

impl Handle {
    /// Sends a command. Returns whether the thread is there to see it.
    pub fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }
}

/// How the thread works.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSettings {
    /// Whether each group is made durable before its replies go out.
    pub syncs_each_group: bool,
    /// The most that the files may hold, for the metrics.
    pub bytes_max: u64,
}

/// Starts the thread. It ends when all handles are gone and everything that they sent is done.
///
/// # Errors
/// If the system gives no thread.
pub fn start<D: Disk + Send + 'static>(
    store: Store<D>,
    dead_letters: Option<DeadLetters>,
    settings: WorkerSettings,
    deliver: Arc<Deliver>,
    metrics: Arc<Metrics>,
) -> io::Result<(Handle, JoinHandle<()>)> {
    let (sender, commands) = crossbeam_channel::unbounded();
    metrics.spool.bytes_max.set(usize::try_from(settings.bytes_max).unwrap_or(usize::MAX));
    let worker =
        Worker { store, dead_letters, settings, deliver, metrics, synced: Instant::now(), is_synced: true };
    let thread = std::thread::Builder::new().name("spool".into()).spawn(move || worker.run(&commands))?;
    Ok((Handle { commands: sender }, thread))
}

struct Worker<D: Disk> {
    store: Store<D>,
    dead_letters: Option<DeadLetters>,
    settings: WorkerSettings,
    deliver: Arc<Deliver>,
    metrics: Arc<Metrics>,
    /// When things were made durable last.
    synced: Instant,
    /// Whether everything is.
    is_synced: bool,
}

/// The commands that are done together.
#[derive(Default)]
struct Group {
    /// Where each reply goes, the stream, and whether the part was taken.
    appended: Vec<(ReplyTo, Stream, Result<Sequence, Refused>)>,
    reads: Vec<(ReplyTo, Stream, usize, usize)>,
    /// Whether there is something to write.
    writes: bool,
}

impl<D: Disk> Worker<D> {
    fn run(mut self, commands: &Receiver<Command>) {
        self.show();
        loop {
            match commands.recv_timeout(IDLE_INTERVAL) {
                Ok(first) => self.serve(first, commands),
                Err(RecvTimeoutError::Timeout) if self.is_synced => {}
                Err(RecvTimeoutError::Timeout) => drop(self.commit(true)),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tidy(commands);
            self.show();
        }
        drop(self.commit(true));
    }

    /// Does what has come, and replies.
    fn serve(&mut self, first: Command, commands: &Receiver<Command>) {
        let mut group = Group::default();
        for command in std::iter::once(first).chain(commands.try_iter()).take(GROUP_MAX) {
            self.take(command, &mut group);
        }
        if group.writes {
            let is_due = self.settings.syncs_each_group || self.synced.elapsed() >= IDLE_INTERVAL;
            if let Err(error) = self.commit(is_due) {
                // What was refused before keeps its own reason.
                for (.., result) in group.appended.iter_mut().filter(|(.., result)| result.is_ok()) {
                    *result = Err(Refused::Failed(io::Error::new(error.kind(), error.to_string())));
                }
            }
        }
        for (to, stream, result) in group.appended {
            let what = What::Appended(result.map(|_| self.store.totals_of(&stream)));
            (self.deliver)(Reply { to, what });
        }
        for (to, stream, parts_max, bytes_max) in group.reads {
            self.read(to, stream, parts_max, bytes_max);
        }
    }

    fn take(&mut self, command: Command, group: &mut Group) {
        match command {
            Command::Append(to, spooled) => {
                let result = self.store.append(&spooled, now_millis());
                if result.is_ok() {
                    group.writes = true;
                    self.metrics().written_bytes.add(spooled.part.elements.len() as u64);
                }
                group.appended.push((to, spooled.stream(), result));
            }
            Command::Front { to, stream, parts_max, bytes_max } => {
                group.reads.push((to, stream, parts_max, bytes_max));
            }
            Command::Remove(stream, up_to) => {
                self.store.remove(&stream, up_to);
                group.writes = true;
            }
            Command::Bury(spooled, reason) => self.bury(&spooled, &reason),
        }
    }

    fn read(&mut self, to: ReplyTo, stream: Stream, parts_max: usize, bytes_max: usize) {
        let read = self.store.front(&stream, None, parts_max, bytes_max);
        if let Err(error) = &read {
            self.metrics().read_errors.add(1);
            tracing::error!(%error, tenant = stream.tenant.as_str(), "the spool can't be read");
        }
        let totals = self.store.totals_of(&stream);
        (self.deliver)(Reply { to, what: What::Front(stream, read, totals) });
    }

    fn bury(&self, spooled: &Spooled, reason: &str) {
        let Some(dead_letters) = &self.dead_letters else { return };
        if let Err(error) = dead_letters.add(spooled, reason, now_millis()) {
            self.metrics().commit_errors.add(1);
            tracing::error!(%error, tenant = spooled.part.tenant.as_str(), "spool.dead_letter can't be written");
        }
    }

    fn commit(&mut self, sync: bool) -> io::Result<()> {
        let begun = Instant::now();
        let result = self.store.commit(sync);
        self.metrics().commit_seconds.observe(begun.elapsed().as_secs_f64());
        self.is_synced = sync;
        if sync {
            self.synced = begun;
        }
        if let Err(error) = &result {
            self.metrics().commit_errors.add(1);
            tracing::error!(%error, "the spool can't be written: what has just come is not in it");
        }
        result
    }

    /// Gives space back, in steps, until there is something else to do.
    fn tidy(&mut self, commands: &Receiver<Command>) {
        loop {
            match self.store.tidy() {
                Ok(true) if commands.is_empty() => {}
                Ok(_) => return,
                Err(error) => {
                    self.metrics().tidy_errors.add(1);
                    tracing::error!(%error, "the spool can't give space back");
                    return;
                }
            }
        }
    }

    fn show(&self) {
        let (totals, metrics) = (self.store.totals(), self.metrics());
        let as_size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        metrics.parts.set(as_size(totals.records));
        metrics.bytes.set(as_size(totals.bytes));
        metrics.disk_bytes.set(as_size(totals.disk_bytes));
        metrics.segments.set(as_size(totals.segments));
        metrics.streams.set(self.store.streams().count());
    }

    fn metrics(&self) -> &SpoolMetrics {
        &self.metrics.spool
    }
}

/// Milliseconds since the epoch.
pub fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
