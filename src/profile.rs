//! CPU profiles of the running process, as Go's users take them: `go tool pprof` reads them, or a browser as a flame
//! graph.
//!
//! Design constraints:
//! - A profile must harm nothing. perf_event_open(2) would not even need a signal, but containers, seccomp and
//!   `perf_event_paranoid` forbid it nearly everywhere. The crate `pprof` needs a folder for temporary files, which the
//!   image has not, and its walk over frame pointers checks an address and reads it afterwards, when another thread may
//!   have unmapped it. So the sampler is our own (module `sampler`): a CPU timer for each thread, and a handler that
//!   reads nothing but the registers and the stack of its own thread.
//! - The handler may interrupt any instruction: the allocator, a lock, the ring. It allocates nothing, locks nothing,
//!   and changes no errno. Frame pointers make that possible (`.cargo/config.toml`); unwinding by tables would not be
//!   safe there. Code without frame pointers, such as libc and mimalloc, hides the function that called it.
//! - Symbols take a second of CPU time and tens of megabytes. They are looked up when the samples have been taken, on
//!   the thread of the profile, which is niced, and are freed afterwards.
//! - One profile at a time. A client that leaves ends it.
//!
//! A thread is sampled by the CPU time that it uses: one that sleeps is not interrupted.

mod allocator;
mod encode;
mod failure;
mod flame;
mod sampler;
mod stacks;
mod symbols;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub use self::allocator::allocator;
pub use self::failure::Failure;
use self::sampler::Sampler;
use self::stacks::{Profile, Stacks};
use crate::limits::{PROFILE_DRAIN_MILLIS, PROFILE_HERTZ, PROFILE_NICE};

/// What a profile is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The protobuf of `go tool pprof`, compressed by gzip.
    Pprof,
    /// A flame graph.
    Svg,
}

/// Whether a profile is being taken.
static IS_RUNNING: AtomicBool = AtomicBool::new(false);

/// The right to take a profile.
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    /// Takes the turn; `None` while a profile is being taken.
    pub fn take() -> Option<Self> {
        // Not `then_some`: a turn that is made and dropped would end the other one.
        (!IS_RUNNING.swap(true, Ordering::AcqRel)).then(|| Self(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        IS_RUNNING.store(false, Ordering::Release);
    }
}

/// Takes a profile of `length` on this thread, which should be one of its own: it is niced. Ends when `is_cancelled`.
///
/// # Errors
/// See [`Failure`].
pub fn take(
    turn: Turn,
    length: Duration,
    format: Format,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, Failure> {
    // Only this thread. A system that refuses it is no reason against a profile.
    let _ = rustix::process::setpriority_process(None, PROFILE_NICE);
    let profile = sample(length, is_cancelled)?;
    let symbols = symbols::resolve(&profile.stacks, is_cancelled)?;
    let written = match format {
        Format::Pprof => encode::gzipped(&profile, &symbols),
        Format::Svg => flame::graph(&profile, &symbols),
    };
    drop(turn);
    written.map_err(Failure::Write)
}

#[expect(clippy::disallowed_methods, reason = "this is a thread of its own")]
fn sample(length: Duration, is_cancelled: &dyn Fn() -> bool) -> Result<Profile, Failure> {
    let (began, start) = (SystemTime::now(), Instant::now());
    let mut stacks = Stacks::default();
    let mut sampler = Sampler::start(PROFILE_HERTZ).map_err(Failure::Refused)?;
    while let Some(left) = length.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::sleep(left.min(Duration::from_millis(PROFILE_DRAIN_MILLIS)));
        if is_cancelled() {
            return Err(Failure::Cancelled);
        }
        sampler.drain(|thread, frames| stacks.add(thread, frames));
        sampler.watch_new_threads();
    }
    stacks.lost = sampler.stop(|thread, frames| stacks.add(thread, frames));
    Ok(Profile { began, took: start.elapsed(), stacks })
}

#[cfg(test)]
mod tests;
