//! Which rule names a tenant: found by watching one of its series.
//!
//! The cores do not keep it, as it would cost memory and time for each tenant. So when somebody looks at a tenant, a
//! tap waits for its next series, for a few seconds at most. The answer is there the next time that somebody looks.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::{RULE_KEPT_SECS, RULE_WATCH_SECS, RULES_WATCHED_MAX};
use crate::model::Destination;
use crate::shared::taps::{Filter, Tap, Taps};

/// A kind of rule, and what the rule says.
type Rule = (&'static str, String);

/// A tenant that somebody has looked at.
#[derive(Debug)]
struct Watched {
    destination: Destination,
    tenant: Arc<str>,
    since: Instant,
    tap: Option<Tap>,
    rule: Option<Rule>,
}

/// The tenants that somebody has looked at lately.
#[derive(Debug, Default)]
pub(super) struct Rules(RefCell<Vec<Watched>>);

impl Rules {
    /// The rule that names a tenant, if it is known. If not, its next series is watched.
    pub(super) fn of(
        &self,
        taps: &Arc<Taps>,
        destination: Destination,
        tenant: &Arc<str>,
        now: Instant,
    ) -> Option<Rule> {
        self.look(now);
        let mut watched = self.0.borrow_mut();
        if let Some(known) =
            watched.iter().find(|one| one.destination == destination && one.tenant == *tenant)
        {
            return known.rule.clone();
        }
        if watched.len() >= RULES_WATCHED_MAX {
            // Another time: taking turns, more tenants than this would keep taps open for good.
            return None;
        }
        let tap = taps.open(Filter::Tenant(destination, (&**tenant).into()));
        watched.push(Watched { destination, tenant: Arc::clone(tenant), since: now, tap, rule: None });
        None
    }

    /// Takes what taps have found, and closes those that found nothing.
    pub(super) fn look(&self, now: Instant) {
        let mut watched = self.0.borrow_mut();
        for one in watched.iter_mut() {
            if let Some(event) = one.tap.as_ref().and_then(Tap::next) {
                one.rule = event.rule;
                one.tap = None;
            } else if now.saturating_duration_since(one.since) >= Duration::from_secs(RULE_WATCH_SECS) {
                one.tap = None;
            }
        }
        watched.retain(|one| now.saturating_duration_since(one.since) < Duration::from_secs(RULE_KEPT_SECS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_watched_for_a_few_seconds_and_again_later() {
        let (rules, taps, tenant, start) =
            (Rules::default(), Arc::new(Taps::default()), Arc::from("a"), Instant::now());
        let of = |at| rules.of(&taps, Destination::Logs, &tenant, at);
        assert_eq!((of(start), taps.all().len()), (None, 1));
        assert_eq!((of(start), taps.all().len()), (None, 1));
        let later = start + Duration::from_secs(RULE_WATCH_SECS);
        rules.look(later);
        assert!(!taps.are_open());
        assert_eq!((of(later), taps.all().len()), (None, 0), "it has been watched just now");
        assert_eq!((of(start + Duration::from_secs(RULE_KEPT_SECS)), taps.all().len()), (None, 1));
        for n in 0..2 * RULES_WATCHED_MAX {
            rules.of(
                &taps,
                Destination::Logs,
                &n.to_string().into(),
                start + Duration::from_secs(RULE_KEPT_SECS),
            );
            assert!(taps.all().len() <= RULES_WATCHED_MAX);
        }
        rules.look(start + Duration::from_secs(RULE_KEPT_SECS + RULE_WATCH_SECS));
        assert!(!taps.are_open());
    }
}
