// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a policy would have kept of a sample of the keys: its queues without the pages.

use hashlink::{LinkedHashMap, LinkedHashSet};

use super::Policy;
use crate::shard::space::record::MAX_FREQUENCY;

/// Sampled keys in the order in which they leave, with how often each was used.
type Queue = LinkedHashMap<u32, u8>;

/// One policy's queues.
pub(super) struct Shadow {
    policy: Policy,
    small: Queue,
    main: Queue,
    ghosts: LinkedHashSet<u32>,
}

impl Shadow {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, small: Queue::new(), main: Queue::new(), ghosts: LinkedHashSet::new() }
    }

    /// Pages that are there.
    pub(super) fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    /// A page is put into a store that has room for so many sampled ones.
    pub(super) fn put(&mut self, key: u32, capacity: usize) {
        self.flush(key);
        let proven = self.ghosts.remove(&key) || self.policy == Policy::Clock;
        let queue = if proven { &mut self.main } else { &mut self.small };
        queue.insert(key, 0);
        while self.len() > capacity {
            self.evict_one();
        }
    }

    /// Whether a page that is asked for would have been there.
    pub(super) fn get(&mut self, key: u32, exclusive: bool) -> bool {
        if exclusive {
            let hit = self.flush(key);
            if hit {
                self.remember(key);
            }
            return hit;
        }
        let used = self.small.get_mut(&key).or_else(|| self.main.get_mut(&key));
        used.map(|frequency| *frequency = MAX_FREQUENCY.min(*frequency + 1)).is_some()
    }

    /// Forgets a page that is not valid any more; returns whether it was there.
    pub(super) fn flush(&mut self, key: u32) -> bool {
        self.small.remove(&key).or_else(|| self.main.remove(&key)).is_some()
    }

    /// Forgets all keys but some.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.small.retain(|key, _| keep(*key));
        self.main.retain(|key, _| keep(*key));
        self.ghosts.retain(|key| keep(*key));
    }

    /// The same steps as [`crate::shard::space::Space::victim`] and what follows it.
    fn evict_one(&mut self) {
        let from_small = self.policy.is_small_next(self.small.len() as u64, self.main.len() as u64);
        let queue = if from_small { &mut self.small } else { &mut self.main };
        let Some((key, frequency)) = queue.pop_front() else { return };
        if frequency > 0 {
            self.main.insert(key, self.policy.spare(from_small, frequency));
        } else if from_small {
            self.remember(key);
        }
    }

    fn remember(&mut self, key: u32) {
        if self.policy == Policy::S3Fifo {
            self.ghosts.insert(key);
            while self.ghosts.len() > self.len() - self.len() / 10 {
                self.ghosts.pop_front();
            }
        }
    }
}
