// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The queues of a heap. They run through the records themselves: the queue word holds the
//! locations of the next newer and the next older page.

use super::Policy;
use crate::arena::word::{pair, split};
use crate::shard::space::Space;
use crate::shard::space::holes::NIL;

/// Word of a linked record that holds its neighbours.
const LINK: u32 = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    newest: u32,
    oldest: u32,
    words: u64,
}

/// Both queues of a heap.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queues {
    small: Queue,
    main: Queue,
}

impl Queues {
    fn of(&mut self, main: bool) -> &mut Queue {
        if main { &mut self.main } else { &mut self.small }
    }
}

/// What to do with the page at the end of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The page at this location goes.
    Evict(u32),
    /// Nothing is in the queues.
    Empty,
}

impl Space {
    /// Enters a page whose head says which queue it is to be in.
    pub(crate) fn enqueue(&mut self, at: u32) {
        let head = self.page_head(at);
        let heap = self.heap_of(at);
        let queue = *self.heap_mut(heap).queues.of(head.is_main());
        self.set_word(at + LINK, pair(NIL, queue.newest));
        if queue.newest != NIL {
            let (_, older) = split(self.word(queue.newest + LINK));
            self.set_word(queue.newest + LINK, pair(at, older));
        }
        let queue = self.heap_mut(heap).queues.of(head.is_main());
        queue.newest = at;
        if queue.oldest == NIL {
            queue.oldest = at;
        }
        queue.words += u64::from(head.words());
    }

    /// Takes a page out of its queue.
    pub(crate) fn dequeue(&mut self, at: u32) {
        let head = self.page_head(at);
        let heap = self.heap_of(at);
        let (newer, older) = split(self.word(at + LINK));
        self.join_neighbours(heap, head.is_main(), newer, older, older, newer);
        self.heap_mut(heap).queues.of(head.is_main()).words -= u64::from(head.words());
    }

    /// Gives `to`, a copy of the page at `from`, its place in the queue.
    pub(crate) fn requeue(&mut self, from: u32, to: u32) {
        let head = self.page_head(from);
        let heap = self.heap_of(from);
        let link = self.word(from + LINK);
        let (newer, older) = split(link);
        self.set_word(to + LINK, link);
        self.join_neighbours(heap, head.is_main(), newer, older, to, to);
        let before = u64::from(head.words());
        let after = u64::from(self.page_head(to).words());
        let queue = self.heap_mut(heap).queues.of(head.is_main());
        queue.words = queue.words + after - before;
    }

    /// Makes the neighbours of a page point to `to_newer` and `to_older` in its stead.
    fn join_neighbours(&mut self, heap: usize, main: bool, newer: u32, older: u32, for_newer: u32, for_older: u32) {
        if newer == NIL {
            self.heap_mut(heap).queues.of(main).newest = for_newer;
        } else {
            let (beyond, _) = split(self.word(newer + LINK));
            self.set_word(newer + LINK, pair(beyond, for_newer));
        }
        if older == NIL {
            self.heap_mut(heap).queues.of(main).oldest = for_older;
        } else {
            let (_, beyond) = split(self.word(older + LINK));
            self.set_word(older + LINK, pair(for_older, beyond));
        }
    }

    /// Checks both queues of a heap and collects what is in them.
    #[cfg(feature = "check")]
    pub(crate) fn check_queue(&self, heap: usize, queued: &mut std::collections::HashSet<u32>) -> Result<(), String> {
        let Queues { small, main } = self.heap(heap).queues;
        for (queue, is_main) in [(small, false), (main, true)] {
            let (mut before, mut at, mut words) = (NIL, queue.newest, 0);
            while at != NIL {
                let head = self.page_head(at);
                let (newer, older) = split(self.word(at + LINK));
                if newer != before || head.is_main() != is_main || !queued.insert(at) {
                    return Err(format!("page {at:#x} has the wrong place in its queue"));
                }
                words += u64::from(head.words());
                (before, at) = (at, older);
            }
            if queue.oldest != before || queue.words != words {
                return Err(format!("a queue of heap {heap} does not end where it says"));
            }
        }
        Ok(())
    }

    /// Finds the page to evict next. Pages that earned it move on the way, each at most
    /// [`crate::shard::space::record::MAX_FREQUENCY`] times, so this ends.
    pub(crate) fn victim(&mut self, heap: usize, policy: Policy) -> Verdict {
        loop {
            let Queues { small, main } = self.heap(heap).queues;
            let from_small = policy.is_small_next(small.words, main.words);
            let at = if from_small { small.oldest } else { main.oldest };
            if at == NIL {
                return Verdict::Empty;
            }
            let head = self.page_head(at);
            if head.frequency() == 0 {
                return Verdict::Evict(at);
            }
            self.dequeue(at);
            let frequency = policy.spare(from_small, head.frequency());
            self.set_word(at, head.with_main(true).with_frequency(frequency).0);
            self.enqueue(at);
        }
    }
}
