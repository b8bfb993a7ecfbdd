// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The textbook policies that the store's eviction is compared with. They hold names only.

use std::collections::{HashMap, VecDeque};

/// A cache of page names.
pub(super) trait Policy {
    /// Looks a page up; `remove` takes it out on a hit.
    fn get(&mut self, key: u64, remove: bool) -> bool;
    /// Enters a page that is not there.
    fn put(&mut self, key: u64);
    /// Takes a page out.
    fn flush(&mut self, key: u64);
}

/// All of them, by name.
pub(super) fn all(capacity: usize) -> Vec<(&'static str, Box<dyn Policy>)> {
    vec![
        ("FIFO", Box::new(Queue::new(capacity, false))),
        ("LRU", Box::new(Queue::new(capacity, true))),
        ("CLOCK", Box::new(Ring::new(capacity, false))),
        ("SIEVE", Box::new(Ring::new(capacity, true))),
        ("S3-FIFO", Box::new(S3Fifo::new(capacity))),
    ]
}

/// A guest's page cache.
pub(super) fn lru(capacity: usize) -> Queue {
    Queue::new(capacity.max(1), true)
}

/// FIFO, and LRU, which is a FIFO where a hit enters again.
pub(super) struct Queue {
    capacity: usize,
    renew: bool,
    stamps: HashMap<u64, u64>,
    /// Entries whose stamp is not the key's are stale.
    order: VecDeque<(u64, u64)>,
    next: u64,
}

impl Queue {
    fn new(capacity: usize, renew: bool) -> Self {
        Self { capacity, renew, stamps: HashMap::new(), order: VecDeque::new(), next: 0 }
    }

    /// Enters a page and returns the one that had to leave.
    pub(super) fn put_dropping(&mut self, key: u64) -> Option<u64> {
        let mut dropped = None;
        while self.stamps.len() >= self.capacity {
            let (oldest, stamp) = self.order.pop_front()?;
            if self.stamps.get(&oldest) == Some(&stamp) {
                self.stamps.remove(&oldest);
                dropped = Some(oldest);
            }
        }
        self.enter(key);
        dropped
    }

    fn enter(&mut self, key: u64) {
        self.next += 1;
        self.stamps.insert(key, self.next);
        self.order.push_back((key, self.next));
    }
}

impl Policy for Queue {
    fn get(&mut self, key: u64, remove: bool) -> bool {
        let hit = self.stamps.contains_key(&key);
        if hit && remove {
            self.stamps.remove(&key);
        } else if hit && self.renew {
            self.enter(key);
        }
        hit
    }

    fn put(&mut self, key: u64) {
        self.put_dropping(key);
    }

    fn flush(&mut self, key: u64) {
        self.stamps.remove(&key);
    }
}

/// CLOCK and SIEVE: a list from new to old, a bit for each page and a hand that clears it. CLOCK
/// moves a spared page to the front, SIEVE leaves it and lets the hand go on.
struct Ring {
    capacity: usize,
    sieve: bool,
    places: HashMap<u64, usize>,
    nodes: Vec<Node>,
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
    hand: usize,
}

struct Node {
    key: u64,
    used: bool,
    newer: usize,
    older: usize,
}

const NONE: usize = usize::MAX;

impl Ring {
    fn new(capacity: usize, sieve: bool) -> Self {
        Self {
            capacity,
            sieve,
            places: HashMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            hand: NONE,
        }
    }

    fn link(&mut self, node: usize) {
        self.nodes[node].older = self.newest;
        self.nodes[node].newer = NONE;
        if self.newest != NONE {
            self.nodes[self.newest].newer = node;
        }
        self.newest = node;
        if self.oldest == NONE {
            self.oldest = node;
        }
    }

    fn unlink(&mut self, node: usize) {
        let Node { newer, older, .. } = self.nodes[node];
        if self.hand == node {
            self.hand = newer;
        }
        if newer == NONE {
            self.newest = older;
        } else {
            self.nodes[newer].older = older;
        }
        if older == NONE {
            self.oldest = newer;
        } else {
            self.nodes[older].newer = newer;
        }
    }

    fn remove(&mut self, key: u64) {
        if let Some(node) = self.places.remove(&key) {
            self.unlink(node);
            self.free.push(node);
        }
    }

    fn evict(&mut self) {
        loop {
            let at = if self.sieve && self.hand != NONE { self.hand } else { self.oldest };
            if at == NONE {
                return;
            }
            if !self.nodes[at].used {
                self.hand = at;
                let key = self.nodes[at].key;
                self.remove(key);
                return;
            }
            self.nodes[at].used = false;
            if self.sieve {
                self.hand = self.nodes[at].newer;
            } else {
                self.unlink(at);
                self.link(at);
            }
        }
    }
}

impl Policy for Ring {
    fn get(&mut self, key: u64, remove: bool) -> bool {
        let Some(node) = self.places.get(&key).copied() else { return false };
        if remove {
            self.remove(key);
        } else {
            self.nodes[node].used = true;
        }
        true
    }

    fn put(&mut self, key: u64) {
        if self.places.len() >= self.capacity {
            self.evict();
        }
        let node = Node { key, used: false, newer: NONE, older: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.link(at);
        self.places.insert(key, at);
    }

    fn flush(&mut self, key: u64) {
        self.remove(key);
    }
}

/// S3-FIFO as published: a tenth small, a ghost queue of as many names as the main queue holds.
struct S3Fifo {
    capacity: usize,
    /// Stamp, uses, and whether the page is in the main queue.
    pages: HashMap<u64, (u64, u8, bool)>,
    small: VecDeque<(u64, u64)>,
    main: VecDeque<(u64, u64)>,
    in_small: usize,
    ghosts: HashMap<u64, u64>,
    ghost_order: VecDeque<(u64, u64)>,
    next: u64,
}

impl S3Fifo {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            pages: HashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            in_small: 0,
            ghosts: HashMap::new(),
            ghost_order: VecDeque::new(),
            next: 0,
        }
    }

    fn stamp(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn enter(&mut self, key: u64, uses: u8, main: bool) {
        let stamp = self.stamp();
        self.pages.insert(key, (stamp, uses, main));
        if main {
            self.main.push_back((key, stamp));
        } else {
            self.small.push_back((key, stamp));
            self.in_small += 1;
        }
    }

    fn remove(&mut self, key: u64) -> bool {
        let Some((_, _, main)) = self.pages.remove(&key) else { return false };
        self.in_small -= usize::from(!main);
        true
    }

    fn remember(&mut self, key: u64) {
        let stamp = self.stamp();
        self.ghosts.insert(key, stamp);
        self.ghost_order.push_back((key, stamp));
        while self.ghosts.len() > self.capacity * 9 / 10 {
            let Some((oldest, stamp)) = self.ghost_order.pop_front() else { return };
            if self.ghosts.get(&oldest) == Some(&stamp) {
                self.ghosts.remove(&oldest);
            }
        }
    }

    fn evict(&mut self) {
        let before = self.pages.len();
        while self.pages.len() == before {
            let from_small = self.in_small * 10 >= self.capacity || self.in_small == before;
            let queue = if from_small { &mut self.small } else { &mut self.main };
            let Some((key, stamp)) = queue.pop_front() else { return };
            let Some((current, uses, main)) = self.pages.get(&key).copied() else { continue };
            if current != stamp {
                continue;
            }
            match (main, uses) {
                (false, 0) => {
                    self.remove(key);
                    self.remember(key);
                }
                (false, _) => {
                    self.remove(key);
                    self.enter(key, 0, true);
                }
                (true, 0) => {
                    self.remove(key);
                }
                (true, _) => {
                    self.remove(key);
                    self.enter(key, uses - 1, true);
                }
            }
        }
    }
}

impl Policy for S3Fifo {
    fn get(&mut self, key: u64, remove: bool) -> bool {
        let Some((_, uses, _)) = self.pages.get_mut(&key) else { return false };
        *uses = (*uses + 1).min(3);
        if remove {
            self.remove(key);
        }
        true
    }

    fn put(&mut self, key: u64) {
        if self.pages.len() >= self.capacity {
            self.evict();
        }
        let known = self.ghosts.remove(&key).is_some();
        self.enter(key, 0, known);
    }

    fn flush(&mut self, key: u64) {
        self.remove(key);
    }
}
