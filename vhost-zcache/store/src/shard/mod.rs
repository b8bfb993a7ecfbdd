// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One shard: everything about a part of the keys, under one lock. Its own index, its own
//! segments, its own queues; nothing in it refers to another shard.

#[cfg(feature = "check")]
mod check;
pub(crate) mod cold;
pub(crate) mod compact;
mod contents;
pub(crate) mod evict;
pub(crate) mod export;
mod get;
pub(crate) mod index;
mod leave;
mod put;
pub(crate) mod recover;
mod relocate;
mod remove;
pub(crate) mod retire;
mod shed;
pub(crate) mod space;
pub(crate) mod work;

use std::sync::Arc;

use crate::accounting::{Account, Use};
use crate::codec::Codec;
use crate::fault::Faults;
use crate::key::ObjectId;
use crate::shard::evict::duel::Duel;
use crate::shard::evict::learn::Learned;
use crate::shard::index::nodes::{Node, Nodes};
use crate::shard::index::objects::{Object, Objects};
use crate::shard::index::tree::Tree;
use crate::shard::retire::Retired;
use crate::shard::space::record::{Life, OBJECT_WORDS, PageHead, PayloadSum, id_words};
use crate::shard::space::{Location, Space};
use crate::stats::{Contents, Counters};

/// Words of a page that are looked at when it is replaced.
const HEAD_WORDS: u32 = 4;

/// A pool's place among those of its shard, which hands it out when the pool is added; at most
/// 2^24. Other shards have other places for the same pool. It is used again when the pool's last
/// page is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolSlot(pub(in crate::shard) usize);

/// One pool's part in this shard.
#[derive(Default)]
pub(crate) struct PoolShard {
    /// The guest's number of it, written into object records.
    pub(crate) id: u32,
    /// Which of the lives under that number this is, written into object records as well.
    pub(crate) life: Life,
    pub(crate) objects: Objects,
    /// All pages there are, those that are out of service included.
    pub(crate) contents: Contents,
    /// Pages of objects that are out of service.
    pub(crate) retired_pages: u64,
    /// The pool as a whole is out of service.
    pub(crate) retired: bool,
    pub(crate) counters: Counters,
}

impl PoolShard {
    /// Pages that can be found.
    pub(crate) fn in_service(&self) -> u64 {
        self.contents.pages - self.retired_pages
    }
}

/// A key, as a shard needs it.
pub(crate) struct PageKey<'a> {
    pub(crate) pool: PoolSlot,
    /// Keyed hash of pool and object.
    pub(crate) hash: u64,
    pub(crate) object: &'a ObjectId,
    pub(crate) index: u64,
}

impl PageKey<'_> {
    fn bucket_hash(&self) -> u32 {
        bucket_hash(self.hash)
    }
}

/// The part of an object's hash that its node keeps.
pub(crate) fn bucket_hash(hash: u64) -> u32 {
    (hash & 0xffff_ffff) as u32
}

/// An encoded page on its way in.
pub(crate) struct NewPage<'a> {
    pub(crate) codec: Codec,
    pub(crate) bytes: &'a [u8],
    pub(crate) sum: PayloadSum,
    /// Coarse time.
    pub(crate) epoch: u8,
    /// Known from an earlier life, so worth a place in the main queue.
    pub(crate) proven: bool,
    /// Whether other pages of the same heap may be evicted for it.
    pub(crate) may_evict: bool,
}

/// One shard of a guest's or a shared pool's keys.
pub(crate) struct Shard {
    pub(crate) space: Space,
    pub(crate) nodes: Nodes,
    pools: Vec<Option<PoolShard>>,
    /// Numbers of no pool.
    vacant_pools: Vec<PoolSlot>,
    retired: Retired,
    /// Of each evictable heap.
    pub(crate) learned: Vec<Option<Learned>>,
    generation: u32,
    /// The slot that is being emptied.
    compaction: Option<usize>,
    /// Heaps of guests that have left.
    leaving: Vec<usize>,
}

impl Shard {
    pub(crate) fn new(space: Space, faults: Faults) -> Self {
        Self {
            space,
            nodes: Nodes::new(faults),
            pools: Vec::new(),
            vacant_pools: Vec::new(),
            retired: Retired::default(),
            learned: Vec::new(),
            generation: 0,
            compaction: None,
            leaving: Vec::new(),
        }
    }

    /// Pages that were put, counted around.
    pub(crate) fn puts(&self) -> u32 {
        self.generation
    }

    /// Adds a heap under a number that is free, an evictable one with its duel; its number is the
    /// owner's number for the index, too.
    pub(crate) fn add_heap(
        &mut self,
        heap: usize,
        account: &Arc<Account>,
        purpose: Use,
        guest: u32,
        duel: Option<&Arc<Duel>>,
    ) {
        self.space.add_heap(heap, Arc::clone(account), purpose, guest);
        self.nodes.add_owner(heap, Arc::clone(account));
        if self.learned.len() <= heap {
            self.learned.resize_with(heap + 1, || None);
        }
        self.learned[heap] = duel.map(|duel| Learned::new(Arc::clone(account), Arc::clone(duel)));
    }

    /// Adds a pool, empty, and returns its number in this shard.
    pub(crate) fn add_pool(&mut self, id: u32, life: Life) -> PoolSlot {
        self.place_pool(PoolShard { id, life, ..PoolShard::default() })
    }

    /// The pool in that place, if there is one.
    pub(crate) fn pool(&self, pool: PoolSlot) -> Option<&PoolShard> {
        self.pools.get(pool.0)?.as_ref()
    }

    /// The pool in that place, which must exist.
    pub(crate) fn pool_mut(&mut self, pool: PoolSlot) -> &mut PoolShard {
        self.pools[pool.0].as_mut().expect("objects belong to existing pools only")
    }

    fn is_named(&self, object: &Object, id: [u64; 3]) -> bool {
        self.space.words(object.record, OBJECT_WORDS)[2..] == id
    }

    fn find(&self, key: &PageKey) -> Option<(Node, Object)> {
        let objects = &self.pool(key.pool)?.objects;
        let id = id_words(key.object);
        objects.find(&self.nodes, key.bucket_hash(), |object| self.is_named(object, id))
    }

    /// An object, and where its page of the key's index is. In a large store each step is a line of
    /// memory that no cache has, so name and page (its first `soon` words) are asked for before
    /// either is looked at.
    fn find_page(&self, key: &PageKey, soon: u32) -> Option<(Node, Object, Option<Location>)> {
        let objects = &self.pool(key.pool)?.objects;
        let id = id_words(key.object);
        objects.prefetch(&self.nodes, key.bucket_hash(), key.index);
        let mut at = None;
        let (number, object) = objects.find(&self.nodes, key.bucket_hash(), |object| {
            self.space.prefetch(object.record, OBJECT_WORDS);
            at = object.tree.get(&self.nodes, key.index);
            if let Some(at) = at {
                self.space.prefetch(at, soon);
            }
            self.is_named(object, id)
        })?;
        Some((number, object, at))
    }

    /// Writes an object whose tree was `before`, and lets lookups guess where its pages are now.
    pub(in crate::shard) fn write_object(&mut self, owner: usize, number: Node, object: &Object, before: Tree) {
        object.write(&mut self.nodes, number);
        if object.tree != before
            && !object.is_retired()
            && let Some(pool) = &mut self.pools[object.pool.0]
        {
            pool.objects.guess(&mut self.nodes, owner, object);
        }
    }

    /// Adds a page to what its heap and its pool hold, or takes it off.
    pub(in crate::shard) fn count(
        &mut self,
        pool: PoolSlot,
        at: Location,
        head: PageHead,
        change: fn(&mut Contents, PageHead),
    ) {
        let heap = self.space.heap_of(at);
        change(&mut self.space.heap_mut(heap).contents, head);
        change(&mut self.pool_mut(pool).contents, head);
    }
}
