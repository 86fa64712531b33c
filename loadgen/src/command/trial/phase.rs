//! Latencies and refusals of one phase of a trial, and of the phases in which all is well.

use loadgen::compare::Spread;
use loadgen::send::{Outcome, Percentiles};

/// A request takes so many times as long as usual, at its p99.
const RATIO_MAX: f64 = 2.0;

/// What senders saw in a phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Requests that were not acknowledged.
    pub(super) refused: u64,
}

impl Phase {
    pub(super) fn new(outcome: &Outcome) -> Self {
        let Percentiles { p50, p99, .. } = Percentiles::new(&outcome.latency);
        Self { p50_ms: p50, p99_ms: p99, refused: outcome.failed() }.of(outcome.requests)
    }

    /// A refusal is quick, and yet no answer: where more than a hundredth is refused, p99 is a time that never comes.
    pub(super) fn of(self, requests: u64) -> Self {
        let unless = |times: u64, ms: f64| if self.refused * times > requests { f64::INFINITY } else { ms };
        Self { p50_ms: unless(2, self.p50_ms), p99_ms: unless(100, self.p99_ms), ..self }
    }
}

/// What is usual.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usual {
    pub(super) p50_ms: Spread,
    pub(super) p99_ms: Spread,
    pub(super) refused: u64,
}

impl Usual {
    pub(super) fn new(phases: &[Phase]) -> anyhow::Result<Self> {
        Ok(Self {
            p50_ms: spread(phases.iter().map(|phase| phase.p50_ms))?,
            p99_ms: spread(phases.iter().map(|phase| phase.p99_ms))?,
            refused: phases.iter().map(|phase| phase.refused).sum(),
        })
    }

    /// Whether a phase is as usual, or no worse than the machine's own wavering.
    pub(super) fn holds_for(&self, phase: &Phase) -> bool {
        phase.p99_ms <= (self.p99_ms.median * RATIO_MAX).max(self.p99_ms.max)
    }
}

/// The spread over phases.
pub(super) fn spread(figures: impl Iterator<Item = f64>) -> anyhow::Result<Spread> {
    Spread::new(figures).ok_or_else(|| anyhow::anyhow!("no phase was measured"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(p99_ms: f64, refused: u64) -> Phase {
        Phase { p50_ms: 6.0, p99_ms, refused }
    }

    #[test]
    fn refusals_are_no_quick_answers() {
        let never = f64::INFINITY;
        let times = |refused| {
            let Phase { p50_ms, p99_ms, .. } = phase(8.0, refused).of(1000);
            (p50_ms, p99_ms)
        };
        assert_eq!([0, 10].map(times), [(6.0, 8.0); 2]);
        assert_eq!([11, 501].map(times), [(6.0, never), (never, never)]);
    }

    #[test]
    fn on_a_steady_machine_twice_the_usual_is_the_bound() {
        let usual = Usual::new(&[phase(10.0, 0), phase(10.0, 0), phase(11.0, 0)]).unwrap();
        assert!(usual.holds_for(&phase(20.0, 0)) && !usual.holds_for(&phase(20.1, 0)));
    }
}
