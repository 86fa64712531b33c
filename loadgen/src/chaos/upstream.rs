//! The upstream's side of a plan: a script for a sink.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Pulse;
use crate::random::Random;
use crate::sink::faults::{FaultScript, Rule};
use crate::sink::{Admission, Approach, Arrival, Close, Faults, Reply, Script};

/// The stream of a seed that decides what breaks down before, and what after, it was stored.
const STREAM: u64 = 0x77ea;

/// Fair until it begins, and after it is over; rules in between.
///
/// An upstream that breaks down instead of answering may have stored the request before: here a coin decides.
pub struct FaultyUpstream {
    faults: Faults,
    begun: OnceLock<FaultScript>,
    is_over: AtomicBool,
    coin: Mutex<Random>,
    pulse: Arc<Pulse>,
}

impl FaultyUpstream {
    /// An upstream with these rules, whose time has not begun yet.
    pub fn new(seed: u64, rules: Vec<Rule>) -> Self {
        Self {
            faults: Faults::new(seed, rules),
            begun: OnceLock::new(),
            is_over: AtomicBool::new(false),
            coin: Mutex::new(Random::new(seed, STREAM)),
            pulse: Arc::default(),
        }
    }

    /// Where it notes which tenants get on. Senders note there what they send.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Begins the rules' time, once.
    pub fn begin(&self) {
        self.pulse.begin();
        self.begun.get_or_init(|| FaultScript::new(self.faults.clone()));
    }

    /// Ends all trouble.
    pub fn heal(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn rules(&self) -> Option<&FaultScript> {
        self.begun.get().filter(|_| !self.is_over.load(Ordering::Relaxed))
    }

    fn toss(&self) -> bool {
        self.coin.lock().unwrap_or_else(PoisonError::into_inner).below(2) == 1
    }
}

impl Script for FaultyUpstream {
    fn admit(&self, approach: &Approach<'_>) -> Admission {
        self.rules().map(|rules| rules.admit(approach)).unwrap_or_default()
    }

    fn answer(&self, arrival: &Arrival<'_>) -> Reply {
        let mut reply = self.rules().map(|rules| rules.answer(arrival)).unwrap_or_default();
        if reply.is_success() {
            self.pulse.got_on(arrival.tenant, arrival.destination, reply.delay);
        }
        if matches!(reply.close, Close::Reset | Close::MidReply | Close::Stall) {
            reply.stored = Some(self.toss());
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Destination;
    use crate::http::Headers;
    use crate::sink::faults::{Fault, ResetAt};

    fn answer(upstream: &FaultyUpstream) -> Reply {
        let headers = Headers::default();
        upstream.answer(&Arrival {
            tenant: "a",
            destination: Destination::Metrics,
            headers: &headers,
            connection: 0,
            nth_of_tenant: 1,
            nth: 1,
            body: &[],
            inflated: &[],
        })
    }

    fn upstream(fault: Fault) -> FaultyUpstream {
        let all = std::time::Duration::ZERO;
        FaultyUpstream::new(1, vec![Rule { tenants: vec![], from: all, to: None, share: 1.0, fault }])
    }

    #[test]
    fn it_is_fair_before_it_begins_and_after_it_is_over() {
        let upstream = upstream(Fault::Lie(503));
        let mut seen = vec![answer(&upstream).status];
        upstream.begin();
        seen.push(answer(&upstream).status);
        upstream.heal();
        seen.push(answer(&upstream).status);
        assert_eq!(seen, [200, 503, 200]);
    }

    #[test]
    fn half_of_what_breaks_down_is_stored_before() {
        for fault in [Fault::Reset(ResetAt::BeforeReply), Fault::Reset(ResetAt::MidReply), Fault::Stall] {
            let upstream = upstream(fault);
            upstream.begin();
            let stored = (0..200).filter(|_| answer(&upstream).stored == Some(true)).count();
            assert!((60..140).contains(&stored), "{stored}");
        }
    }
}
