//! What the bodies look like, as it is typed.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use loadgen::fleet::{Distribution, FleetConfig, Format};

use super::{Tenants, tenants};

/// What the bodies look like.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is sent")]
pub(crate) struct FleetArgs {
    /// Senders, each with a connection of its own and one request in flight
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) senders: u16,
    /// How bodies are written
    #[arg(long, default_value_t, value_parser = format())]
    pub(crate) format: Format,
    /// Series in a request
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) series: u32,
    /// Labels of a series; at least 6 with --ha-pairs
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(4..))]
    pub(crate) labels: u16,
    /// Samples of a series in one request; more than 1 as from an agent that catches up
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) samples: u16,
    /// Share of the series whose pod is new in each further body
    ///
    /// At 1, each body is of targets of its own. Below it a sender keeps its targets and their tenants, and a share of
    /// their pods is replaced, as in a rollout.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share)]
    pub(crate) churn: f64,
    /// Share of the series that are native histograms instead of floats
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) histograms: f64,
    /// Share of the series that carry an exemplar with a trace ID
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) exemplars: f64,
    /// Senders are pairs: two Prometheus with the same targets, told apart by `__replica__`
    #[arg(long)]
    pub(crate) ha_pairs: bool,
    /// Every Nth request of a sender is metadata only; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) metadata_every: u32,
    /// Tenants: a number, or names with weights as in `payments:5,search:2`
    #[arg(long, default_value = "10", value_parser = tenants)]
    pub(crate) tenants: Tenants,
    /// How series are spread over tenants: uniform, zipf[:EXPONENT], one-giant[:SHARE]
    ///
    /// uniform: by the tenants' weights, which are equal unless given. zipf: the larger the rank the fewer, with exponent 1
    /// unless given. one-giant: the first has the share, 0.9 unless given, and the others have the rest.
    #[arg(long, value_name = "HOW", default_value = "uniform", value_parser = distribution)]
    pub(crate) distribution: Distribution,
    /// Consecutive series that share a tenant
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) run_length: u32,
    /// Name of the tenant's label
    #[arg(long, value_name = "NAME", default_value = "__tenant__")]
    pub(crate) tenant_label: String,
    /// Different bodies of each sender, which it sends in turn
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) bodies: u16,
    /// Same seed and timestamp, same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// When the first samples were taken, in milliseconds since the epoch; now, if not given
    #[arg(long, value_name = "MS")]
    pub(crate) timestamp: Option<i64>,
}

impl FleetArgs {
    pub(crate) fn config(&self, now_ms: i64) -> FleetConfig {
        FleetConfig {
            seed: self.seed,
            format: self.format,
            senders: usize::from(self.senders),
            bodies_per_sender: usize::from(self.bodies),
            series: usize::try_from(self.series).unwrap_or(usize::MAX),
            labels: usize::from(self.labels),
            samples: usize::from(self.samples),
            churn: self.churn,
            tenants: self.tenants.0.clone(),
            distribution: self.distribution,
            run_length: usize::try_from(self.run_length).unwrap_or(usize::MAX),
            tenant_label: self.tenant_label.clone(),
            histograms: self.histograms,
            exemplars: self.exemplars,
            ha_pairs: self.ha_pairs,
            metadata_every: self.metadata_every,
            timestamp_ms: self.timestamp.unwrap_or(now_ms),
        }
    }
}

/// Takes the name of a format; the help lists them all.
fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.iter().map(|format| format.name()))
        .try_map(|name| name.parse::<Format>())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("`{text}` is no share from 0 to 1"))
}

fn distribution(text: &str) -> Result<Distribution, String> {
    /// The usual exponent, and a tenant as large as all the others together nine times over.
    const EXPONENT: f64 = 1.0;
    const GIANT_SHARE: f64 = 0.9;
    let (kind, number) = text.split_once(':').map_or((text, None), |(kind, number)| (kind, Some(number)));
    match (kind, number) {
        ("uniform", None) => Ok(Distribution::Weighted),
        ("zipf", number) => {
            let exponent = number.map_or(Some(EXPONENT), |number| number.parse().ok());
            let exponent = exponent.filter(|exponent| (0.0..=10.0).contains(exponent));
            let exponent = exponent.ok_or_else(|| format!("`{text}`: an exponent is from 0 to 10"))?;
            Ok(Distribution::Zipf { exponent })
        }
        ("one-giant", number) => Ok(Distribution::OneGiant { share: number.map_or(Ok(GIANT_SHARE), share)? }),
        _ => Err(format!("`{text}` is none of uniform, zipf, zipf:EXPONENT, one-giant and one-giant:SHARE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions() {
        assert_eq!(distribution("uniform"), Ok(Distribution::Weighted));
        assert_eq!(distribution("zipf"), Ok(Distribution::Zipf { exponent: 1.0 }));
        assert_eq!(distribution("zipf:1.5"), Ok(Distribution::Zipf { exponent: 1.5 }));
        assert_eq!(distribution("one-giant:0.99"), Ok(Distribution::OneGiant { share: 0.99 }));
        for wrong in ["", "zipf:", "zipf:-1", "one-giant:2", "one-giant:x", "uniform:1", "pareto"] {
            assert!(distribution(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!((share("0"), share("0.25"), share("1")), (Ok(0.0), Ok(0.25), Ok(1.0)));
        for wrong in ["-0.1", "1.1", "NaN", "10%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
