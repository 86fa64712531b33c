//! Profiles that are taken of the server all the time: their signals interrupt its threads wherever they are.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use loadgen::child::pause;
use loadgen::client::get;

/// How long a profile of a second may take: symbols are looked up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause after a failed try: the server may just be gone.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How a compressed profile begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Takes profiles until it is told to end.
pub(super) struct Profiles {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Of the server of the moment.
    address: Mutex<SocketAddr>,
    taken: AtomicU64,
    /// The first answer that is no profile.
    wrong: Mutex<Option<String>>,
    is_over: AtomicBool,
}

impl Profiles {
    pub(super) fn of(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            address: Mutex::new(address),
            taken: AtomicU64::new(0),
            wrong: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let profiling = Arc::clone(&shared);
        Self { shared, thread: Some(thread::spawn(move || profiling.take_all())) }
    }

    /// From now on of the server at this address.
    pub(super) fn follow(&self, address: SocketAddr) {
        *self.shared.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// So many so far.
    pub(super) fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// Ends, and returns what went wrong.
    pub(super) fn end(&mut self) -> Option<String> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            return Some("the thread that takes profiles panicked".to_owned());
        }
        let wrong = self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner).take();
        wrong.or_else(|| (self.taken() == 0).then(|| "no profile could be taken".to_owned()))
    }
}

impl Shared {
    fn take_all(&self) {
        while !self.is_over.load(Ordering::Relaxed) {
            let address = *self.address.lock().unwrap_or_else(PoisonError::into_inner);
            let url = format!("http://{address}/debug/pprof/profile?seconds=1").parse();
            let answer = url.ok().and_then(|url| get(&url, PATIENCE).ok());
            match answer {
                Some((200, body)) if body.starts_with(&GZIP) => {
                    _ = self.taken.fetch_add(1, Ordering::Relaxed)
                }
                Some((status, body)) => {
                    let text = String::from_utf8_lossy(&body).trim().to_owned();
                    let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                    wrong.get_or_insert(format!("a request for a profile got {status}: {text}"));
                }
                // Killed, or it ends.
                None => pause(AGAIN_AFTER),
            }
        }
    }
}
