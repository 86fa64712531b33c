//! The figures that are printed and drawn, computed from rounds.

use super::results::{Entrant, Round, ScenarioResults, Showing};

/// A figure that every round has.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// A name for files and anchors.
    pub key: &'static str,
    /// What a reader calls it.
    pub title: &'static str,
    /// What it counts; empty for a plain number.
    pub unit: &'static str,
    /// Whether less of it is better.
    pub less_is_better: bool,
    of: fn(&Round) -> f64,
}

impl Measure {
    /// Requests, by the time until the last of them was delivered.
    pub const REQUESTS: Self =
        more("requests", "requests", "1/s", |round| per(round.requests, round.delivered_seconds));
    /// CPU time by requests.
    pub const CPU_PER_REQUEST: Self = less("cpu-per-request", "CPU per request", "ms", |round| {
        quotient(round.cpu_seconds * 1e3, float(round.requests))
    });
    /// Latency of 99 % of the answers.
    pub const P99: Self = less("p99", "latency p99", "ms", |round| round.latency_ms.p99);
    /// Resident memory, at most.
    pub const RESIDENT: Self =
        less("peak-rss", "peak RSS", "MB", |round| float(round.resident_bytes_peak) / 1e6);

    /// All of them, in the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::REQUESTS,
        more("samples", "samples", "1/s", |round| per(round.samples, round.delivered_seconds)),
        Self::CPU_PER_REQUEST,
        less("cpu-per-million-samples", "CPU per million samples", "s", |round| {
            quotient(round.cpu_seconds * 1e6, float(round.samples))
        }),
        less("p50", "latency p50", "ms", |round| round.latency_ms.p50),
        Self::P99,
        less("p99-9", "latency p99.9", "ms", |round| round.latency_ms.p99_9),
        Self::RESIDENT,
        less("fan-out", "upstream requests per request", "", |round| {
            quotient(float(round.upstream_requests), float(round.requests))
        }),
    ];

    /// Those whose ratio to the first contender is shown.
    pub const RATIOS: [Self; 4] = [Self::CPU_PER_REQUEST, Self::REQUESTS, Self::P99, Self::RESIDENT];

    /// The figure of one round.
    pub fn of(&self, round: &Round) -> f64 {
        (self.of)(round)
    }

    /// The figure over all rounds of a showing; None if it failed.
    pub fn spread(&self, showing: &Showing) -> Option<Spread> {
        Spread::new(showing.rounds().iter().map(|round| self.of(round)))
    }

    /// How often the first contender's figure goes into that of contender `index`, round by round; None if either
    /// failed.
    pub fn ratio(&self, results: &ScenarioResults, index: usize) -> Option<Spread> {
        let (first, other) = (results.showings.first()?.rounds(), results.showings.get(index)?.rounds());
        Spread::new(first.iter().zip(other).map(|(first, other)| quotient(self.of(other), self.of(first))))
    }

    /// The CPU time of contender `index` by that of the same contender without TLS and of rustls alone together; None
    /// if either failed, or it has no such contender.
    pub fn tls(contenders: &[Entrant], showings: &[Showing], index: usize) -> Option<Spread> {
        let name = contenders.get(index)?.plain.as_ref()?;
        let plain = contenders.iter().position(|contender| contender.name == *name)?;
        let rounds = showings.get(index)?.rounds().iter().zip(showings.get(plain)?.rounds());
        let cpu = |round: &Round| Self::CPU_PER_REQUEST.of(round);
        let alone = |round: &Round| quotient(round.tls_seconds * 1e3, float(round.requests));
        Spread::new(rounds.map(|(tls, plain)| quotient(cpu(tls), cpu(plain) + alone(tls))))
    }

    /// Title and unit.
    pub fn heading(&self) -> String {
        match self.unit {
            "" => self.title.to_owned(),
            "1/s" => format!("{}/s", self.title),
            unit => format!("{}, {unit}", self.title),
        }
    }

    /// Contenders whose figure is the best of a scenario; none if all failed.
    pub fn best(&self, results: &ScenarioResults) -> Option<usize> {
        let figure = |(index, showing)| self.spread(showing).map(|spread| (index, spread.median));
        let better = |a: f64, b: f64| if self.less_is_better { a.total_cmp(&b) } else { b.total_cmp(&a) };
        let figures = results.showings.iter().enumerate().filter_map(figure);
        figures.min_by(|a, b| better(a.1, b.1)).map(|(index, _)| index)
    }
}

/// A figure over several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The one in the middle; between two of them, their mean.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// The spread of `figures`; None of none.
    pub fn new(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

const fn less(key: &'static str, title: &'static str, unit: &'static str, of: fn(&Round) -> f64) -> Measure {
    Measure { key, title, unit, less_is_better: true, of }
}

const fn more(key: &'static str, title: &'static str, unit: &'static str, of: fn(&Round) -> f64) -> Measure {
    Measure { less_is_better: false, ..less(key, title, unit, of) }
}

fn per(count: u64, seconds: f64) -> f64 {
    quotient(float(count), seconds)
}

/// 0 of nothing: such a round has failed, and is never shown.
fn quotient(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::{Failure, FailureKind};
    use crate::compare::{Acknowledges, Scenario};
    use crate::fleet::Format;
    use crate::send::Percentiles;

    fn round(requests: u64, cpu_seconds: f64) -> Round {
        Round {
            seconds: 2.0,
            delivered_seconds: 4.0,
            requests,
            samples: requests * 100,
            tenant_parts: requests * 3,
            body_bytes: requests * 1000,
            upstream_requests: requests * 2,
            cpu_seconds,
            tls_seconds: 0.5,
            resident_bytes_peak: 50_000_000,
            latency_ms: Percentiles { p50: 1.0, p99: 2.0, p99_9: 3.0, max: 4.0 },
        }
    }

    fn results() -> ScenarioResults {
        let scenario = Scenario {
            tenants: 1,
            series: 100,
            senders: 8,
            labels: 9,
            format: Format::default(),
            run_length: 20,
            upstream_latency_ms: 0,
            rate: 0,
            seconds: 2.0,
            warm_up_seconds: 1.0,
            rounds: 3,
        };
        let failure = Failure { kind: FailureKind::Ends, reason: "gone".to_owned() };
        ScenarioResults {
            scenario,
            showings: vec![
                Showing::Measured(vec![round(1000, 1.0), round(1000, 2.0), round(1000, 4.0)]),
                Showing::Measured(vec![round(1000, 4.0), round(1000, 2.0), round(1000, 2.0)]),
                Showing::Failed(failure),
            ],
        }
    }

    #[test]
    fn figures_of_a_round() {
        let round = round(1000, 2.0);
        let figures = Measure::ALL.map(|measure| measure.of(&round));
        assert_eq!(figures, [250.0, 25_000.0, 2.0, 20.0, 1.0, 2.0, 3.0, 50.0, 2.0]);
    }

    #[test]
    fn ratios_pair_the_rounds() {
        let results = results();
        let ratio = Measure::CPU_PER_REQUEST.ratio(&results, 1).unwrap();
        assert_eq!(ratio, Spread { median: 1.0, min: 0.5, max: 4.0 });
        assert_eq!(Measure::CPU_PER_REQUEST.ratio(&results, 2), None);
        let spread = Measure::CPU_PER_REQUEST.spread(&results.showings[0]).unwrap();
        assert_eq!(spread, Spread { median: 2.0, min: 1.0, max: 4.0 });
    }

    #[test]
    fn what_tls_costs_is_held_against_the_same_contender_and_rustls() {
        let entrant = |name: &str, plain: Option<&str>| Entrant {
            name: name.to_owned(),
            note: String::new(),
            version: None,
            splits: true,
            acknowledges: Acknowledges::AfterDelivery,
            plain: plain.map(str::to_owned),
        };
        let contenders = [entrant("a", None), entrant("b", Some("a")), entrant("c", Some("a"))];
        let tls = |index| Measure::tls(&contenders, &results().showings, index);
        // 4 to 1 and 0.5, 2 to 2 and 0.5, 2 to 4 and 0.5.
        assert_eq!(tls(1).unwrap().median, 0.8);
        assert_eq!((tls(0), tls(2)), (None, None), "no TLS, and failed");
    }

    #[test]
    fn the_best_is_the_least_or_the_most_and_never_one_that_failed() {
        let mut results = results();
        results.showings[1] = Showing::Measured(vec![round(3000, 3.0)]);
        assert_eq!(Measure::CPU_PER_REQUEST.best(&results), Some(1));
        assert_eq!(Measure::REQUESTS.best(&results), Some(1));
        results.showings.drain(..2);
        assert_eq!(Measure::REQUESTS.best(&results), None);
    }

    #[test]
    fn an_even_number_of_rounds_has_a_median_between_two() {
        assert_eq!(Spread::new([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::new([]), None);
    }
}
