//! The queue between the threads that log and the reader of the log.
//!
//! Design constraints:
//! - A write to standard error blocks while its reader is slow: a full pipe stops the thread that writes. So only this
//!   module's own thread writes.
//! - Lines wait in a bounded queue. If it is full, a new line is dropped and counted. Logging never waits.
//! - A line in the log marks each place where lines are missing, with their number.
//! - A panic is written directly, under the standard library's lock of standard error. So this thread writes to the
//!   descriptor and never holds that lock.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags};
use tracing::Level;

use super::format::Lines;
use crate::limits::{LOG_QUEUE_BYTES_MAX, LOG_QUEUE_LINES_MAX};

/// The sending end of the queue.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: Sender<Item>,
    counts: Arc<Counts>,
}

/// Counts that both ends update.
#[derive(Debug, Default)]
struct Counts {
    /// Lines in the queue that are not written yet.
    lines: AtomicUsize,
    /// The bytes of these lines.
    bytes: AtomicUsize,
    /// Lines that were lost.
    dropped: AtomicU64,
    /// Lost lines that the log does not mention yet.
    unreported: AtomicU64,
}

#[derive(Debug)]
enum Item {
    Line {
        line: Box<[u8]>,
        /// Lines that were dropped right before this one.
        missing: u64,
    },
    /// Requests a message once all lines before it are written.
    Flush(Sender<()>),
}

impl Queue {
    /// Starts a queue and a thread that writes its lines, which are in the format of `lines`, to `out`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(out: impl AsFd + Send + 'static, lines: Lines) -> io::Result<Self> {
        let (sender, receiver) = crossbeam_channel::bounded(LOG_QUEUE_LINES_MAX);
        let queue = Self { sender, counts: Arc::default() };
        let writer = LogWriter { out, lines, counts: Arc::clone(&queue.counts) };
        std::thread::Builder::new().name("log".into()).spawn(move || writer.write_all_of(&receiver))?;
        Ok(queue)
    }

    /// Adds a line, which includes its line break, or drops it if there is no room. Never waits.
    pub(super) fn push(&self, line: &[u8]) {
        let counts = &self.counts;
        let missing = counts.unreported.swap(0, Ordering::Relaxed);
        counts.lines.fetch_add(1, Ordering::Relaxed);
        let fits = counts.bytes.fetch_add(line.len(), Ordering::Relaxed) + line.len() <= LOG_QUEUE_BYTES_MAX;
        if !fits || self.sender.try_send(Item::Line { line: line.into(), missing }).is_err() {
            counts.written(line.len());
            counts.dropped.fetch_add(1, Ordering::Relaxed);
            counts.unreported.fetch_add(missing + 1, Ordering::Relaxed);
        }
    }

    /// Waits until all lines in the queue are written, for at most `within`. Returns whether they are.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let (done, flushed) = crossbeam_channel::bounded(1);
        self.sender.send_deadline(Item::Flush(done), until).is_ok() && flushed.recv_deadline(until).is_ok()
    }

    /// The number of lines lost because the queue was full or they could not be written.
    pub(super) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// The number of lines that are not written yet.
    pub(super) fn waiting(&self) -> usize {
        self.counts.lines.load(Ordering::Acquire)
    }
}

impl Counts {
    fn written(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.lines.fetch_sub(1, Ordering::Release);
    }
}

/// The receiving end of the queue, which writes the lines.
struct LogWriter<W> {
    out: W,
    /// The format of a line about missing lines.
    lines: Lines,
    counts: Arc<Counts>,
}

impl<W: AsFd> LogWriter<W> {
    /// Writes until all senders are gone.
    fn write_all_of(&self, receiver: &Receiver<Item>) {
        for item in receiver {
            match item {
                Item::Line { line, missing } => {
                    self.report_missing(missing);
                    self.write_line(&line);
                    if receiver.is_empty() {
                        self.report_missing(self.counts.unreported.swap(0, Ordering::Relaxed));
                    }
                    self.counts.written(line.len());
                }
                Item::Flush(done) => {
                    self.report_missing(self.counts.unreported.swap(0, Ordering::Relaxed));
                    // The caller may have stopped waiting.
                    let _ = done.try_send(());
                }
            }
        }
    }

    fn write_line(&self, line: &[u8]) {
        if write_all(&self.out, line).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            self.counts.unreported.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Marks the place where lines are missing, whatever the log's level.
    fn report_missing(&self, missing: u64) {
        if missing == 0 {
            return;
        }
        let text =
            format!("{missing} lines are missing here: the log was not read as fast as it was written");
        let line = self.lines.line(Level::WARN, &text);
        if write_all(&self.out, line.as_bytes()).is_err() {
            self.counts.unreported.fetch_add(missing, Ordering::Relaxed);
        }
    }
}

/// Writes all of `bytes`, however long it takes. It also waits on a descriptor that does not block: another process
/// that shares it, through a terminal for example, may have set that mode.
fn write_all(out: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    use rustix::io::Errno;
    while !bytes.is_empty() {
        match rustix::io::write(out, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut writable = [PollFd::new(out, PollFlags::OUT)];
                match rustix::event::poll(&mut writable, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    fn pipe() -> (io::PipeReader, io::PipeWriter) {
        io::pipe().unwrap()
    }

    fn line(n: usize) -> Vec<u8> {
        format!("{n} {}\n", "x".repeat(1_000)).into_bytes()
    }

    fn waits_for(what: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < until, "not within ten seconds");
            std::thread::yield_now();
        }
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let (reader, writer) = pipe();
        let queue = Queue::start(writer, Lines::Text).unwrap();
        (0..20).for_each(|n| queue.push(&line(n)));
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!((queue.waiting(), queue.dropped()), (0, 0));
        drop(queue);
        let lines: Vec<_> = BufReader::new(reader).split(b'\n').map(Result::unwrap).collect();
        assert_eq!(lines.len(), 20);
        assert!(lines.iter().enumerate().all(|(n, text)| [text, &b"\n"[..]].concat() == line(n)));
    }

    #[test]
    fn a_stalled_reader_blocks_no_writer_and_gaps_are_marked_in_place() {
        let (reader, writer) = pipe();
        let queue = Queue::start(writer, Lines::Text).unwrap();
        let (begun, sent) = (Instant::now(), 3 * LOG_QUEUE_LINES_MAX);
        (0..sent).for_each(|n| queue.push(&line(n)));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(!queue.flush(Duration::from_millis(50)), "the reader is stalled");
        assert!(begun.elapsed() < Duration::from_secs(6));
        let dropped = queue.dropped();
        assert!(dropped > 0 && queue.waiting() <= LOG_QUEUE_LINES_MAX + 1);
        assert!(queue.counts.bytes.load(Ordering::Relaxed) <= LOG_QUEUE_BYTES_MAX + 2_000);

        let reading =
            std::thread::spawn(|| BufReader::new(reader).lines().map(Result::unwrap).collect::<Vec<_>>());
        waits_for(|| queue.waiting() == 0);
        queue.push(&line(sent));
        assert!(queue.flush(Duration::from_secs(10)));
        drop(queue);
        let lines = reading.join().unwrap();
        // Each number is in the log, or among those reported as missing in its place.
        let (mut next, mut told) = (0, 0);
        for line in lines {
            match line.split_once(" lines are missing here") {
                Some((before, _)) => {
                    let missing: usize = before.rsplit(' ').next().unwrap().parse().unwrap();
                    (next, told) = (next + missing, told + missing);
                }
                None => {
                    assert_eq!(line.split(' ').next().unwrap(), next.to_string());
                    next += 1;
                }
            }
        }
        assert_eq!((next, told as u64), (sent + 1, dropped));
    }

    #[test]
    fn a_descriptor_that_does_not_block_loses_nothing() {
        let (reader, writer) = pipe();
        let flags = rustix::io::ioctl_fionbio(&writer, true);
        flags.unwrap();
        let queue = Queue::start(writer, Lines::Text).unwrap();
        (0..200).for_each(|n| queue.push(&line(n)));
        waits_for(|| queue.waiting() < 200);
        let reading = std::thread::spawn(|| BufReader::new(reader).lines().count());
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(queue.dropped(), 0);
        drop(queue);
        assert_eq!(reading.join().unwrap(), 200);
    }

    #[test]
    fn lines_are_counted_as_lost_after_the_reader_closed() {
        let (reader, writer) = pipe();
        drop(reader);
        let queue = Queue::start(writer, Lines::Text).unwrap();
        (0..3).for_each(|n| queue.push(&line(n)));
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!((queue.dropped(), queue.waiting()), (3, 0));
    }
}
