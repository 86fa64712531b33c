//! Answers on demand, for tests: what a sink says, when, and whether it says anything at all.

use testkit::upstream::{Admission, Reply};

use crate::destination::Destination;
use crate::http::Headers;

/// Decides what becomes of each request. It is called on the connection's thread, by several at a time. A closure from
/// [`Arrival`] to [`Reply`] is a script that reads every body at once.
pub trait Script: Send + Sync {
    /// When the head of a request has come: whether and how its body is read.
    fn admit(&self, _approach: &Approach<'_>) -> Admission {
        Admission::Read
    }

    /// When a good request has come, whole: the answer to it.
    fn answer(&self, arrival: &Arrival<'_>) -> Reply;
}

impl<F: Fn(&Arrival<'_>) -> Reply + Send + Sync> Script for F {
    fn answer(&self, arrival: &Arrival<'_>) -> Reply {
        self(arrival)
    }
}

/// A request of which only the head is known.
#[derive(Debug)]
pub struct Approach<'a> {
    /// The tenant's header, if there is one.
    pub tenant: Option<&'a str>,
}

/// A good request that waits for its answer.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The tenant's header.
    pub tenant: &'a str,
    /// What its path tells.
    pub destination: Destination,
    /// All headers.
    pub headers: &'a Headers,
    /// Which of the sink's connections it came over, counted from 0.
    pub connection: u64,
    /// The number of this request among those of its tenant, from 1.
    pub nth_of_tenant: u64,
    /// The number of this request among those of all tenants, from 1.
    pub nth: u64,
    /// The body as it came.
    pub body: &'a [u8],
    /// What it inflates to.
    pub inflated: &'a [u8],
}
