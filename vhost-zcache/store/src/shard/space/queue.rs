// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The two queues of a heap's pages. They run through the records themselves: a record's queue word
//! holds the locations of the next newer and the next older page, its head which queue it is in.
//! Which page leaves next, and which one moves, is not decided here but in [`crate::shard::evict`].

use super::record::PageHead;
use super::{Location, Space};

/// Word of a linked record that holds its neighbours.
const LINK: u32 = 3;

/// One of the two queues that each page of an evictable heap is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Pages that have yet to prove themselves.
    Small,
    /// All others.
    Main,
}

impl Queue {
    /// The queue that a page's head names.
    pub(crate) fn of(head: PageHead) -> Self {
        if head.is_main() { Self::Main } else { Self::Small }
    }
}

/// Where a queue begins and ends.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    newest: Location,
    oldest: Location,
    words: u64,
}

/// Both queues of a heap.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queues {
    small: Ends,
    main: Ends,
}

impl Queues {
    fn get(&self, queue: Queue) -> &Ends {
        match queue {
            Queue::Small => &self.small,
            Queue::Main => &self.main,
        }
    }

    fn get_mut(&mut self, queue: Queue) -> &mut Ends {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    /// Words of the pages in a queue.
    pub(crate) fn words(&self, queue: Queue) -> u64 {
        self.get(queue).words
    }

    /// The page that has been in a queue longest.
    pub(in crate::shard) fn oldest(&self, queue: Queue) -> Option<Location> {
        Some(self.get(queue).oldest).filter(|at| *at != Location::NONE)
    }
}

impl Space {
    /// Enters a page whose head says which queue it is to be in.
    pub(in crate::shard) fn enqueue(&mut self, at: Location) {
        let head = self.page_head(at);
        let heap = self.heap_of(at);
        let queue = *self.heap(heap).queues.get(Queue::of(head));
        self.set_word(at + LINK, Location::pair(Location::NONE, queue.newest));
        if queue.newest != Location::NONE {
            let (_, older) = Location::split(self.word(queue.newest + LINK));
            self.set_word(queue.newest + LINK, Location::pair(at, older));
        }
        let queue = self.heap_mut(heap).queues.get_mut(Queue::of(head));
        queue.newest = at;
        if queue.oldest == Location::NONE {
            queue.oldest = at;
        }
        queue.words += u64::from(head.words());
    }

    /// Takes a page out of its queue.
    pub(in crate::shard) fn dequeue(&mut self, at: Location) {
        let head = self.page_head(at);
        let heap = self.heap_of(at);
        let (newer, older) = Location::split(self.word(at + LINK));
        self.join_neighbours(heap, Queue::of(head), newer, older, older, newer);
        self.heap_mut(heap).queues.get_mut(Queue::of(head)).words -= u64::from(head.words());
    }

    /// Gives `to`, a copy of the page at `from`, its place in the queue.
    pub(in crate::shard) fn requeue(&mut self, from: Location, to: Location) {
        let head = self.page_head(from);
        let heap = self.heap_of(from);
        let link = self.word(from + LINK);
        let (newer, older) = Location::split(link);
        self.set_word(to + LINK, link);
        self.join_neighbours(heap, Queue::of(head), newer, older, to, to);
        let before = u64::from(head.words());
        let after = u64::from(self.page_head(to).words());
        let queue = self.heap_mut(heap).queues.get_mut(Queue::of(head));
        queue.words = queue.words + after - before;
    }

    /// Makes the neighbours of a page point to `for_newer` and `for_older` in its stead.
    fn join_neighbours(
        &mut self,
        heap: usize,
        queue: Queue,
        newer: Location,
        older: Location,
        for_newer: Location,
        for_older: Location,
    ) {
        if newer == Location::NONE {
            self.heap_mut(heap).queues.get_mut(queue).newest = for_newer;
        } else {
            let (beyond, _) = Location::split(self.word(newer + LINK));
            self.set_word(newer + LINK, Location::pair(beyond, for_newer));
        }
        if older == Location::NONE {
            self.heap_mut(heap).queues.get_mut(queue).oldest = for_older;
        } else {
            let (_, beyond) = Location::split(self.word(older + LINK));
            self.set_word(older + LINK, Location::pair(for_older, beyond));
        }
    }

    /// Checks both queues of a heap and collects what is in them.
    #[cfg(feature = "check")]
    pub(in crate::shard) fn check_queue(
        &self,
        heap: usize,
        queued: &mut std::collections::HashSet<Location>,
    ) -> Result<(), String> {
        for queue in [Queue::Small, Queue::Main] {
            let ends = self.heap(heap).queues.get(queue);
            let (mut before, mut at, mut words) = (Location::NONE, ends.newest, 0);
            while at != Location::NONE {
                let head = self.page_head(at);
                let (newer, older) = Location::split(self.word(at + LINK));
                if newer != before || Queue::of(head) != queue || !queued.insert(at) {
                    return Err(format!("page {at:#x} has the wrong place in its queue"));
                }
                words += u64::from(head.words());
                (before, at) = (at, older);
            }
            if ends.oldest != before || ends.words != words {
                return Err(format!("a queue of heap {heap} does not end where it says"));
            }
        }
        Ok(())
    }

    /// Moves a page to the newer end of a queue, with another frequency.
    pub(in crate::shard) fn move_to(&mut self, at: Location, queue: Queue, frequency: u8) {
        self.dequeue(at);
        let head = self.page_head(at).with_main(queue == Queue::Main).with_frequency(frequency);
        self.set_word(at, head.0);
        self.enqueue(at);
    }
}
