//! Process-wide setup: the panic hook and memory pages.
#![forbid(unsafe_code)]

use crate::limits::LOG_FLUSH_MILLIS;
use crate::log;

/// Makes a panic abort the process. Otherwise a panic would silently end one core's thread and lose all work of that
/// core. After an abort, the service manager starts a new process.
///
/// The panic message goes directly to standard error, because the log itself may be what failed. A stalled reader of
/// standard error must not keep a broken process alive.
pub(super) fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log::flush();
        // If this thread cannot start, a stalled reader can block the report, but nothing worse happens.
        let _ = std::thread::Builder::new().name("abort".into()).spawn(abort_soon);
        log::begin_line(tracing::Level::ERROR);
        report(panic);
        std::process::abort();
    }));
}

#[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do")]
fn abort_soon() {
    std::thread::sleep(std::time::Duration::from_millis(LOG_FLUSH_MILLIS));
    std::process::abort();
}

/// Disables transparent huge pages. With them, an allocation of a few kilobytes takes 2 MiB, which the kernel has to
/// clear. That doubles the memory and saves no CPU. Kernels without this option are fine.
pub(super) fn disable_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("cannot do without transparent huge pages: {error}");
    }
}
