// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The chain that a queue has in service, written down so that the next worker goes on in it where
//! this one died.
//!
//! Each request's result is noted when its effect is complete, so that a request that was carried
//! out is not carried out again: the next worker takes the noted results, and begins with the
//! request after them. That one may have been begun; carrying it out again gives the same contents
//! (SPEC section 9), but not always the same answer. Where it would not, what the answer will be is
//! noted before the first effect: [`QueueLedger::plan`].

use zcache_protocol::RequestResult;
use zerocopy::{FromBytes, IntoBytes};

use super::atomic::{AtomicU64, Ordering, fence};
use super::word::store;
use crate::crash::{self, Place};
use crate::device::batch::MAX_BATCH;
use crate::device::counters::QueueCounters;

/// How often a chain is taken into service. One that was in service at so many deaths has caused
/// them, as far as anybody can tell.
const MOST_ATTEMPTS: u64 = 2;

const RESULTS: usize = MAX_BATCH as usize;

/// What is known of one queue.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct QueueLedger {
    /// The chain in service: see [`Chain`].
    chain: AtomicU64,
    /// Number of the request of which the answer is planned, counted from 1; 0 for none.
    planned: AtomicU64,
    plan: [AtomicU64; 2],
    /// Whether the queue is left alone until it is stopped and started.
    quarantined: AtomicU64,
    results: [[AtomicU64; 2]; RESULTS],
    /// Counts over all workers.
    pub counters: QueueCounters,
}

/// The word that describes the chain in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chain {
    index: u16,
    /// Requests of which the results are noted.
    done: u8,
    /// How often it was taken.
    attempts: u64,
}

impl Chain {
    /// `None` while no chain is in service.
    fn of(word: u64) -> Option<Self> {
        let [index_low, index_high, done, ..] = word.to_le_bytes();
        let attempts = word >> 32;
        (attempts > 0).then(|| Self { index: u16::from_le_bytes([index_low, index_high]), done, attempts })
    }

    fn word(self) -> u64 {
        u64::from(self.index) | u64::from(self.done) << 16 | self.attempts << 32
    }
}

/// What is to be done with a chain that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Serve it, from the request of this number on; the results of those before are noted.
    From(usize),
    /// It was in service when two workers died. It is not served again.
    Poisoned,
}

impl QueueLedger {
    /// One of which nothing is known.
    #[cfg(test)]
    pub(super) fn unused() -> Self {
        Self {
            chain: AtomicU64::new(0),
            planned: AtomicU64::new(0),
            plan: Default::default(),
            quarantined: AtomicU64::new(0),
            results: std::array::from_fn(|_| Default::default()),
            counters: QueueCounters::default(),
        }
    }

    /// A chain is taken into service, which is the `index`th of the ring.
    pub fn take(&self, index: u16) -> Attempt {
        let chain = match Chain::of(self.chain.load(Ordering::Acquire)) {
            Some(chain) if chain.index == index && chain.attempts >= MOST_ATTEMPTS => return Attempt::Poisoned,
            Some(chain) if chain.index == index => Chain { attempts: chain.attempts + 1, ..chain },
            _ => {
                store(&self.planned, 0, Ordering::Relaxed);
                Chain { index, done: 0, attempts: 1 }
            }
        };
        store(&self.chain, chain.word(), Ordering::Release);
        Attempt::From(usize::from(chain.done).min(RESULTS))
    }

    /// The result of a request that was carried out.
    #[must_use]
    pub fn result(&self, number: usize) -> RequestResult {
        let words = self.results[number].each_ref().map(|word| word.load(Ordering::Relaxed));
        RequestResult::read_from_bytes(words.as_bytes()).unwrap_or_default()
    }

    /// The request of this number was carried out, and its page written.
    pub fn done(&self, number: usize, result: &RequestResult) {
        for (word, bytes) in self.results[number].iter().zip(result.as_bytes().as_chunks::<8>().0) {
            store(word, u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        crash::point(Place::ResultNoted);
        if let Some(chain) = Chain::of(self.chain.load(Ordering::Relaxed)) {
            let done = u8::try_from(number + 1).unwrap_or(u8::MAX);
            store(&self.chain, Chain { done, ..chain }.word(), Ordering::Release);
        }
        crash::point(Place::RequestDone);
    }

    /// The chain was used, so that nobody will take it again.
    pub fn complete(&self) {
        store(&self.chain, 0, Ordering::Release);
        crash::point(Place::ChainForgotten);
    }

    /// What will be answered to the request of this number, if its answer was planned.
    #[must_use]
    pub fn planned(&self, number: usize) -> Option<[u64; 2]> {
        let planned = self.planned.load(Ordering::Acquire) == number as u64 + 1;
        planned.then(|| self.plan.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    /// Notes what will be answered to a request, before anything is done.
    pub fn plan(&self, number: usize, answer: [u64; 2]) {
        store(&self.planned, 0, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.plan.iter().zip(answer) {
            store(word, value, Ordering::Relaxed);
        }
        store(&self.planned, number as u64 + 1, Ordering::Release);
        crash::point(Place::AnswerPlanned);
    }

    /// Leaves the queue alone, also in the next worker, until it is stopped.
    pub fn quarantine(&self) {
        store(&self.quarantined, 1, Ordering::Release);
    }

    /// Whether the queue is left alone.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Acquire) != 0
    }

    /// The chain in service has not caused the death of its worker, which must be dead.
    pub fn forgive(&self) {
        if let Some(chain) = Chain::of(self.chain.load(Ordering::Acquire)) {
            let attempts = chain.attempts.saturating_sub(1);
            // 0 would say that there is no chain.
            let chain = Chain { attempts: attempts.max(1), ..chain };
            store(&self.chain, chain.word(), Ordering::Release);
        }
    }

    /// The queue was stopped: what is known of its chains concerns nobody any more.
    pub fn forget(&self) {
        store(&self.chain, 0, Ordering::Release);
        store(&self.quarantined, 0, Ordering::Release);
    }

    /// The chain in service, in words; `None` while none is.
    #[must_use]
    pub fn in_service(&self) -> Option<String> {
        self.progress().and_then(Chain::of).map(|Chain { index, done, attempts }| {
            format!("chain {index}, of which {done} requests were done, taken {attempts} times")
        })
    }

    /// The chain in service, and how far it is, as a number that is another when it goes on; `None`
    /// while none is.
    #[must_use]
    pub fn progress(&self) -> Option<u64> {
        Some(self.chain.load(Ordering::Relaxed)).filter(|word| Chain::of(*word).is_some() && !self.is_quarantined())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::word::deaths;

    #[test]
    fn a_chain_goes_on_after_the_last_request_that_was_done() {
        let queue = QueueLedger::unused();
        assert_eq!(queue.take(u16::MAX), Attempt::From(0));
        let result = RequestResult { status: 3.into(), value: 77.into(), ..RequestResult::default() };
        queue.done(0, &result);
        queue.plan(1, [5, 6]);
        assert_eq!(queue.take(u16::MAX), Attempt::From(1), "the same chain");
        assert_eq!(queue.result(0).as_bytes(), result.as_bytes());
        assert_eq!((queue.planned(0), queue.planned(1)), (None, Some([5, 6])));
        queue.complete();
        assert_eq!(queue.take(0), Attempt::From(0), "the next chain");
        assert_eq!(queue.planned(1), None, "the plan was another chain's");
    }

    /// Serves a chain of three requests, of which the second has a planned answer.
    fn serve(queue: &QueueLedger) {
        let Attempt::From(first) = queue.take(7) else { panic!("it was served at one death only") };
        for number in first..3 {
            if number == 1 && queue.planned(1).is_none() {
                queue.plan(1, [5, 6]);
            }
            queue.done(number, &answer(number));
        }
        queue.complete();
    }

    fn answer(number: usize) -> RequestResult {
        RequestResult { status: 1.into(), value: (number as u64 + 70).into(), ..RequestResult::default() }
    }

    #[test]
    fn a_death_anywhere_in_a_chain_repeats_one_request_at_most() {
        let made = || {
            let queue = QueueLedger::unused();
            // What the chain before has left means nothing.
            assert_eq!(queue.take(6), Attempt::From(0));
            queue.plan(0, [1, 2]);
            (0..3).for_each(|number| queue.done(number, &RequestResult::default()));
            queue.complete();
            queue
        };
        deaths::everywhere(made, serve, |queue, _| {
            let Attempt::From(first) = queue.take(7) else { panic!("nobody has died of it") };
            for number in 0..first {
                assert_eq!(queue.result(number).as_bytes(), answer(number).as_bytes(), "of request {number}");
            }
            assert_eq!(queue.planned(0), None, "the plan was another chain's");
            let planned = queue.planned(1);
            assert!(planned.is_none_or(|planned| planned == [5, 6]), "half a plan: {planned:?}");
            assert!(planned.is_some() || first < 2, "request 1 was answered without its plan");
            for number in first..3 {
                queue.done(number, &answer(number));
            }
            queue.complete();
            assert_eq!(queue.take(8), Attempt::From(0));
        });
    }

    #[test]
    fn a_chain_that_is_forgiven_is_served_again() {
        let queue = QueueLedger::unused();
        for _ in 0..5 {
            assert_eq!(queue.take(7), Attempt::From(0));
            queue.forgive();
        }
        queue.complete();
        queue.forgive();
        assert_eq!(queue.progress(), None, "there is no chain");
    }

    #[test]
    fn a_chain_that_was_in_service_at_two_deaths_is_not_served() {
        let queue = QueueLedger::unused();
        assert_eq!(queue.take(7), Attempt::From(0));
        assert_eq!(queue.take(7), Attempt::From(0));
        assert_eq!(queue.take(7), Attempt::Poisoned);
        queue.forget();
        assert_eq!(queue.take(7), Attempt::From(0), "the queue was stopped");
        queue.complete();
        assert_eq!((queue.take(8), queue.take(8)), (Attempt::From(0), Attempt::From(0)));
        queue.complete();
        assert_eq!(queue.take(9), Attempt::From(0), "others are no reason");
    }
}
