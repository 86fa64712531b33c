//! Shares answers that took long among the clients that ask for the same.
//!
//! Design constraints:
//! - Any number of browsers may watch. With ten thousand tenants an answer takes milliseconds of CPU time, so two
//!   hundred browsers would take a third of a core from the pushes.
//! - A script that pushes and then asks wants to see what it pushed.
//!
//! So an answer is shared for [`SHARED_TIMES`] the CPU time that it took, and no longer than [`API_SHARED_MILLIS_MAX`].
//! All clients with one question then cost some two percent of a core, and with few tenants an answer is never older
//! than a few milliseconds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::limits::{API_SHARED_BYTES_MAX, API_SHARED_MILLIS_MAX};

/// For how many times the CPU time of its making an answer is shared.
const SHARED_TIMES: u32 = 50;

/// A path below `/api/v1/`, and its query.
pub(super) type Question = (Box<[u8]>, Box<[u8]>);

/// The answers that are shared now.
#[derive(Debug, Default)]
pub(in crate::admin) struct Answers(RefCell<HashMap<Question, Answer>>);

#[derive(Debug)]
struct Answer {
    body: Bytes,
    until: Instant,
}

impl Answers {
    /// The body of the answer to `question`, if one is shared.
    pub(super) fn get(&self, question: &Question, now: Instant) -> Option<Bytes> {
        let answers = self.0.borrow();
        answers.get(question).filter(|answer| now < answer.until).map(|answer| answer.body.clone())
    }

    /// Shares an answer that took so much CPU time and is done `now`. If there is no room for it, those go that would
    /// go first.
    pub(super) fn put(&self, question: Question, body: Bytes, took: Duration, now: Instant) {
        let until = now + (took * SHARED_TIMES).min(Duration::from_millis(API_SHARED_MILLIS_MAX));
        let mut answers = self.0.borrow_mut();
        answers.retain(|_, answer| now < answer.until);
        answers.remove(&question);
        let held = |(question, answer): (&Question, &Answer)| size(question, &answer.body);
        let mut bytes = answers.iter().map(held).sum::<usize>() + size(&question, &body);
        while bytes > API_SHARED_BYTES_MAX {
            let first = answers.iter().min_by_key(|(_, answer)| answer.until).map(|(first, _)| first.clone());
            let Some((first, answer)) = first.and_then(|first| answers.remove_entry(&first)) else { return };
            bytes -= size(&first, &answer.body);
        }
        answers.insert(question, Answer { body, until });
    }
}

fn size(question: &Question, body: &Bytes) -> usize {
    question.0.len() + question.1.len() + body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(path: &str) -> Question {
        (path.as_bytes().into(), b"limit=50".as_slice().into())
    }

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn an_answer_is_shared_for_as_long_as_it_was_dear() {
        let (answers, now) = (Answers::default(), Instant::now());
        answers.put(question("tenants"), Bytes::from_static(b"{}"), 2 * MILLI, now);
        assert_eq!(answers.get(&question("tenants"), now + 99 * MILLI).as_deref(), Some(b"{}".as_slice()));
        assert_eq!(answers.get(&question("status"), now), None);
        assert_eq!(answers.get(&question("tenants"), now + 100 * MILLI), None);
        // One that took long is not shared for minutes.
        answers.put(question("tenants"), Bytes::from_static(b"[]"), 10_000 * MILLI, now);
        let most = Duration::from_millis(API_SHARED_MILLIS_MAX);
        assert!(answers.get(&question("tenants"), now + most - MILLI).is_some());
        assert_eq!(answers.get(&question("tenants"), now + most), None);
    }

    #[test]
    fn shared_answers_take_bounded_memory() {
        let (answers, now) = (Answers::default(), Instant::now());
        let body = Bytes::from(vec![b'x'; API_SHARED_BYTES_MAX / 4]);
        for n in 0..100 {
            let later = now + n * MILLI / 10;
            answers.put(question(&n.to_string()), body.clone(), MILLI, later);
            // An equal question takes the place of its answer.
            answers.put(question(&n.to_string()), body.clone(), MILLI, later);
        }
        let is_kept = |n: u32| answers.get(&question(&n.to_string()), now + 10 * MILLI).is_some();
        assert_eq!([96, 97, 98, 99].map(is_kept), [false, true, true, true], "the latest are kept");
        assert_eq!(answers.0.borrow().len(), 3);
        // Old ones make room.
        answers.put(question("new"), body, MILLI, now + 61 * MILLI);
        assert_eq!(answers.0.borrow().len(), 1);
        // One that never fits.
        answers.put(
            question("large"),
            Bytes::from(vec![b'x'; API_SHARED_BYTES_MAX]),
            MILLI,
            now + 61 * MILLI,
        );
        assert!(answers.get(&question("large"), now + 61 * MILLI).is_none());
    }
}
