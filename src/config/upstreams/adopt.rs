//! Upstreams after a reload.
//!
//! Which tenants go where, credentials, headers and paths change at once. A target at another host or port waits for
//! the next start, like `target`, and with it the credentials, headers and TLS of its upstream: those of the new place
//! must not reach the old one.
//!
//! Another set of upstreams is refused. A tenant of a new upstream would go to another cluster until the restart, and a
//! tenant of one that is gone, too. The settings of one file belong together: the same reload may allow the tenants
//! that the new upstream is for. If nothing changes, no tenant is in a place that neither configuration names.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::{Upstream, Upstreams};
use crate::config::tls;
use crate::model::PerDestination;

/// The outcome for all upstreams.
#[derive(Debug)]
pub(in crate::config) struct Adopted {
    pub(in crate::config) upstreams: Upstreams,
    /// Whether a target waits for the next start.
    pub(in crate::config) waits: bool,
    /// Whether anything has changed at once.
    pub(in crate::config) changed: bool,
}

/// Combines the `running` upstreams with those just `read`.
///
/// # Errors
/// Why the reload is refused.
pub(in crate::config) fn adopt(running: &Upstreams, read: Upstreams) -> Result<Adopted, String> {
    same_set(running, &read)?;
    let mut waits = false;
    let mut changed = running.routes != read.routes;
    let mut list = Vec::with_capacity(read.list.len());
    for upstream in read.list {
        let Some(old) = running.list.iter().find(|old| old.name == upstream.name) else { continue };
        let (upstream, waiting) = one(old, upstream);
        waits |= waiting;
        changed |= upstream.terms != old.terms || tls::upstream_differs(&upstream.tls, &old.tls);
        list.push(upstream);
    }
    Ok(Adopted { upstreams: Upstreams { list, routes: read.routes }, waits, changed })
}

/// Checks that the names, and the kinds of data of each, are the same.
fn same_set(running: &Upstreams, read: &Upstreams) -> Result<(), String> {
    let missing = |from: &Upstreams, to: &Upstreams| {
        let is_in = |upstream: &&Upstream| {
            to.list.iter().any(|other| other.name == upstream.name && other.takes == upstream.takes)
        };
        from.list.iter().find(|upstream| !is_in(upstream)).map(|upstream| Arc::clone(&upstream.name))
    };
    match missing(read, running).or_else(|| missing(running, read)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "upstream {name} was added, removed, or takes other kinds of data: restart for that. Until then nothing \
             changes, as its tenants would go to another upstream"
        )),
    }
}

/// Combines one upstream. Also returns whether its targets wait for the next start.
fn one(old: &Upstream, read: Upstream) -> (Upstream, bool) {
    let places = |upstream: &Upstream| {
        let targets = upstream.targets();
        PerDestination::new(|to| targets.of(to).map(|target| (target.host.clone(), target.port)))
    };
    if places(old) != places(&read) {
        return (old.clone(), true);
    }
    let terms = read.terms.as_ref().clone().after(&old.terms);
    let terms = if terms == *old.terms { Arc::clone(&old.terms) } else { Arc::new(terms) };
    let tls = tls::upstream_after(&read.tls, &old.tls);
    (Upstream { index: old.index, terms, tls, ..read }, false)
}
