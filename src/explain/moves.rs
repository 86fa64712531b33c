//! Compares where the series of captured requests go under two configurations.
//!
//! A series counts once for each change, however often it was captured. Under the policy `reject`, one series refuses
//! its whole request, so series are compared as parts of their requests.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::ops::ControlFlow;

use bytes::Bytes;
use foldhash::fast::FixedState;
use serde_json::{Value, json};

use super::body::{Hints, is_lost, split};
use super::place::Place;
use super::sender::Sender;
use super::told::Told;
use crate::config::reload::{self, Adopted};
use crate::config::{ConfigMistakes, Plan};
use crate::limits::{PLAN_CHANGES_MAX, PLAN_SERIES_MAX};
use crate::model::Protocol;
use crate::selector::show_series;
use crate::split::{Body, Compression, Labelled, each_series};
use crate::tenant::TenantError;

/// What a reload from the old configuration to the new one does to a running server.
#[derive(Debug)]
pub struct Reload {
    /// Why the server refuses it; `None` if it accepts it.
    pub refused: Option<ConfigMistakes>,
    /// The settings that change at once.
    pub changed: Vec<&'static str>,
    /// The settings whose new values wait for the next start.
    pub until_restart: Vec<&'static str>,
}

impl Reload {
    /// Reloads, and returns the plan in effect afterwards: that of the next start if the reload is refused.
    pub fn of(old: &Plan, new: &Plan) -> (Self, Plan) {
        match reload::adopt(old, new.clone()) {
            Ok(Adopted { plan, changed, until_restart, .. }) => {
                (Self { refused: None, changed, until_restart }, plan)
            }
            Err(mistakes) => (
                Self { refused: Some(mistakes), changed: Vec::new(), until_restart: Vec::new() },
                new.clone(),
            ),
        }
    }

    /// All of it as JSON.
    pub fn json(&self) -> Value {
        let mistakes = self.refused.as_ref().map(ConfigMistakes::to_string);
        json!({
            "accepted": self.refused.is_none(),
            "mistakes": mistakes.iter().flat_map(|text| text.lines()).collect::<Vec<_>>(),
            "changed": self.changed,
            "waiting_for_restart": self.until_restart,
        })
    }
}

/// Where a series goes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Goes {
    /// To a tenant.
    To {
        /// The tenant, as the upstream is told.
        tenant: String,
        /// Where it is sent.
        place: Place,
        /// The label that is removed.
        without: Option<String>,
    },
    /// Nowhere: it is refused, alone or with its request.
    Refused {
        /// The reason as one word.
        reason: &'static str,
        /// The status that its sender is told; 0 if the sender is told nothing of it (`tenant.accept_all`).
        status: u16,
        /// Whether nothing of its request is forwarded.
        whole_request: bool,
    },
    /// Nowhere: the tenant map drops it.
    Dropped,
    /// Nowhere: it is forwarded as Remote Write 1.0, which cannot express it.
    Lost,
}

impl Goes {
    fn refused(told: &Told) -> Self {
        let Told { status, reason, whole_request, .. } = *told;
        Self::Refused { reason, status, whole_request }
    }

    /// The tenant, if there is one.
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::To { tenant, .. } => Some(tenant),
            Self::Refused { .. } | Self::Dropped | Self::Lost => None,
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::To { tenant, place, without } => {
                let (header, _) = place.headers_json();
                json!({"decision": "tenant", "tenant": tenant, "upstream": place.upstream,
                       "target": place.target, "header": header, "label_removed": without})
            }
            Self::Refused { reason, status, whole_request } => json!({"decision": "refused",
                "reason": reason, "status": status, "whole_request": whole_request}),
            Self::Dropped => json!({"decision": "dropped"}),
            Self::Lost => json!({"decision": "lost"}),
        }
    }
}

/// Series that go elsewhere in the same way.
#[derive(Clone, Default, Debug)]
pub struct Move {
    /// How many.
    pub series: u64,
    /// Their samples or entries in all captured requests.
    pub samples: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

/// The comparison of two configurations, as far as requests have been added.
#[derive(Debug)]
pub struct Comparison<'a> {
    old: &'a Plan,
    new: &'a Plan,
    senders: [Sender; 2],
    examples_max: usize,
    moves: HashMap<(Goes, Goes), Move>,
    /// Hashes of the series of each move.
    counted: HashSet<u64, FixedState>,
    hasher: FixedState,
    /// Hashes of all series.
    known: HashSet<u64, FixedState>,
    /// Requests that were compared.
    pub requests: u64,
    /// Requests that are not what they should be under either configuration, so that none of their series is known.
    pub unreadable: u64,
    /// Samples or entries that were compared.
    pub samples: u64,
    /// Samples of moves beyond the number that is kept apart.
    pub beyond: u64,
}

impl<'a> Comparison<'a> {
    /// Begins a comparison. `senders` send the requests under the old and the new configuration. Each move keeps up to
    /// `examples_max` examples.
    pub fn new(old: &'a Plan, new: &'a Plan, senders: [Sender; 2], examples_max: usize) -> Self {
        Self {
            old,
            new,
            senders,
            examples_max,
            moves: HashMap::new(),
            counted: HashSet::default(),
            hasher: FixedState::default(),
            known: HashSet::default(),
            requests: 0,
            unreadable: 0,
            samples: 0,
            beyond: 0,
        }
    }

    /// Adds a request. `source` is its tenant header.
    pub fn add(&mut self, bytes: &Bytes, hints: &Hints, source: Option<&str>) {
        self.requests += 1;
        // For a request that one configuration refuses by its head, the other says what it is.
        let Ok((protocol, compression)) = hints.read(bytes, true) else {
            self.unreadable += 1;
            return;
        };
        let plans = [self.old, self.new];
        let senders = [0, 1].map(|at| self.senders[at].with_source(plans[at], source));
        let body = Body { protocol, compression, bytes: bytes.clone() };
        let whole = [0, 1].map(|at| refused_whole(plans[at], hints, &body, &senders[at]));
        let mut limits = plans[0].split_limits();
        limits.inflated_bytes_max = limits.inflated_bytes_max.max(plans[1].limits.inflated_bytes_max);
        let read = each_series(body, limits, usize::MAX, |series| {
            let [from, to] = [0, 1].map(|at| match &whole[at] {
                Some(told) => Goes::refused(told),
                None => goes(plans[at], protocol, series, &senders[at]),
            });
            self.note(series, from, to);
            ControlFlow::Continue(())
        });
        self.unreadable += u64::from(read.is_err());
    }

    fn note(&mut self, series: &Labelled<'_>, from: Goes, to: Goes) {
        self.samples += series.samples;
        let text = show_series(series.labels());
        let hash = self.hasher.hash_one(&text);
        if self.known.len() < PLAN_SERIES_MAX {
            self.known.insert(hash);
        }
        if from == to {
            return;
        }
        let pair = (from, to);
        let of_move = self.hasher.hash_one((hash, &pair));
        if self.moves.len() >= PLAN_CHANGES_MAX && !self.moves.contains_key(&pair) {
            self.beyond += series.samples;
            return;
        }
        let is_new = self.counted.len() < PLAN_SERIES_MAX && self.counted.insert(of_move);
        let moved = self.moves.entry(pair).or_default();
        moved.samples += series.samples;
        if is_new {
            moved.series += 1;
            if moved.examples.len() < self.examples_max {
                moved.examples.push(text);
            }
        }
    }

    /// The number of different series that were compared, up to [`PLAN_SERIES_MAX`].
    pub fn series(&self) -> usize {
        self.known.len()
    }

    /// Whether any series goes elsewhere.
    pub fn has_moves(&self) -> bool {
        !self.moves.is_empty()
    }

    /// All moves, those with the most series first.
    pub fn moves(&self) -> Vec<(&Goes, &Goes, &Move)> {
        let mut moves: Vec<_> = self.moves.iter().map(|((from, to), moved)| (from, to, moved)).collect();
        moves.sort_by_key(|(from, to, moved)| (std::cmp::Reverse(moved.series), *from, *to));
        moves
    }

    /// How many series each tenant gains and loses.
    pub fn tenants(&self) -> BTreeMap<&str, (u64, u64)> {
        let mut tenants: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for ((from, to), moved) in &self.moves {
            if from.tenant() == to.tenant() {
                continue;
            }
            if let Some(tenant) = to.tenant() {
                tenants.entry(tenant).or_default().0 += moved.series;
            }
            if let Some(tenant) = from.tenant() {
                tenants.entry(tenant).or_default().1 += moved.series;
            }
        }
        tenants
    }

    /// All of it as JSON.
    pub fn json(&self) -> Value {
        let of_move = |(from, to, moved): (&Goes, &Goes, &Move)| {
            json!({"from": from.json(), "to": to.json(), "series": moved.series,
                   "samples": moved.samples, "examples": moved.examples})
        };
        let of_tenant = |(tenant, (gains, loses)): (&str, (u64, u64))| json!({"tenant": tenant, "gains": gains, "loses": loses});
        json!({
            "requests": self.requests,
            "unreadable_requests": self.unreadable,
            "series": self.series(),
            "samples": self.samples,
            "changes": self.moves().into_iter().map(of_move).collect::<Vec<_>>(),
            "samples_of_further_changes": self.beyond,
            "tenants": self.tenants().into_iter().map(of_tenant).collect::<Vec<_>>(),
        })
    }
}

/// What the sender is told if a plan refuses the whole request.
fn refused_whole(plan: &Plan, hints: &Hints, body: &Body, sender: &Sender) -> Option<Told> {
    let read: Result<(Protocol, Compression), _> = hints.read(&body.bytes, plan.remote_write_v2.is_some());
    match read {
        Err(refusal) => Some(Told::of_refusal(&refusal)),
        Ok(_) => split(plan, body.clone(), sender).err(),
    }
}

/// Where a series goes, of a request that is not refused as a whole.
fn goes(plan: &Plan, protocol: Protocol, series: &Labelled<'_>, sender: &Sender) -> Goes {
    if is_lost(plan, protocol, series) {
        return Goes::Lost;
    }
    let destination = protocol.destination();
    let (rules, removes) = (plan.tenant_rules(destination), plan.removes_label(destination));
    let decision = series.decide(rules, sender.source.as_deref(), &sender.grant, removes);
    match &decision.tenant {
        Ok(tenant) => {
            let label = decision.label.as_ref().filter(|_| decision.label_removed);
            let without = label.map(|label| String::from_utf8_lossy(&label.name).into_owned());
            Goes::To {
                tenant: tenant.to_string(),
                place: Place::of(plan, tenant, sender, destination),
                without,
            }
        }
        Err(TenantError::Dropped { .. }) => Goes::Dropped,
        Err(error) => match Told::of_series(plan, destination, b"", error) {
            Some(told) => Goes::refused(&told),
            None => Goes::Refused { reason: error.reason(), status: 0, whole_request: false },
        },
    }
}
