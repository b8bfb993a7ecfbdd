// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finding the page that leaves next, by a policy's rules, in a bounded number of steps.
//!
//! A page that was used is spared: it moves to the newer end of a queue. When all pages of a heap
//! were used, finding one to evict would take a step for each of them and for each use, and the
//! whole shard waits meanwhile. So patience is limited, and when it ends a page goes although it
//! was used. What was spared until then has lost a use each, so the next to look for a victim
//! continues there: as each spare takes away what a get has added, patience ends only after many
//! gets without a put in between.

use super::rules::Rules;
use crate::shard::space::queue::Queue;

/// Both queues of some pages, as far as choosing one of them takes.
pub(super) trait TwoQueues {
    /// What a page is known by.
    type Page: Copy;

    /// What is in a queue, in any unit that is the same for both.
    fn size(&self, queue: Queue) -> u64;

    /// The page that has been in a queue longest, and how often it was used.
    fn oldest(&self, queue: Queue) -> Option<(Self::Page, u8)>;

    /// Moves the oldest page of `from` to the newer end of `to`, with another frequency.
    fn spare(&mut self, from: Queue, to: Queue, frequency: u8);
}

/// How many pages may be spared before one goes that was used.
#[derive(Debug)]
pub(crate) struct Patience(u32);

impl Patience {
    /// For all that are evicted for one record, which are few. A spare takes a fifth of the time of
    /// an eviction or less.
    pub(crate) const fn for_a_record() -> Self {
        Self(512)
    }

    /// For some hundred pages that leave together.
    pub(crate) const fn for_a_step() -> Self {
        Self(1024)
    }

    fn has_ended(&mut self) -> bool {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                false
            }
            None => true,
        }
    }
}

/// The page that leaves next; of the pages that were spared before patience ended, the one that had
/// been used least. `None` if there are no pages.
pub(super) fn victim<Q: TwoQueues>(queues: &mut Q, rules: impl Rules, patience: &mut Patience) -> Option<Q::Page> {
    let mut least: Option<(Q::Page, u8)> = None;
    loop {
        let from = rules.next(queues.size(Queue::Small), queues.size(Queue::Main));
        let (page, frequency) = queues.oldest(from)?;
        let Some((to, left)) = rules.spare(from, frequency) else { return Some(page) };
        if least.is_none_or(|(_, uses)| frequency < uses) {
            least = Some((page, frequency));
        }
        if patience.has_ended() {
            return least.map(|(page, _)| page);
        }
        queues.spare(from, to, left);
    }
}

/// Queues in plain memory, to try rules on.
#[cfg(test)]
pub(super) mod model {
    use std::collections::VecDeque;

    use super::*;

    /// Pages and their frequencies, the oldest first.
    #[derive(Default)]
    pub(in crate::shard::evict) struct Model {
        small: VecDeque<(u32, u8)>,
        main: VecDeque<(u32, u8)>,
        pub(in crate::shard::evict) spares: u32,
    }

    impl Model {
        fn queue(&mut self, queue: Queue) -> &mut VecDeque<(u32, u8)> {
            if queue == Queue::Main { &mut self.main } else { &mut self.small }
        }

        pub(in crate::shard::evict) fn main(&self) -> Vec<(u32, u8)> {
            self.main.iter().copied().collect()
        }

        pub(in crate::shard::evict) fn put(&mut self, rules: impl Rules, page: u32, remembered: bool) {
            self.queue(rules.admit(remembered)).push_back((page, 0));
        }

        pub(in crate::shard::evict) fn hit(&mut self, page: u32) {
            let entry = self.small.iter_mut().chain(&mut self.main).find(|(other, _)| *other == page);
            entry.expect("the page is there").1 += 1;
        }

        /// Evicts a page; returns which and where it was.
        pub(in crate::shard::evict) fn evict(&mut self, rules: impl Rules) -> Option<(u32, Queue)> {
            self.evict_with(rules, &mut Patience::for_a_record())
        }

        pub(in crate::shard::evict) fn evict_with(
            &mut self,
            rules: impl Rules,
            patience: &mut Patience,
        ) -> Option<(u32, Queue)> {
            let page = victim(self, rules, patience)?;
            [Queue::Small, Queue::Main].into_iter().find_map(|queue| {
                let pages = self.queue(queue);
                let at = pages.iter().position(|(other, _)| *other == page)?;
                pages.remove(at);
                Some((page, queue))
            })
        }
    }

    impl TwoQueues for Model {
        type Page = u32;

        fn size(&self, queue: Queue) -> u64 {
            let pages = if queue == Queue::Main { &self.main } else { &self.small };
            pages.len() as u64
        }

        fn oldest(&self, queue: Queue) -> Option<(u32, u8)> {
            let pages = if queue == Queue::Main { &self.main } else { &self.small };
            pages.front().copied()
        }

        fn spare(&mut self, from: Queue, to: Queue, frequency: u8) {
            self.spares += 1;
            let (page, _) = self.queue(from).pop_front().expect("the page is there");
            self.queue(to).push_back((page, frequency));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::model::Model;
    use super::*;
    use crate::shard::evict::Policy;

    /// A thousand pages that were all used, page 50 once and the others three times.
    fn used() -> Model {
        let mut pages = Model::default();
        for page in 0..1000 {
            pages.put(Policy::S3Fifo, page, page % 2 == 0);
            for _ in 0..if page == 50 { 1 } else { 3 } {
                pages.hit(page);
            }
        }
        pages
    }

    #[test]
    fn a_page_goes_although_all_were_used() {
        for policy in [Policy::S3Fifo, Policy::Clock] {
            let mut pages = used();
            assert!(pages.evict(policy).is_some(), "{policy:?} finds no page of a thousand");
            assert_eq!(pages.spares, 512, "{policy:?} spares as many as it has patience");
        }
    }

    #[test]
    fn one_patience_is_for_all_that_leave_together() {
        for policy in [Policy::S3Fifo, Policy::Clock] {
            let mut pages = used();
            let mut patience = Patience::for_a_record();
            for n in 0..32 {
                assert!(pages.evict_with(policy, &mut patience).is_some(), "{policy:?} finds no {n}th page");
            }
            assert_eq!(pages.spares, 512, "{policy:?} spares as many as it has patience");
        }
    }

    #[test]
    fn when_patience_ends_the_page_used_least_goes() {
        let mut pages = Model::default();
        for page in 0..1000 {
            pages.put(Policy::Clock, page, false);
            for _ in 0..if page == 50 { 1 } else { 3 } {
                pages.hit(page);
            }
        }
        assert_eq!(pages.evict(Policy::Clock), Some((50, Queue::Main)));
    }

    #[test]
    fn what_was_spared_has_less_to_be_spared_for() {
        let mut pages = Model::default();
        for page in 0..1000 {
            pages.put(Policy::S3Fifo, page, true);
            for _ in 0..3 {
                pages.hit(page);
            }
        }
        // 3000 uses, 512 at a time.
        for _ in 0..5 {
            assert!(pages.evict(Policy::S3Fifo).is_some());
        }
        assert_eq!(pages.spares, 5 * 512);
        for _ in 0..500 {
            assert!(pages.evict(Policy::S3Fifo).is_some());
        }
        assert!(pages.spares < 3000, "pages were spared {} times for 3000 uses", pages.spares);
    }
}
