// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! CLOCK, for guests whose work changes: what is new is as good as anything else.
//!
//! All pages enter the main queue, and a page that was hit gets another round. What is in the small
//! queue from the time of another policy goes first. Nothing is remembered, as nothing would come
//! of it.

use super::rules::{Departure, Rules};
use crate::shard::space::queue::Queue;

#[derive(Clone, Copy)]
pub(super) struct Clock;

impl Rules for Clock {
    fn admit(self, _remembered: bool) -> Queue {
        Queue::Main
    }

    fn next(self, small: u64, _main: u64) -> Queue {
        if small > 0 { Queue::Small } else { Queue::Main }
    }

    /// One round for all hits.
    fn spare(self, _from: Queue, frequency: u8) -> Option<(Queue, u8)> {
        (frequency > 0).then_some((Queue::Main, 0))
    }

    fn remembers(self, _departure: Departure) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::evict::s3_fifo::S3Fifo;
    use crate::shard::evict::victim::model::Model;

    #[test]
    fn a_page_that_was_hit_gets_one_round_for_all_hits() {
        let mut pages = Model::default();
        for page in 0..3 {
            pages.put(Clock, page, false);
        }
        for _ in 0..3 {
            pages.hit(0);
        }
        let left: Vec<_> = std::iter::from_fn(|| pages.evict(Clock)).collect();
        assert_eq!(left, [1, 2, 0].map(|page| (page, Queue::Main)));
    }

    #[test]
    fn what_another_policy_left_in_the_small_queue_goes_first() {
        let mut pages = Model::default();
        pages.put(Clock, 1, false);
        pages.put(S3Fifo, 2, false);
        pages.put(S3Fifo, 3, false);
        pages.hit(3);
        let left: Vec<_> = std::iter::from_fn(|| pages.evict(Clock)).collect();
        assert_eq!(left, [(2, Queue::Small), (1, Queue::Main), (3, Queue::Main)]);
    }

    #[test]
    fn a_page_that_comes_back_is_as_good_as_a_new_one() {
        assert_eq!([false, true].map(|remembered| Clock.admit(remembered)), [Queue::Main; 2]);
        assert!(!Clock.remembers(Departure::Hit));
        assert!(!Clock.remembers(Departure::Evicted(Queue::Small)));
    }
}
