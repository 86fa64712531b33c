//! Signals.

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

/// Signals that have no meaning here but would end the process by default. They come from an operator's slip, or from a
/// tool that expects them to be known. (Rust's runtime ignores SIGPIPE. SIGQUIT keeps its default and dumps core.)
const MEANINGLESS: [i32; 9] =
    [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXFSZ, libc::SIGPWR, libc::SIGSTKFLT];

/// What a signal asks the supervisor to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// SIGTERM or SIGINT: shut down in order.
    Shutdown,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Installs the signal handlers. The first SIGTERM or SIGINT is sent as a command. The second ends the process at once,
/// from within its handler, whatever the process is doing. Signals without a meaning are logged at `info` and end
/// nothing.
///
/// # Errors
/// When a handler or the thread cannot be installed.
pub fn listen() -> io::Result<Receiver<Command>> {
    let leaving = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The order matters: the handler that ends the process must read the flag before the other one sets it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&leaving))?;
        flag::register(signal, Arc::clone(&leaving))?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP].into_iter().chain(MEANINGLESS))?;
    for real_time in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // Valgrind keeps the last one for itself.
        let _ = signals.add_signal(real_time);
    }
    let (sender, commands) = crossbeam_channel::bounded(4);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            // A reload may be lost if the channel is full, as one is pending then. A shutdown must always be delivered.
            match signal {
                SIGHUP => _ = sender.try_send(Command::Reload),
                SIGTERM | SIGINT => _ = sender.send(Command::Shutdown),
                other => {
                    let name = signal_name(other).unwrap_or("a real-time signal");
                    tracing::info!(number = other, "{name} means nothing here");
                }
            }
        }
    })?;
    Ok(commands)
}
