//! What is left of a part that is sent in pieces: which piece comes next, and which need not be sent. Pure.
//!
//! Halving ends with single entries. But all pieces have what the part has only once: the attributes of a resource, the
//! labels of a stream, symbols, metadata. If that is too large itself, so is each piece, and thousands of entries would
//! be as many requests, all of them large and in vain. So once halves are hardly smaller than what was halved, a single
//! entry is tried first. If it is too large, and hardly larger than what they share, those that were halved off it are not
//! sent any more. Otherwise they are, as always: the upstream's limit may be just above what they share, or count
//! something else than bytes.
//!
//! Only those that were halved off it: another resource behind them may well fit.

use crate::model::{Outcome, Part};

/// Whether `bytes` are hardly smaller than those of a `whole`: more than nine tenths.
fn is_hardly_smaller(bytes: u32, whole: u32) -> bool {
    u64::from(bytes) * 10 > u64::from(whole) * 9
}

/// The pieces of a part that are left.
#[derive(Default, Debug)]
pub(super) struct Left {
    /// The next one is the last.
    parts: Vec<Part>,
    /// Those from this place on are hardly smaller than what they were halved from, and none of them was tried yet. With
    /// the bytes that they share.
    untried: Option<(usize, u32)>,
    /// What those from this place on get without being sent. There are some.
    refused: Option<(usize, Outcome)>,
}

impl Left {
    /// Adds the halves of a piece that inflates to `bytes`, which are the next.
    pub(super) fn push(&mut self, bytes: u32, halves: [Part; 2]) {
        if halves.iter().all(|half| is_hardly_smaller(half.inflated_bytes, bytes)) {
            let both = halves.iter().map(|half| half.inflated_bytes).fold(0, u32::saturating_add);
            self.untried.get_or_insert((self.parts.len(), both.saturating_sub(bytes)));
        }
        self.parts.extend(halves.into_iter().rev());
    }

    /// Takes the next piece. With what its outcome is, if it is not sent.
    pub(super) fn next(&mut self) -> Option<(Part, Option<Outcome>)> {
        let part = self.parts.pop()?;
        let refused = self.refused.take();
        self.refused = refused.clone().filter(|(from, _)| self.parts.len() > *from);
        Some((part, refused.map(|(_, outcome)| outcome)))
    }

    /// Whether the next piece is halved as often as it can be before one is sent.
    pub(super) fn is_untried(&self) -> bool {
        self.untried.is_some()
    }

    /// A piece was sent. `too_large`: it is a single entry of so many bytes, and was refused for its size, with this
    /// outcome.
    pub(super) fn tried(&mut self, too_large: Option<(u32, &Outcome)>) {
        if let (Some((from, shared)), Some((bytes, outcome))) = (self.untried.take(), too_large)
            && is_hardly_smaller(shared, bytes)
        {
            self.refused = Some((from, outcome.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Coding, MergeKey, Protocol, Signal};
    use crate::tenant::{IdRules, TenantId};

    /// A part of so many entries of ten bytes each, and what they share.
    fn part(shared: u32, entries: u32) -> Part {
        Part {
            tenant: TenantId::new("a", IdRules::Mimir).unwrap(),
            protocol: Protocol::Otlp(Signal::Logs),
            elements: bytes::Bytes::new(),
            coding: Coding::SNAPPY,
            inflated_bytes: shared + 10 * entries,
            series: 1,
            samples: entries,
            histograms: 0,
            exemplars: 0,
            merge: MergeKey::Alone,
        }
    }

    fn halve(whole: &Part) -> Option<[Part; 2]> {
        let shared = whole.inflated_bytes - 10 * whole.samples;
        let first = whole.samples / 2;
        (first > 0).then(|| [part(shared, first), part(shared, whole.samples - first)])
    }

    /// Sends a part that was refused to an upstream that takes `limit` bytes. Returns the entries that were stored and
    /// refused, and the requests.
    fn send(whole: &Part, limit: u32) -> (u32, u32, usize) {
        let (mut left, mut stored, mut refused, mut requests) = (Left::default(), 0, 0, 0);
        left.push(whole.inflated_bytes, halve(whole).unwrap());
        while let Some((piece, outcome)) = left.next() {
            if outcome.is_some() {
                refused += piece.samples;
                continue;
            }
            if left.is_untried()
                && let Some(halves) = halve(&piece)
            {
                left.push(piece.inflated_bytes, halves);
                continue;
            }
            requests += 1;
            if piece.inflated_bytes <= limit {
                stored += piece.samples;
                left.tried(None);
                continue;
            }
            match halve(&piece) {
                Some(halves) => left.push(piece.inflated_bytes, halves),
                None => {
                    refused += piece.samples;
                    left.tried(Some((piece.inflated_bytes, &Outcome::upstream(413, None, b"too large"))));
                }
            }
        }
        (stored, refused, requests)
    }

    #[test]
    fn if_what_all_pieces_share_is_too_large_one_of_them_is_sent() {
        assert_eq!(send(&part(1_200_000, 50_000), 1_000_000), (0, 50_000, 4));
        assert_eq!(send(&part(1_200_000, 100), 1_000_000), (0, 100, 1));
        // What fits beside what they share, is stored.
        assert_eq!(send(&part(100_000, 100), 100_010), (100, 0, 163));
    }

    #[test]
    fn those_that_share_something_else_are_sent() {
        let mut left = Left::default();
        left.push(2_000, [part(1_000, 2), part(0, 3)]);
        let (first, _) = left.next().unwrap();
        assert!(!left.is_untried());
        left.push(first.inflated_bytes, halve(&first).unwrap());
        let (single, outcome) = left.next().unwrap();
        assert_eq!((single.samples, outcome, left.is_untried()), (1, None, true));
        let refusal = Outcome::upstream(413, None, b"too large");
        left.tried(Some((single.inflated_bytes, &refusal)));
        assert_eq!(left.next(), Some((part(1_000, 1), Some(refusal))));
        assert_eq!(left.next(), Some((part(0, 3), None)));
        assert_eq!(left.next(), None);
    }

    #[test]
    fn a_single_entry_that_is_too_large_by_itself_says_nothing_about_others() {
        let mut left = Left::default();
        left.push(2_000, [part(1_900, 5), part(1_900, 5)]);
        assert!(left.is_untried());
        let (first, _) = left.next().unwrap();
        left.tried(Some((first.inflated_bytes + 50, &Outcome::upstream(413, None, b"too large"))));
        assert_eq!(left.next(), Some((part(1_900, 5), Some(Outcome::upstream(413, None, b"too large")))));
        left.push(2_000, [part(1_900, 5), part(1_900, 5)]);
        left.next().unwrap();
        left.tried(Some((2_200, &Outcome::upstream(413, None, b"too large"))));
        assert_eq!(left.next(), Some((part(1_900, 5), None)));
    }

    proptest! {
        #[test]
        fn all_that_fits_is_stored(shared in 0u32..10_000, entries in 2u32..300, limit in 0u32..10_000) {
            let (stored, refused, requests) = send(&part(shared, entries), limit);
            let fits = shared + 10 <= limit;
            prop_assert_eq!((stored, refused), if fits { (entries, 0) } else { (0, entries) });
            let requests_max = 4 + (300 * entries).checked_div(shared).unwrap_or(entries) as usize;
            prop_assert!(fits || shared < 1_000 || requests <= requests_max, "{} requests", requests);
        }
    }
}
