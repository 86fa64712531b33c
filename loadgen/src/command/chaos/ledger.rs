//! The server's own ledger during a run: nothing may be unaccounted, and in the end nothing in flight.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loadgen::child::pause;
use serde::Deserialize;

use crate::command::server::Server;

/// How often it is read.
const EVERY: Duration = Duration::from_secs(1);

/// How long what is in flight may take to get its outcome when all senders have ended, and how long the server takes to
/// believe in a difference.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// What is read of `/api/v1/status`.
#[derive(Deserialize)]
struct Status {
    ledger: Ledger,
}

#[derive(Debug, Deserialize)]
struct Ledger {
    received: u64,
    stored: u64,
    in_flight: u64,
    unaccounted: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Auditor {
    read_at: Option<Instant>,
    /// How often it was read.
    pub(super) readings: u64,
}

impl Auditor {
    /// Reads the ledger if that is due. A server that does not answer, as it ends or begins, is asked again later.
    pub(super) fn look(&mut self, server: &Server) -> anyhow::Result<()> {
        if self.read_at.is_some_and(|at| at.elapsed() < EVERY) {
            return Ok(());
        }
        self.read_at = Some(Instant::now());
        let Ok(page) = server.page("api/v1/status") else { return Ok(()) };
        self.check(&page)
    }

    /// Waits until nothing is in flight. No request may be under way any more.
    pub(super) fn settle(&mut self, server: &Server) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let ledger = self.read(&server.page("api/v1/status")?)?;
            // Two audits of the server have passed since.
            let is_believed = begun.elapsed() > SETTLES_WITHIN / 2;
            if ledger.in_flight == 0 && is_believed {
                return Ok(());
            }
            if begun.elapsed() > SETTLES_WITHIN {
                bail!("nothing is under way, and the ledger of process {} says: {ledger:?}", server.pid());
            }
            pause(EVERY / 4);
        }
    }

    fn check(&mut self, page: &str) -> anyhow::Result<()> {
        self.read(page).map(drop)
    }

    fn read(&mut self, page: &str) -> anyhow::Result<Ledger> {
        let Status { ledger } = serde_json::from_str(page).context("/api/v1/status")?;
        self.readings += 1;
        if ledger.unaccounted > 0 {
            bail!("samples are unaccounted: {ledger:?}");
        }
        if ledger.stored > ledger.received {
            bail!("more was stored than received: {ledger:?}");
        }
        Ok(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(unaccounted: u64, stored: u64) -> String {
        format!(
            r#"{{"ledger":{{"received":10,"stored":{stored},"in_flight":1,"unaccounted":{unaccounted},"refused":{{}}}}}}"#
        )
    }

    #[test]
    fn what_is_unaccounted_fails_the_run() {
        let mut auditor = Auditor::default();
        assert!(auditor.check(&page(0, 9)).is_ok());
        assert!(auditor.check(&page(1, 9)).is_err() && auditor.check(&page(0, 11)).is_err());
        assert!(auditor.check("{}").is_err());
        assert_eq!(auditor.readings, 3);
    }
}
