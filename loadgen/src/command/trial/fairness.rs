//! Whether equal tenants get equal shares when connections to the upstream are few.
//!
//! Each tenant has three senders of its own, and each sends its next request when the last is answered: so every
//! tenant always has more to send, and the upstream, which takes 30 ms, has fewer connections than there are tenants.
//!
//! What is compared is how many requests of each tenant were *answered* with 2xx, not how many upstream requests it
//! got. Upstream requests hold what was merged: a tenant that got each turn with one part in it, while others got
//! theirs with three, would look served and have a third of what the others have. Answers are what a tenant has of its
//! turns.
//!
//! A tenant that waits for its turn gets it once a *round*: tenants × 30 ms ÷ connections. A cell lasts four rounds at
//! least, so that a turn more or less at the edges of the time is no factor of two; and the server's `timeout` is four
//! rounds, too, and 2 s at least: a request that waits for longer is passed over, and gets 503.
//!
//! A tenant's senders are out of step, as real ones are: connections are open before anything counts, and the senders
//! begin one after the other. Else all of a tenant's requests wait together for a connection to open, leave as one, are
//! answered at once, and go on so: then a lane is empty whenever its connection comes free, which hides that it would
//! have kept it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use loadgen::child::pause;
use loadgen::fleet::{Fleet, numbered_tenants};
use loadgen::send::Outcome;
use loadgen::sink::{Arrival, Reply};

use super::{conclude, fleets, raise_limit, rig};
use crate::command::args::{FairnessArgs, TrialArgs};
use crate::command::rig::{Rig, send_all};
use crate::command::text::ratio;

const SENDERS_EACH: usize = 3;
const SERIES: usize = 20;

/// How long the upstream takes.
const ANSWER: Duration = Duration::from_millis(30);

/// Rounds that a cell lasts, and that the server lets a request wait.
const ROUNDS: f64 = 4.0;

/// The server's `timeout` where rounds are short.
const TIMEOUT_MIN: Duration = Duration::from_secs(2);

/// The busiest tenant gets so many times what the idlest gets, at most.
const RATIO_MAX: f64 = 2.0;

pub(super) fn run(args: &TrialArgs, trial: &FairnessArgs) -> anyhow::Result<bool> {
    raise_limit();
    let mut out = io::stdout();
    writeln!(
        out,
        "equal tenants of {SENDERS_EACH} senders each; the upstream takes {} ms\n\n\
         tenants  connections  cores  seconds  {:>24}  ratio  refused",
        ANSWER.as_millis(),
        "answers: least, median, most",
    )?;
    let mut holds = true;
    for &cores in &trial.cores {
        for &connections in &trial.connections {
            for &tenants in &trial.tenants {
                let cell = Cell { tenants: usize::from(tenants), connections, cores };
                let shares = cell.measure(args, Duration::from_secs_f64(trial.seconds))?;
                holds &= shares.hold();
                writeln!(out, "{shares}")?;
            }
        }
    }
    conclude(&[(
        holds,
        "no tenant is refused, and the busiest gets at most twice what the idlest of equal ones gets",
    )])
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Cell {
    tenants: usize,
    connections: u16,
    cores: u16,
}

impl Cell {
    /// From one turn of a tenant to its next, where all have theirs.
    fn round(self) -> Duration {
        ANSWER.mul_f64((self.tenants as f64 / f64::from(self.connections)).max(1.0))
    }

    fn measure(self, args: &TrialArgs, at_least: Duration) -> anyhow::Result<Shares> {
        let rounds = self.round().mul_f64(ROUNDS);
        let settings = format!(
            "cores: {}\nmax_conns_per_host: {}\ntimeout: {}ms\nconcurrency: {}\nlimits:\n  tenant_share_percent: 100\n",
            self.cores,
            self.connections,
            rounds.max(TIMEOUT_MIN).as_millis(),
            // All senders at once, and room.
            self.tenants * SENDERS_EACH * 2,
        );
        let slow = |_: &Arrival<'_>| Reply::default().after(ANSWER);
        let rig = rig(args, &settings, Some(Arc::new(slow)))?;
        let fleets = (0..SENDERS_EACH as u64)
            .map(|nth| fleets(&numbered_tenants(self.tenants), 1, 1, SERIES, nth << 32))
            .collect::<anyhow::Result<Vec<Fleet>>>()?;
        self.open_connections(&rig)?;
        let config = rig.sending(at_least.max(rounds))?;
        let outcomes: Vec<Outcome> = thread::scope(|scope| {
            let mut runs = Vec::new();
            for fleet in &fleets {
                let config = &config;
                runs.push(scope.spawn(move || send_all(fleet, config)));
                pause(ANSWER / 3);
            }
            let outcome = |run: thread::ScopedJoinHandle<'_, anyhow::Result<Outcome>>| {
                run.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?
            };
            runs.into_iter().map(outcome).collect::<anyhow::Result<_>>()
        })?;
        rig.server.stop()?;
        Ok(Shares::new(self, &outcomes))
    }

    /// Has tenants send that take no part afterwards, one for each connection.
    fn open_connections(self, rig: &Rig) -> anyhow::Result<()> {
        let tenants: Vec<_> = (0..self.connections).map(|number| (format!("opens-{number}"), 1)).collect();
        let fleet = fleets(&tenants, 1, 1, SERIES, u64::MAX / 2)?;
        send_all(&fleet, &rig.sending(ANSWER * 5)?).map(drop)
    }
}

/// What each tenant got.
#[derive(Debug)]
struct Shares {
    cell: Cell,
    elapsed: Duration,
    least: u64,
    median: u64,
    most: u64,
    /// Attempts that were not answered with 2xx, and what the first of them heard.
    refused: u64,
    complaint: Option<String>,
}

impl Shares {
    fn new(cell: Cell, outcomes: &[Outcome]) -> Self {
        let mut tenants: BTreeMap<&str, u64> = BTreeMap::new();
        for (tenant, entry) in outcomes.iter().flat_map(|outcome| &outcome.ledger) {
            // Each request holds its tenant's series and nothing else.
            *tenants.entry(tenant).or_default() += entry.acknowledged.series / SERIES as u64;
        }
        let mut answers: Vec<u64> = tenants.into_values().collect();
        answers.sort_unstable();
        let mut complaints = outcomes.iter().flat_map(|outcome| &outcome.complaints);
        Self {
            cell,
            elapsed: outcomes.iter().map(|outcome| outcome.elapsed).max().unwrap_or_default(),
            least: answers.first().copied().unwrap_or_default(),
            median: answers.get(answers.len() / 2).copied().unwrap_or_default(),
            most: answers.last().copied().unwrap_or_default(),
            refused: outcomes.iter().map(Outcome::failed).sum(),
            complaint: complaints.next().map(|(status, text)| format!("{status}: {text}")),
        }
    }

    fn ratio(&self) -> f64 {
        if self.least == 0 { f64::INFINITY } else { ratio(self.most, self.least) }
    }

    fn hold(&self) -> bool {
        self.refused == 0 && self.ratio() <= RATIO_MAX
    }
}

impl std::fmt::Display for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cell, elapsed, least, median, most, refused, complaint } = self;
        let answers = format!("{least}, {median}, {most}");
        write!(
            f,
            "{:7}  {:11}  {:5}  {:7.1}  {answers:>28}  {:5.2}  {refused:7}",
            cell.tenants,
            cell.connections,
            cell.cores,
            elapsed.as_secs_f64(),
            self.ratio(),
        )?;
        complaint.as_ref().map_or(Ok(()), |complaint| write!(f, "  {complaint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: Cell = Cell { tenants: 500, connections: 4, cores: 1 };

    fn shares(least: u64, most: u64, refused: u64) -> Shares {
        let elapsed = Duration::from_secs(6);
        Shares { cell: CELL, elapsed, least, median: least, most, refused, complaint: None }
    }

    #[test]
    fn a_share_is_half_of_the_largest_at_least_and_nobody_is_refused() {
        assert!(shares(100, 200, 0).hold() && shares(7, 7, 0).hold());
        assert!(!shares(100, 201, 0).hold(), "more than twice as much");
        assert!(!shares(3, 280, 0).hold() && !shares(0, 280, 0).hold(), "starved");
        assert!(!shares(100, 100, 1).hold(), "refused");
        assert!(!shares(0, 0, 0).hold(), "nobody got anything");
    }

    #[test]
    fn a_round_is_every_tenants_turn() {
        assert_eq!(CELL.round(), Duration::from_millis(3750));
        let few = Cell { tenants: 5, connections: 64, cores: 1 };
        assert_eq!(few.round(), ANSWER, "who need not wait has a turn after the other");
    }
}
