// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a policy would have kept of a sample of the keys: its queues without the pages.

use hashlink::{LinkedHashMap, LinkedHashSet};

use super::Policy;
use super::rules::{Departure, Rules};
use super::victim::{Patience, TwoQueues, victim};
use crate::shard::space::queue::Queue;
use crate::shard::space::record::MAX_FREQUENCY;

/// Sampled keys in the order in which they leave, with how often each was used.
type Keys = LinkedHashMap<u32, u8>;

/// The pages that are there, as keys.
#[derive(Default)]
struct Pages {
    small: Keys,
    main: Keys,
}

impl Pages {
    fn keys(&self, queue: Queue) -> &Keys {
        if queue == Queue::Main { &self.main } else { &self.small }
    }

    fn keys_mut(&mut self, queue: Queue) -> &mut Keys {
        if queue == Queue::Main { &mut self.main } else { &mut self.small }
    }

    /// Takes a page out; returns the queue it was in.
    fn remove(&mut self, key: u32) -> Option<Queue> {
        [Queue::Small, Queue::Main].into_iter().find(|queue| self.keys_mut(*queue).remove(&key).is_some())
    }
}

impl TwoQueues for Pages {
    type Page = u32;

    fn size(&self, queue: Queue) -> u64 {
        self.keys(queue).len() as u64
    }

    fn oldest(&self, queue: Queue) -> Option<(u32, u8)> {
        self.keys(queue).front().map(|(key, frequency)| (*key, *frequency))
    }

    fn spare(&mut self, from: Queue, to: Queue, frequency: u8) {
        if let Some((key, _)) = self.keys_mut(from).pop_front() {
            self.keys_mut(to).insert(key, frequency);
        }
    }
}

/// One policy's queues.
pub(super) struct Shadow {
    policy: Policy,
    pages: Pages,
    /// Names that are remembered, the oldest first.
    ghosts: LinkedHashSet<u32>,
}

impl Shadow {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, pages: Pages::default(), ghosts: LinkedHashSet::new() }
    }

    /// Pages that are there.
    pub(super) fn len(&self) -> usize {
        self.pages.small.len() + self.pages.main.len()
    }

    /// A page is put into a store that has room for so many sampled ones.
    pub(super) fn put(&mut self, key: u32, capacity: usize) {
        self.flush(key);
        let queue = self.policy.admit(self.ghosts.remove(&key));
        self.pages.keys_mut(queue).insert(key, 0);
        let mut patience = Patience::for_a_record();
        while self.len() > capacity {
            let Some(key) = victim(&mut self.pages, self.policy, &mut patience) else { return };
            self.leave(key, Departure::Evicted);
        }
    }

    /// Whether a page that is asked for would have been there.
    pub(super) fn get(&mut self, key: u32, exclusive: bool) -> bool {
        if exclusive {
            return self.leave(key, |_| Departure::Hit);
        }
        let used = self.pages.small.get_mut(&key).or_else(|| self.pages.main.get_mut(&key));
        used.map(|frequency| *frequency = MAX_FREQUENCY.min(*frequency + 1)).is_some()
    }

    /// Forgets a page that is not valid any more; returns whether it was there.
    pub(super) fn flush(&mut self, key: u32) -> bool {
        self.pages.remove(key).is_some()
    }

    /// Forgets all keys but some.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.pages.small.retain(|key, _| keep(*key));
        self.pages.main.retain(|key, _| keep(*key));
        self.ghosts.retain(|key| keep(*key));
    }

    /// Takes out a page that leaves in some way; returns whether it was there.
    fn leave(&mut self, key: u32, how: impl FnOnce(Queue) -> Departure) -> bool {
        let Some(queue) = self.pages.remove(key) else { return false };
        if self.policy.remembers(how(queue)) {
            self.ghosts.insert(key);
            while self.ghosts.len() > self.len() - self.len() / 10 {
                self.ghosts.pop_front();
            }
        }
        true
    }
}
