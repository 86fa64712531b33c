//! A fleet's bodies as what a sender sends: whole requests, made before the clock starts.

use super::{Message, SendConfig, Source};
use crate::fleet::{Body, Fleet};
use crate::journal::{BodyCount, Fate, Settled};

/// A request that is ready to leave.
struct Request {
    bytes: Vec<u8>,
    body_bytes: u64,
    count: BodyCount,
}

impl Request {
    fn new(config: &SendConfig, fleet: &Fleet, body: &Body) -> Self {
        Self {
            bytes: config.url.push(fleet.format.headers(), &config.headers, &body.block),
            body_bytes: body.block.len() as u64,
            count: BodyCount::default(),
        }
    }
}

/// What one sender of a fleet sends, in turn.
pub(super) struct Bodies {
    bodies: Vec<Request>,
    /// What it sends every so many turns instead of a body.
    metadata: Option<(u32, Request)>,
    turn: u32,
    next: usize,
    /// Which body was sent last; None for metadata.
    last: Option<usize>,
}

impl Bodies {
    /// Those of the sender that has this number.
    pub(super) fn new(config: &SendConfig, fleet: &Fleet, index: usize) -> Self {
        let bodies = fleet.senders.get(index).map_or(&[][..], Vec::as_slice);
        let request = |body| Request::new(config, fleet, body);
        Self {
            bodies: bodies.iter().map(request).collect(),
            metadata: fleet.metadata.as_ref().map(|(every, body)| (*every, request(body))),
            turn: 0,
            next: 0,
            last: None,
        }
    }

    /// What became of each body.
    pub(super) fn counts(&self) -> impl Iterator<Item = BodyCount> {
        self.bodies.iter().map(|request| request.count)
    }
}

impl Source for Bodies {
    fn next(&mut self) -> Option<Message<'_>> {
        self.turn = self.turn.wrapping_add(1);
        let request = match &self.metadata {
            Some((every, request)) if self.turn >= *every => {
                self.turn = 0;
                self.last = None;
                request
            }
            _ => {
                self.last = Some(self.next);
                self.next = (self.next + 1) % self.bodies.len().max(1);
                self.bodies.get(self.last?)?
            }
        };
        Some(Message { bytes: &request.bytes, body_bytes: request.body_bytes })
    }

    fn note(&mut self, fate: Fate) {
        if let Some(request) = self.last.and_then(|last| self.bodies.get_mut(last)) {
            request.count.acknowledged += u64::from(fate.settled == Settled::Acknowledged);
            request.count.unsettled += u64::from(fate.unsettled);
        }
    }
}
