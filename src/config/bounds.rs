//! Bounds of numeric settings: against constants, and against each other.
//!
//! Design constraints:
//!
//! * The same rules apply at startup, to a file that is read again, and to the plan that a reload produces from both.
//!   Some settings wait for a restart, so settings that are valid in the file may be invalid in combination with those
//!   still in effect.
//! * A rule therefore sees only numbers, and names the keys that it concerns. The caller knows which of them were set,
//!   and where.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::key::Key;
use super::keys::Config;
use super::mistake::{Mistake, Origin};
use super::plan::Plan;
use super::setting::Origins;
use super::value::Value as _;
use crate::limits::{
    FRAGMENTS_IN_FLIGHT_MAX, HEAD_BYTES_MIN, RESOLVE_INTERVAL_MILLIS_MIN, TIMEOUT_MILLIS_MIN,
};

/// The numbers that the rules check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    timeout: Duration,
    idle_timeout: Duration,
    resolve_interval: Duration,
    linger: Duration,
    head_bytes_max: usize,
    body_bytes_max: usize,
    inflated_bytes_max: usize,
    in_flight_bytes_max: usize,
    tenants_per_request_max: usize,
}

/// A violated rule.
#[derive(Debug)]
pub(super) struct Fault {
    /// The settings that violate it together. The mistake is reported at the first of them that was set.
    keys: &'static [&'static str],
    /// The text of the mistake.
    text: String,
}

impl Bounds {
    /// The numbers as written.
    pub(super) fn written(config: &Config) -> Self {
        Self {
            timeout: config.timeout.value,
            idle_timeout: config.idle_timeout.value,
            resolve_interval: config.resolve_interval.value,
            linger: config.merge_linger.value,
            head_bytes_max: config.limits_head_bytes_max.value.0,
            body_bytes_max: config.limits_body_bytes_max.value.0,
            inflated_bytes_max: config.limits_inflated_bytes_max.value.0,
            in_flight_bytes_max: config.limits_in_flight_bytes_max.value.0,
            tenants_per_request_max: config.limits_tenants_per_request_max.value,
        }
    }

    /// The numbers of a plan.
    pub(super) fn planned(plan: &Plan) -> Self {
        Self {
            timeout: plan.timeout,
            idle_timeout: plan.idle_timeout,
            resolve_interval: plan.resolve_interval,
            linger: plan.merge.linger,
            head_bytes_max: plan.limits.head_bytes_max,
            body_bytes_max: plan.limits.body_bytes_max,
            inflated_bytes_max: plan.limits.inflated_bytes_max,
            in_flight_bytes_max: plan.limits.in_flight_bytes_max,
            tenants_per_request_max: plan.limits.tenants_per_request_max,
        }
    }

    /// Every violated rule.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.durations(&mut faults);
        self.sizes(&mut faults);
        if self.tenants_per_request_max > FRAGMENTS_IN_FLIGHT_MAX {
            faults.push(Fault {
                keys: &["limits.tenants_per_request_max"],
                text: format!(
                    "must not be more than {FRAGMENTS_IN_FLIGHT_MAX}: a core has no more parts in flight, so it \
                     would never accept a request with more tenants"
                ),
            });
        }
        faults
    }

    fn durations(&self, faults: &mut Vec<Fault>) {
        let shortest = Duration::from_millis(TIMEOUT_MILLIS_MIN);
        let shortest_resolve = Duration::from_millis(RESOLVE_INTERVAL_MILLIS_MIN);
        let least: [(&'static [&'static str], _, _); 3] = [
            (&["timeout"], self.timeout, shortest),
            (&["idle_timeout"], self.idle_timeout, shortest),
            (&["resolve_interval"], self.resolve_interval, shortest_resolve),
        ];
        for (keys, value, least) in least {
            if value < least {
                let text = format!("{} is too short: it must be at least {}", value.show(), least.show());
                faults.push(Fault { keys, text });
            }
        }
        if self.linger >= self.timeout {
            let text = format!(
                "merge.linger must be shorter than timeout, which is {}: data that waits this long is never \
                 sent",
                self.timeout.show()
            );
            faults.push(Fault { keys: &["merge.linger", "timeout"], text });
        }
    }

    fn sizes(&self, faults: &mut Vec<Fault>) {
        if self.head_bytes_max < HEAD_BYTES_MIN {
            faults.push(Fault {
                keys: &["limits.head_bytes_max"],
                text: format!("must be at least {HEAD_BYTES_MIN} bytes: senders' own headers need that"),
            });
        }
        if u32::try_from(self.inflated_bytes_max).is_err() {
            faults.push(Fault {
                keys: &["limits.inflated_bytes_max"],
                text: "must be less than 4Gi: snappy's length has 32 bits".into(),
            });
        }
        if self.inflated_bytes_max < self.body_bytes_max {
            faults.push(Fault {
                keys: &["limits.inflated_bytes_max", "limits.body_bytes_max"],
                text: "limits.inflated_bytes_max must not be less than limits.body_bytes_max: such a body could never \
                       be inflated"
                    .into(),
            });
        }
        let needed = self.request_bytes_max();
        if self.in_flight_bytes_max < needed {
            faults.push(Fault {
                keys: &[
                    "limits.in_flight_bytes_max",
                    "limits.inflated_bytes_max",
                    "limits.body_bytes_max",
                    "limits.head_bytes_max",
                ],
                text: format!(
                    "limits.in_flight_bytes_max must be at least {needed}, so that one request of the largest size \
                     fits: limits.head_bytes_max, limits.body_bytes_max and limits.inflated_bytes_max together"
                ),
            });
        }
    }

    /// The budget that one request may need before it is split. Its parts take over the body's share; whatever they
    /// need beyond that is granted in any case, so it does not count here.
    fn request_bytes_max(&self) -> usize {
        self.head_bytes_max.saturating_add(self.body_bytes_max).saturating_add(self.inflated_bytes_max)
    }
}

impl Fault {
    /// Turns the fault into a mistake. It is reported at the first of its settings that was set and that `holds`, else
    /// at any that was set. `None` if one of its settings was already reported: its value is then only the default in
    /// its place.
    pub(super) fn mistake(self, origins: &Origins, holds: impl Fn(&str) -> bool) -> Option<Mistake> {
        let Fault { keys, text } = self;
        let keys: Vec<_> = keys.iter().filter_map(|path| origins.find(path)).collect();
        if keys.iter().any(|(_, origin)| *origin == Origin::Mistaken) {
            return None;
        }
        let set = |(_, origin): &&(&Key, Origin)| *origin != Origin::Default;
        let blamed = keys.iter().filter(set).find(|(key, _)| holds(key.path));
        let (key, origin) = blamed.or_else(|| keys.iter().find(set)).or(keys.first())?;
        Some(Mistake::of(key, *origin, text))
    }

    /// Appends to the text.
    pub(super) fn and(self, more: &str) -> Self {
        Self { text: self.text + more, ..self }
    }

    /// The settings that it concerns.
    pub(super) fn keys(&self) -> &'static [&'static str] {
        self.keys
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[track_caller]
    fn refused(text: &str, expected: &[&str]) {
        let told = parse("f", text, []).map(drop).unwrap_err().to_string();
        let told: Vec<_> = told.lines().collect();
        assert_eq!(told.len(), expected.len(), "{text}\n{told:#?}");
        for (line, start) in told.iter().zip(expected) {
            assert!(line.starts_with(start), "{line}\n{start}");
        }
    }

    fn sound(text: &str) {
        parse("f", text, []).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
    }

    #[test]
    fn times_that_are_too_short_are_refused() {
        refused(
            "timeout: 9999us\nidle_timeout: 1ns\nresolve_interval: 99ms\n",
            &[
                "f:1: timeout: 9ms999us is too short: it must be at least 10ms",
                "f:2: idle_timeout: 1ns is too short: it must be at least 10ms",
                "f:3: resolve_interval: 99ms is too short: it must be at least 100ms",
            ],
        );
        sound("timeout: 10ms\nidle_timeout: 10ms\nresolve_interval: 100ms\n");
    }

    #[test]
    fn a_linger_as_long_as_the_timeout_is_refused() {
        refused(
            "merge: {linger: 10s}",
            &["f:1: merge.linger: merge.linger must be shorter than timeout, which is 10s"],
        );
        refused("timeout: 1s\nmerge: {linger: 1s}", &["f:2: merge.linger: "]);
        sound("timeout: 1s\nmerge: {linger: 999ms}");
    }

    #[test]
    fn the_budget_has_room_for_the_largest_request() {
        let needed = (16 << 10) + (8 << 20) + (64 << 20);
        refused(
            &format!("limits: {{in_flight_bytes_max: {}}}", needed - 1),
            &[&format!(
                "f:1: limits.in_flight_bytes_max: limits.in_flight_bytes_max must be at least {needed}"
            )],
        );
        sound(&format!("limits: {{in_flight_bytes_max: {needed}}}"));
        refused(
            "limits: {head_bytes_max: 441Mi}",
            &["f:1: limits.head_bytes_max: limits.in_flight_bytes_max must"],
        );
    }

    #[test]
    fn more_tenants_per_request_than_a_core_takes_are_refused() {
        refused(
            "limits: {tenants_per_request_max: 16385}",
            &["f:1: limits.tenants_per_request_max: must not be more"],
        );
        sound("limits: {tenants_per_request_max: 16384}");
    }

    #[test]
    fn an_unreadable_value_is_reported_once() {
        refused("timeout: x\nmerge: {linger: 10s}", &["f:1: timeout: \"x\" is not a duration"]);
    }
}
