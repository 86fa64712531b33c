//! Reads the configuration again on a thread of its own. On a dead mount, reading never returns, and the thread that
//! waits for signals must not block on it.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::config::ConfigMistakes;
use crate::config::plan::Plan;

/// The result of reading the configuration.
pub(super) type ReadPlan = Result<Plan, ConfigMistakes>;

/// A function that reads the configuration on each call.
pub trait ReadAgain: Fn() -> Result<Plan, ConfigMistakes> + Send + Sync + 'static {}

impl<F: Fn() -> Result<Plan, ConfigMistakes> + Send + Sync + 'static> ReadAgain for F {}

/// Starts the threads that read: one at a time, so that threads do not pile up behind one that hangs.
pub(super) struct Reader<F> {
    read_again: Arc<F>,
    sender: Sender<ReadPlan>,
    /// Receives the results.
    pub(super) read: Receiver<ReadPlan>,
    /// Whether a thread is reading.
    pub(super) is_reading: bool,
    /// Another reload was requested meanwhile. The text being read may be older than that request.
    once_more: bool,
}

impl<F: ReadAgain> Reader<F> {
    pub(super) fn new(read_again: F) -> Self {
        let (sender, read) = crossbeam_channel::bounded(1);
        Self { read_again: Arc::new(read_again), sender, read, is_reading: false, once_more: false }
    }

    /// Starts reading, or reads once more after the current thread is done.
    pub(super) fn request(&mut self) {
        if self.is_reading {
            tracing::warn!("the configuration is still being read; it will be read once more after that");
            self.once_more = true;
            return;
        }
        let (read_again, sender) = (Arc::clone(&self.read_again), self.sender.clone());
        let read = move || drop(sender.send(read_again()));
        match std::thread::Builder::new().name("reload".into()).spawn(read) {
            Ok(_) => self.is_reading = true,
            Err(error) => {
                tracing::error!(%error, "the configuration can't be read again: there is no thread")
            }
        }
    }

    /// Records that the result was received, and starts reading once more if that was requested.
    pub(super) fn finished(&mut self) {
        self.is_reading = false;
        if std::mem::take(&mut self.once_more) {
            self.request();
        }
    }
}
