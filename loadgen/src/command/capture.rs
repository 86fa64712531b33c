//! `loadgen capture`.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use loadgen::capture::{Capture, CaptureConfig, Recorded};
use loadgen::child::wait_for;

use super::text::bytes;

/// Longer than any run.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// Records until a signal, or until a bound is reached and nothing has to be sent on. False if a file could not be
/// written.
pub(crate) fn run(config: &CaptureConfig) -> anyhow::Result<bool> {
    let config = config.clone().ready()?;
    let (listen, dir) = (config.listen, config.dir.display().to_string());
    let forwards = config.forward.clone();
    let stop = super::stop_flag()?;
    let mut capture =
        Capture::start(config).with_context(|| format!("cannot record at {listen} into {dir}"))?;
    let mut out = io::stdout();
    match &forwards {
        Some(url) => writeln!(out, "records at http://{} into {dir}, and sends on to {url}", capture.addr())?,
        None => writeln!(out, "records at http://{} into {dir}, and stores nothing", capture.addr())?,
    }
    out.flush()?;
    let is_done = || stop.load(Ordering::Relaxed) || (forwards.is_none() && capture.recorded().is_over);
    wait_for(NEVER, is_done);
    capture.stop();
    let Recorded { requests, bytes: size, failure, .. } = capture.recorded();
    writeln!(out, "recorded {requests} requests, {}", bytes(size as u64))?;
    if forwards.is_some() {
        let (answered, failed) = capture.forwarded();
        writeln!(out, "sent on: {answered} were answered, {failed} were not")?;
    }
    if let Some(failure) = &failure {
        writeln!(io::stderr(), "loadgen: recording ended early: {failure}")?;
    }
    Ok(failure.is_none())
}
