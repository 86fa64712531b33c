//! Settings of the whole process: how it ends on a panic, and its memory pages.
#![forbid(unsafe_code)]

use crate::limits::LOG_FLUSH_MILLIS;
use crate::log;

/// A panic on a core's thread would end that core alone, and with it whatever is at home there, silently. Better the
/// whole process ends, and the service manager starts another. What the panic says goes to standard error directly: the
/// log might be what broke. A reader that stalls must not keep a broken process from its end.
pub(super) fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log::flush();
        // Without this thread, a report that nobody reads would last for ever; no worse than that.
        let _ = std::thread::Builder::new().name("abort".into()).spawn(abort_soon);
        report(panic);
        std::process::abort();
    }));
}

#[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do")]
fn abort_soon() {
    std::thread::sleep(std::time::Duration::from_millis(LOG_FLUSH_MILLIS));
    std::process::abort();
}

/// With transparent huge pages a server that is given a few kilobytes holds 2 MiB, which the kernel has cleared; that is
/// twice the memory, and no less CPU. It still runs where the kernel knows no such thing.
pub(super) fn disable_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("cannot do without transparent huge pages: {error}");
    }
}
