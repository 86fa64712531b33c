//! Signals in, notices to the service manager out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::Receiver;
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXFSZ,
};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

/// What would end the process unless somebody cared, and means nothing here: somebody's slip, or a tool that believes
/// that we know it. (SIGPIPE is ignored by Rust's runtime; SIGQUIT stays what it is, a way to have a core dumped.)
const MEANINGLESS: [i32; 9] =
    [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXFSZ, libc::SIGPWR, libc::SIGSTKFLT];

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM or SIGINT: go away, in order.
    Leave,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Listens to signals from now on. The first SIGTERM or SIGINT is a wish; the second ends the process at once,
/// from within its handler, whatever the process is at. Signals that mean nothing are logged at `info`, and end nothing.
///
/// # Errors
/// When no handler or thread can be had.
pub fn listen() -> io::Result<Receiver<Wish>> {
    let leaving = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the handler that ends the process looks at the flag before the other one sets it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&leaving))?;
        flag::register(signal, Arc::clone(&leaving))?;
    }
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP].into_iter().chain(MEANINGLESS).chain(real_time))?;
    let (sender, wishes) = crossbeam_channel::bounded(4);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            // Who waits to reload anyway need not be told again; who is to leave must hear it, whatever waits before it.
            match signal {
                SIGHUP => _ = sender.try_send(Wish::Reload),
                SIGTERM | SIGINT => _ = sender.send(Wish::Leave),
                other => {
                    let name = signal_name(other).unwrap_or("a real-time signal");
                    tracing::info!(number = other, "{name} means nothing here");
                }
            }
        }
    })?;
    Ok(wishes)
}

/// Tells systemd that requests are taken, if it is systemd that started us.
pub fn notify_ready() {
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Tells systemd that the configuration is read again; [`notify_ready`] tells that it is over.
pub fn notify_reloading() {
    // What `Type=notify-reload` asks for besides: when it began.
    match sd_notify::NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[sd_notify::NotifyState::Reloading, now]),
        Err(_) => notify(&[sd_notify::NotifyState::Reloading]),
    }
}

/// Tells systemd that we are going away.
pub fn notify_stopping() {
    notify(&[sd_notify::NotifyState::Stopping]);
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "can't notify the service manager");
    }
}
