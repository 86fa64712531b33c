//! Reads the configuration again, on a thread of its own: it may be on a mount that is dead, and to read it lasts for ever
//! then. Whoever waits for signals must not wait for that.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::config::ConfigMistakes;
use crate::config::plan::Plan;

/// What came of reading.
pub(super) type ReadPlan = Result<Plan, ConfigMistakes>;

/// Reads the configuration, whenever it is called.
pub trait ReadAgain: Fn() -> Result<Plan, ConfigMistakes> + Send + Sync + 'static {}

impl<F: Fn() -> Result<Plan, ConfigMistakes> + Send + Sync + 'static> ReadAgain for F {}

/// Whoever has it read: one thread at a time, so that one that hangs is not followed by others.
pub(super) struct Reader<F> {
    read_again: Arc<F>,
    sender: Sender<ReadPlan>,
    /// Where what was read comes out.
    pub(super) read: Receiver<ReadPlan>,
    /// It is being read.
    pub(super) is_reading: bool,
    /// It was asked for once more meanwhile: what is being read may be older than that.
    once_more: bool,
}

impl<F: ReadAgain> Reader<F> {
    pub(super) fn new(read_again: F) -> Self {
        let (sender, read) = crossbeam_channel::bounded(1);
        Self { read_again: Arc::new(read_again), sender, read, is_reading: false, once_more: false }
    }

    /// Has it read, or read once more when that is done.
    pub(super) fn ask(&mut self) {
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

    /// What was read has been taken.
    pub(super) fn is_done(&mut self) {
        self.is_reading = false;
        if std::mem::take(&mut self.once_more) {
            self.ask();
        }
    }
}
