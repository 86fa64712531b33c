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
//! The queue of commands is limited by what is in it: an append holds its room in flight until its reply, a core that
//! has given up one appends no more, and a lane waits for the reply to what it reads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{DeadLetters, Disk, Refused, Sequence, Spooled, Store, Stream, StreamTotals};
use crate::log::Limiter;
use crate::metrics::{Metrics, SpoolMetrics};
use crate::model::UpstreamId;

/// The thread tidies, and with `fsync: interval` makes durable, at least this often.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Commands in one group, at most. What they append is in memory twice until it is written.
const GROUP_MAX: usize = 1_024;

/// Where a reply goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The core.
    pub core: usize,
    /// Its upstream.
    pub upstream: UpstreamId,
}

/// Parts that were refused for good, each with the reason.
type Letters = Vec<(Spooled, String)>;

/// What was refused of a record.
type Burial = (Stream, Sequence, Letters);

/// What a core wants of the spool.
#[derive(Debug)]
pub enum Command {
    /// Store this, unless the core has given it up meanwhile. The reply is [`What::Appended`].
    Append(ReplyTo, Box<Spooled>, Arc<AtomicBool>),
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
    /// The upstream has refused this part for good: keep it where somebody may look at it, and only then remove it.
    Bury {
        /// Its stream.
        stream: Stream,
        /// Its place there: it is the oldest.
        sequence: Sequence,
        /// The part, or what was refused of it, each with the upstream's status and text.
        letters: Letters,
    },
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

#[cfg(test)]
impl Handle {
    /// One of a thread that is not there: what is sent waits.
    pub(crate) fn unserved() -> (Self, Receiver<Command>) {
        let (commands, waiting) = crossbeam_channel::unbounded();
        (Self { commands }, waiting)
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

/// The work of the thread.
pub struct Worker<D: Disk> {
    commands: Receiver<Command>,
    store: Store<D>,
    dead_letters: Option<DeadLetters>,
    settings: WorkerSettings,
    deliver: Arc<Deliver>,
    metrics: Arc<Metrics>,
    /// When things were made durable last.
    synced: Instant,
    /// Whether everything is.
    is_synced: bool,
    /// Whether the disk had no room at the last write.
    is_disk_full: bool,
    log_limit: Limiter,
}

/// The commands that are done together.
#[derive(Default)]
struct Group {
    /// Where each reply goes, the stream, and whether the part was taken.
    appended: Vec<(ReplyTo, Stream, Result<Sequence, Refused>)>,
    reads: Vec<(ReplyTo, Stream, usize, usize)>,
    burials: Vec<Burial>,
    /// Whether parts are to be written.
    appends: bool,
    /// Whether removals are. They need not be durable at once: what was sent may be sent again after a crash.
    removes: bool,
}

impl<D: Disk> Worker<D> {
    /// Creates the work, and the handle that gives it something to do.
    pub fn new(
        store: Store<D>,
        dead_letters: Option<DeadLetters>,
        settings: WorkerSettings,
        deliver: Arc<Deliver>,
        metrics: Arc<Metrics>,
    ) -> (Self, Handle) {
        let (sender, commands) = crossbeam_channel::unbounded();
        metrics.spool.bytes_max.set(usize::try_from(settings.bytes_max).unwrap_or(usize::MAX));
        let worker = Self {
            commands,
            store,
            dead_letters,
            settings,
            deliver,
            metrics,
            synced: Instant::now(),
            is_synced: true,
            is_disk_full: false,
            log_limit: Limiter::default(),
        };
        worker.show();
        (worker, Handle { commands: sender })
    }

    /// Starts the thread. It ends when all handles are gone and everything that they sent is done.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(self) -> io::Result<JoinHandle<()>>
    where
        D: Send + 'static,
    {
        std::thread::Builder::new().name("spool".into()).spawn(move || self.run())
    }

    #[cfg(test)]
    pub(super) fn store(&mut self) -> &mut Store<D> {
        &mut self.store
    }

    fn run(mut self) {
        loop {
            match self.commands.recv_timeout(IDLE_INTERVAL) {
                Ok(first) => self.turn(Some(first)),
                Err(RecvTimeoutError::Timeout) => self.turn(None),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        drop(self.commit(true));
    }

    /// Whether commands wait.
    pub fn is_wanted(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Does `first` and what else has come, and then what is due now and then. Blocks for as long as the disk takes.
    pub fn turn(&mut self, first: Option<Command>) {
        self.serve(first);
        if !self.is_synced && self.synced.elapsed() >= IDLE_INTERVAL {
            drop(self.commit(true));
        }
        self.tidy();
        self.show();
    }

    /// Does what has come, and replies.
    pub(super) fn serve(&mut self, first: Option<Command>) {
        let mut group = Group::default();
        let commands = self.commands.clone();
        for command in first.into_iter().chain(commands.try_iter()).take(GROUP_MAX) {
            self.take(command, &mut group);
        }
        if group.appends || group.removes {
            let syncs = group.appends && self.settings.syncs_each_group;
            if let Err(error) = self.commit(syncs) {
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
        self.bury(group.burials);
        for (to, stream, parts_max, bytes_max) in group.reads {
            self.read(to, stream, parts_max, bytes_max);
        }
    }

    fn take(&mut self, command: Command, group: &mut Group) {
        match command {
            Command::Append(to, spooled, is_given_up) => {
                let result = match is_given_up.load(Ordering::Relaxed) {
                    true => Err(Refused::Failed(io::ErrorKind::TimedOut.into())),
                    false => self.store.append(&spooled, now_millis()),
                };
                if result.is_ok() {
                    group.appends = true;
                    self.metrics().written_bytes.add(spooled.part.elements.len() as u64);
                }
                group.appended.push((to, spooled.stream(), result));
            }
            Command::Front { to, stream, parts_max, bytes_max } => {
                group.reads.push((to, stream, parts_max, bytes_max));
            }
            Command::Remove(stream, up_to) => {
                self.store.remove(&stream, up_to);
                group.removes = true;
            }
            Command::Bury { stream, sequence, letters } => {
                group.burials.push((stream, sequence, letters));
            }
        }
    }

    fn read(&mut self, to: ReplyTo, stream: Stream, parts_max: usize, bytes_max: usize) {
        let read = self.readable_front(&stream, parts_max, bytes_max);
        if let Err(error) = &read {
            self.metrics().read_errors.add(1);
            self.complain(error, "the spool can't be read");
        }
        let totals = self.store.totals_of(&stream);
        (self.deliver)(Reply { to, what: What::Front(stream, read, totals) });
    }

    /// Passes over parts whose bytes have changed: no other try would read them, and others wait behind them.
    fn readable_front(
        &mut self,
        stream: &Stream,
        parts_max: usize,
        bytes_max: usize,
    ) -> io::Result<Vec<(Sequence, Spooled)>> {
        loop {
            let read = self.store.front(stream, None, parts_max, bytes_max);
            let is_damaged = read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData);
            if !is_damaged {
                return read;
            }
            let Some(sequence) = self.store.skip(stream) else { return read };
            self.metrics().damaged.add(1);
            tracing::error!(
                tenant = stream.tenant.as_str(),
                sequence = sequence.0,
                "a part in the spool is damaged on disk, and lost: its sender was told that it is stored"
            );
        }
    }

    /// Keeps parts that were refused for good, and removes them from the spool, unless they can't be kept.
    fn bury(&mut self, burials: Vec<Burial>) {
        if burials.is_empty() {
            return;
        }
        if let Some(dead_letters) = &self.dead_letters {
            let letters = burials.iter().flat_map(|(.., letters)| letters);
            let parts = letters.map(|(part, reason)| (part, reason.as_str()));
            if let Err(error) = dead_letters.add(parts, now_millis()) {
                self.metrics().dead_letter_errors.add(1);
                return self.complain(&error, "spool.dead_letter can't be written");
            }
        }
        for (stream, sequence, ..) in burials {
            self.store.remove(&stream, sequence);
        }
        drop(self.commit(false));
    }

    /// Logs an error of the disk, now and then.
    fn complain(&mut self, error: &io::Error, what: &'static str) {
        if let Some(suppressed) = self.log_limit.allow(what, Instant::now()) {
            tracing::error!(%error, suppressed, "{what}");
        }
    }

    fn commit(&mut self, sync: bool) -> io::Result<()> {
        let begun = Instant::now();
        let result = self.store.commit(sync);
        self.metrics().commit_seconds.observe(begun.elapsed().as_secs_f64());
        self.is_synced = sync;
        self.is_disk_full = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull);
        if sync {
            self.synced = begun;
        }
        if let Err(error) = &result {
            self.metrics().commit_errors.add(1);
            self.complain(error, "the spool can't be written: what has just come is not in it");
        }
        result
    }

    /// Gives space back, in steps, until there is something else to do; one step in any case if there is little room.
    pub(super) fn tidy(&mut self) {
        let totals = self.store.totals();
        let is_nearly_full = self.is_disk_full || totals.disk_bytes > self.settings.bytes_max / 8 * 7;
        while self.commands.is_empty() || is_nearly_full {
            match self.store.tidy() {
                Ok(true) if self.commands.is_empty() => {}
                Ok(_) => return,
                Err(error) => {
                    self.metrics().tidy_errors.add(1);
                    return self.complain(&error, "the spool can't give space back");
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
