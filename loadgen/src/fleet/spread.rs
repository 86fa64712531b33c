//! Which tenants' series a body holds, and how evenly shares of a whole are picked.

use std::str::FromStr;

/// How the targets are spread over the tenants. Each tenant's own weight counts in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Distribution {
    /// By the tenants' weights alone; equal weights make it uniform.
    #[default]
    Weighted,
    /// The tenant of rank `k`, counted from 1 in the order of the tenants, weighs `k` to the power of `-exponent`:
    /// few large tenants and a long tail, as in most places where many teams share a system.
    Zipf {
        /// From 0 to 10; 0 makes all ranks equal, 1 is the usual one.
        exponent: f64,
    },
    /// The first tenant has this share of all targets, and the others have the rest by their weights.
    OneGiant {
        /// From 0 to 1.
        share: f64,
    },
}

impl Distribution {
    fn is_sound(self) -> bool {
        match self {
            Self::Weighted => true,
            Self::Zipf { exponent } => (0.0..=10.0).contains(&exponent),
            Self::OneGiant { share } => (0.0..=1.0).contains(&share),
        }
    }

    /// What each tenant weighs, relative to the others.
    pub(super) fn weights(self, tenants: &[(String, u32)]) -> Vec<f64> {
        let own = tenants.iter().map(|&(_, weight)| f64::from(weight));
        match self {
            Self::Weighted => own.collect(),
            Self::Zipf { exponent } => {
                own.zip(1u64..).map(|(weight, rank)| weight / (rank as f64).powf(exponent)).collect()
            }
            Self::OneGiant { share } => {
                let rest: f64 = own.clone().skip(1).sum();
                if rest <= 0.0 {
                    return own.collect();
                }
                let scale = (1.0 - share) / rest;
                std::iter::once(share).chain(own.skip(1).map(|weight| weight * scale)).collect()
            }
        }
    }
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').map_or((text, None), |(kind, number)| (kind, Some(number)));
        // The usual exponent; and a tenant as large as all others together nine times over.
        let number_or = |usual: f64| number.map_or(Ok(usual), str::parse);
        let distribution = match (kind, number) {
            ("uniform", None) => Some(Self::Weighted),
            ("zipf", _) => number_or(1.0).ok().map(|exponent| Self::Zipf { exponent }),
            ("one-giant", _) => number_or(0.9).ok().map(|share| Self::OneGiant { share }),
            _ => None,
        };
        distribution.filter(|distribution| distribution.is_sound()).ok_or_else(|| {
            format!("`{text}` is none of uniform, zipf[:EXPONENT] (0 to 10) and one-giant[:SHARE] (0 to 1)")
        })
    }
}

/// The tenants of `targets` targets, by systematic sampling: a first step of `offset` (from 0 to 1), then equal steps
/// over the weights. Each tenant gets its share to within one target.
pub(super) fn deal(weights: &[f64], targets: usize, offset: f64) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    let step = total / targets as f64;
    let mut dealt = Vec::with_capacity(targets);
    let mut end = 0.0;
    let mut last = 0;
    for (tenant, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        last = tenant;
        end += weight;
        while dealt.len() < targets && (dealt.len() as f64 + offset) * step < end {
            dealt.push(tenant);
        }
    }
    // Sums of fractions may end a hair before the last step does.
    dealt.resize(targets, last);
    dealt
}

/// Picks a share of things that come one after the other, as evenly as can be: what was picked never differs from the
/// share by more than half of a thing.
pub(super) struct Portion {
    share_ppm: i64,
    /// What is due and not picked, in millionths.
    owed_ppm: i64,
}

impl Portion {
    const WHOLE_PPM: i64 = 1_000_000;

    #[expect(clippy::cast_possible_truncation, reason = "a share of a million")]
    pub(super) fn new(share: f64) -> Self {
        Self { share_ppm: (share * 1e6).round() as i64, owed_ppm: 0 }
    }

    /// Whether the next thing, which is made of `size` parts that come and go together, is picked.
    pub(super) fn takes(&mut self, size: usize) -> bool {
        let size = i64::try_from(size).unwrap_or(i64::MAX / Self::WHOLE_PPM / 4);
        let whole = size.saturating_mul(Self::WHOLE_PPM);
        self.owed_ppm = self.owed_ppm.saturating_add(size.saturating_mul(self.share_ppm));
        let taken = self.owed_ppm.saturating_mul(2) >= whole && self.share_ppm > 0;
        if taken {
            self.owed_ppm -= whole;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_as_they_are_typed() {
        let parse = str::parse::<Distribution>;
        assert_eq!(parse("uniform"), Ok(Distribution::Weighted));
        assert_eq!(parse("zipf"), Ok(Distribution::Zipf { exponent: 1.0 }));
        assert_eq!(parse("zipf:1.5"), Ok(Distribution::Zipf { exponent: 1.5 }));
        assert_eq!(parse("one-giant:0.99"), Ok(Distribution::OneGiant { share: 0.99 }));
        for wrong in ["", "zipf:", "zipf:-1", "one-giant:2", "one-giant:x", "uniform:1", "pareto"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    fn shares(distribution: Distribution, weights: &[u32]) -> Vec<f64> {
        let tenants: Vec<_> = weights.iter().map(|&weight| (String::new(), weight)).collect();
        let weights = distribution.weights(&tenants);
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| (weight / total * 1e3).round() / 1e3).collect()
    }

    #[test]
    fn weights_are_shares() {
        assert_eq!(shares(Distribution::Weighted, &[6, 3, 1]), [0.6, 0.3, 0.1]);
        // 1 + 1/2 + 1/3 + 1/4 = 25/12.
        assert_eq!(shares(Distribution::Zipf { exponent: 1.0 }, &[1; 4]), [0.48, 0.24, 0.16, 0.12]);
        assert_eq!(shares(Distribution::Zipf { exponent: 0.0 }, &[1; 4]), [0.25; 4]);
        assert_eq!(shares(Distribution::OneGiant { share: 0.9 }, &[1, 3, 1]), [0.9, 0.075, 0.025]);
        assert_eq!(shares(Distribution::OneGiant { share: 0.9 }, &[1]), [1.0]);
    }

    #[test]
    fn what_is_no_distribution_is_known() {
        for wrong in [
            Distribution::Zipf { exponent: -1.0 },
            Distribution::Zipf { exponent: f64::INFINITY },
            Distribution::OneGiant { share: 1.1 },
            Distribution::OneGiant { share: f64::NAN },
        ] {
            assert!(!wrong.is_sound(), "{wrong:?}");
        }
        assert!(Distribution::OneGiant { share: 1.0 }.is_sound());
    }

    #[test]
    fn all_targets_are_dealt_whatever_the_fractions() {
        for targets in [1, 7, 100, 1001] {
            for offset in [0.0, 0.5, 1.0 - f64::EPSILON] {
                let weights = Distribution::Zipf { exponent: 1.3 }.weights(&vec![(String::new(), 3); 99]);
                let dealt = deal(&weights, targets, offset);
                assert_eq!(dealt.len(), targets);
                assert!(dealt.is_sorted() && dealt.iter().all(|&tenant| tenant < 99));
            }
        }
        assert_eq!(deal(&[0.0, 1.0, 0.0], 3, 0.99), [1; 3], "who weighs nothing gets nothing");
    }

    #[test]
    fn a_portion_is_exact_and_even() {
        let picked = |share: f64, of: usize, size: usize| {
            let mut portion = Portion::new(share);
            (0..of).filter(|_| portion.takes(size)).collect::<Vec<_>>()
        };
        assert_eq!(picked(0.1, 500, 1).len(), 50);
        assert_eq!(picked(0.25, 8, 20), [1, 5]);
        assert_eq!(picked(0.0, 100, 1), [0usize; 0]);
        assert_eq!(picked(1.0, 100, 7).len(), 100);
        assert_eq!(picked(1.0 / 3.0, 3000, 1).len(), 1000);
    }
}
