// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! S3-FIFO, adapted to gets that remove what they find. (Yang et al., *FIFO queues are all you need
//! for cache eviction*, SOSP 2023.)
//!
//! New pages enter the small queue, a fourteenth of the heap (a tenth in the paper; this was better
//! by 0.1 to 2.5 points on all traces of `cargo xtask bench evict` but one). A page that reaches
//! its end without a hit leaves, and its name is remembered; one that was hit moves to the main
//! queue, where hits buy further rounds. A put of a remembered name goes to the main queue at once.
//! So a scan passes through the small queue and evicts nothing but itself.
//!
//! Exclusive gets change what can be learned: the hit removes the page, so no page in the store
//! ever shows that it is popular. The name of a page that left by a hit is therefore remembered
//! too, and its next put counts as the second use that the hit was.

use super::rules::{Departure, Rules};
use crate::shard::space::queue::Queue;

/// The small queue's share of a heap is 1 / this.
const SMALL_SHARE: u64 = 14;

#[derive(Clone, Copy)]
pub(super) struct S3Fifo;

impl Rules for S3Fifo {
    fn admit(self, remembered: bool) -> Queue {
        if remembered { Queue::Main } else { Queue::Small }
    }

    fn next(self, small: u64, main: u64) -> Queue {
        let too_large = small * SMALL_SHARE >= small + main;
        if small > 0 && (main == 0 || too_large) { Queue::Small } else { Queue::Main }
    }

    /// Out of the small queue one use is enough; the main one gives a round for each.
    fn spare(self, from: Queue, frequency: u8) -> Option<(Queue, u8)> {
        let left = frequency.checked_sub(1)?;
        Some((Queue::Main, if from == Queue::Small { 0 } else { left }))
    }

    /// A page that left the main queue had its chance: remembering it as well would let a loop
    /// longer than the store wash the main queue out.
    fn remembers(self, departure: Departure) -> bool {
        departure != Departure::Evicted(Queue::Main)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::evict::victim::model::Model;

    #[test]
    fn a_scan_evicts_only_itself() {
        let mut pages = Model::default();
        for hot in 0..26 {
            pages.put(S3Fifo, hot, true);
        }
        for page in 100..102 {
            pages.put(S3Fifo, page, false);
        }
        for page in 102..200 {
            assert_eq!(pages.evict(S3Fifo), Some((page - 2, Queue::Small)), "while page {page} comes");
            pages.put(S3Fifo, page, false);
        }
    }

    #[test]
    fn a_page_of_the_small_queue_that_was_hit_moves_to_the_main_one_as_if_new() {
        let mut pages = Model::default();
        pages.put(S3Fifo, 1, false);
        pages.put(S3Fifo, 2, false);
        for _ in 0..3 {
            pages.hit(1);
        }
        assert_eq!(pages.evict(S3Fifo), Some((2, Queue::Small)));
        assert_eq!(pages.main(), [(1, 0)]);
    }

    #[test]
    fn each_hit_buys_a_round_of_the_main_queue() {
        let mut pages = Model::default();
        for page in 0..3 {
            pages.put(S3Fifo, page, true);
            for _ in 0..page {
                pages.hit(page);
            }
        }
        let left: Vec<u32> = std::iter::from_fn(|| pages.evict(S3Fifo)).map(|(page, _)| page).collect();
        assert_eq!(left, [0, 1, 2]);
    }

    #[test]
    fn names_are_remembered_of_pages_that_did_not_have_their_chance() {
        assert!(S3Fifo.remembers(Departure::Hit));
        assert!(S3Fifo.remembers(Departure::Evicted(Queue::Small)));
        assert!(!S3Fifo.remembers(Departure::Evicted(Queue::Main)));
        assert_eq!([false, true].map(|remembered| S3Fifo.admit(remembered)), [Queue::Small, Queue::Main]);
    }
}
