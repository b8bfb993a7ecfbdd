// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Removing much at once: pools, objects and members of shared pools.
//!
//! What goes is taken out of the index by its top, which takes the same time whatever its size, and
//! cannot be found from then on. Its records follow in steps, in the background or when memory is
//! short ([`Shard::collect`]); if nothing is left in service in the shard, all of its memory is
//! taken away as a whole and given back without the lock ([`Shard::detach`]).
//!
//! A later process finds records of what has gone, and drops them: an object that was removed has
//! no name any more, and a pool's life is not in the guest's roster.

use super::index::nodes::{Node, Nodes};
use super::index::objects::{Object, Objects};
use super::shed::Orphans;
use super::space::record::{Life, OBJECT_WORDS};
use super::space::{Location, Slot};
use super::{PoolShard, PoolSlot, Shard};
use crate::arena::memory::Segment;
use crate::stats::Contents;

/// So many pages, or fewer, are removed at once. Tests use small pools.
pub(super) const FEW: u64 = if cfg!(feature = "check") { 2 } else { 16 };

/// What is left of what was removed, and is not collected yet. Memory it takes is paid for.
#[derive(Default)]
pub(crate) struct Retired {
    /// Numbers of pools.
    pools: Vec<PoolSlot>,
    /// Objects that are in no table and have no name.
    objects: Vec<Node>,
    /// What is left of the index of pages that were shed.
    orphans: Vec<Orphans>,
}

impl Retired {
    pub(super) fn add_orphans(&mut self, orphans: Orphans) {
        self.orphans.push(orphans);
    }

    #[cfg(feature = "check")]
    pub(super) fn objects(&self) -> &[Node] {
        &self.objects
    }
}

/// The memory of a shard in which nothing was left in service. Dropping it gives the memory back.
pub(crate) struct Detached {
    segments: Vec<Slot>,
    nodes: Option<Nodes>,
}

impl Detached {
    /// Segments that nothing refers to any more.
    pub(crate) fn of(segments: Vec<Slot>) -> Self {
        Self::new(segments, None)
    }

    fn new(mut segments: Vec<Slot>, nodes: Option<Nodes>) -> Self {
        // What is side by side is given back together.
        segments.sort_unstable_by_key(|slot| slot.segment.number());
        Self { segments, nodes }
    }

    /// Gives back about `most` segments; returns how many bytes that were, and whether it was all.
    pub(crate) fn release(&mut self, most: usize) -> (u64, bool) {
        let mut left = self.segments.len().saturating_sub(most);
        while left > 0 && self.segments[left].segment.is_behind_in_block(&self.segments[left - 1].segment) {
            left -= 1;
        }
        let mut released = self.segments.split_off(left);
        let mut bytes = released.iter().map(|slot| slot.charge.bytes()).sum();
        Segment::empty(released.iter_mut().map(|slot| &mut slot.segment));
        drop(released);
        if left == 0 {
            bytes += self.nodes.take().map_or(0, |nodes| nodes.resident_bytes());
        }
        (bytes, left == 0)
    }

    /// Bytes that are charged for it.
    pub(crate) fn bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|slot| slot.charge.bytes()).sum();
        segments + self.nodes.as_ref().map_or(0, Nodes::resident_bytes)
    }
}

impl Shard {
    /// Takes a pool out of service; returns how many pages it had.
    pub(crate) fn retire_pool(&mut self, number: PoolSlot) -> u64 {
        let pool = self.pool_mut(number);
        let pages = pool.in_service();
        pool.retired = true;
        if pages <= FEW {
            self.remove_some(number, FEW);
        }
        if self.pool_mut(number).contents.pages == 0 {
            self.drop_pool(number);
        } else {
            self.retired.pools.push(number);
        }
        pages
    }

    /// Takes all pages of a pool out of service, which begins another life, maybe under another
    /// number: returns how many pages there were, and the number.
    pub(crate) fn flush_pool(&mut self, number: PoolSlot, life: Life) -> (u64, PoolSlot) {
        let pool = self.pool_mut(number);
        let pages = pool.in_service();
        pool.counters.flushed += pages;
        if pages <= FEW {
            pool.life = life;
            self.remove_some(number, FEW);
            return (pages, number);
        }
        let heir = PoolShard { id: pool.id, life, counters: pool.counters, ..PoolShard::default() };
        self.retire_pool(number);
        (pages, self.place_pool(heir))
    }

    /// Gives a pool the first number that is free.
    pub(super) fn place_pool(&mut self, pool: PoolShard) -> PoolSlot {
        if let Some(number) = self.vacant_pools.pop() {
            self.pools[number.0] = Some(pool);
            return number;
        }
        self.pools.push(Some(pool));
        PoolSlot(self.pools.len() - 1)
    }

    fn drop_pool(&mut self, number: PoolSlot) {
        self.pools[number.0] = None;
        self.vacant_pools.push(number);
    }

    /// Takes all pages of an object out of service; returns how many there were.
    pub(super) fn retire_object(&mut self, number: Node) -> u64 {
        let mut object = Object::read(&self.nodes, number);
        let pages = u64::from(object.pages);
        let record = object.record;
        if let Some(pool) = &mut self.pools[object.pool.0] {
            pool.objects.remove(&mut self.nodes, number);
            pool.retired_pages += pages;
        }
        object.record = Location::NONE;
        object.write(&mut self.nodes, number);
        self.space.free(record, OBJECT_WORDS);
        self.retired.objects.push(number);
        pages
    }

    /// Removes at most `most` pages that are out of service; returns whether there may be more.
    pub(crate) fn collect(&mut self, most: u64) -> bool {
        let mut left = most;
        while left > 0 && self.has_retired() {
            if let Some(number) = self.retired.objects.last().copied() {
                left -= self.remove_indexes(number, 0, u64::MAX, left).0;
                if Object::read(&self.nodes, number).pages == 0 {
                    self.nodes.free(number);
                    self.retired.objects.pop();
                }
                continue;
            }
            if let Some(number) = self.retired.pools.last().copied() {
                let removed = self.remove_some(number, left);
                if removed < left {
                    self.drop_pool(number);
                    self.retired.pools.pop();
                }
                left -= removed;
                continue;
            }
            if let Some(orphans) = self.retired.orphans.last_mut()
                && orphans.forget(&mut self.nodes, &mut left)
            {
                self.retired.orphans.pop();
            }
        }
        self.has_retired()
    }

    /// Whether anything is out of service and not collected.
    pub(crate) fn has_retired(&self) -> bool {
        self.has_retired_records() || !self.retired.orphans.is_empty()
    }

    /// Whether records are, which become holes when they are collected.
    pub(super) fn has_retired_records(&self) -> bool {
        !self.retired.objects.is_empty() || !self.retired.pools.is_empty()
    }

    /// Takes away all the shard has if something was retired and nothing is in service.
    pub(crate) fn detach_idle(&mut self) -> Option<Detached> {
        let idle = |pool: &PoolShard| pool.retired || pool.in_service() == 0;
        (self.has_retired() && self.pools.iter().flatten().all(idle)).then(|| self.detach())
    }

    /// Takes away all the shard has. Its pools stay, without pages, unless they were retired.
    pub(crate) fn detach(&mut self) -> Detached {
        for number in std::mem::take(&mut self.retired).pools {
            self.drop_pool(number);
        }
        for pool in self.pools.iter_mut().flatten() {
            pool.objects = Objects::default();
            pool.contents = Contents::default();
            pool.retired_pages = 0;
        }
        self.compaction = None;
        Detached::new(self.space.take_all(), Some(self.nodes.renew()))
    }
}
