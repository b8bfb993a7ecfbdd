// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes a shard's index again from its segments alone.
//!
//! Of each record the head and the name are read, and the payload of few: a page is verified when
//! it is got, as ever. Heads are gone through once ([`super::space::adopt`]), and what they lead to
//! is read a second time with many reads under way.

use std::collections::BTreeMap;

use crate::accounting::Use;
use crate::key::{ObjectId, PAGE_SIZE};
use crate::op::Refusal;
use crate::shard::index::nodes::Node;
use crate::shard::index::objects::{OBJECT_CLASS, Object};
use crate::shard::index::tree::Tree;
use crate::shard::space::Location;
use crate::shard::space::adopt::{Adopted, Remains};
use crate::shard::space::record::{
    Life, OBJECT_WORDS, ObjectName, PageHead, PageName, PayloadSum, check_object, id_of,
};
use crate::shard::{HEAD_WORDS, PoolSlot, Shard, bucket_hash};
use crate::stats::Contents;

/// Records that are asked for ahead of the one that is looked at.
const AHEAD: usize = 16;

/// A pool that exists.
#[derive(Clone, Copy)]
pub(crate) struct Alive {
    /// Its number in the shard.
    pub(crate) pool: PoolSlot,
    /// The heap of its pages.
    pub(crate) heap: usize,
    /// The life it is in: objects of others were flushed, or their pool destroyed.
    pub(crate) life: Life,
}

/// The pools of a guest by the numbers that object records have.
type Pools = BTreeMap<u32, Alive>;

/// The heaps of the objects that have a name, by the cell of their node.
#[derive(Default)]
struct Named(Vec<Option<u16>>);

impl Named {
    fn heap(&self, object: Node) -> Option<usize> {
        let heap = *self.0.get(object.cell() as usize)?;
        heap.map(usize::from)
    }

    fn insert(&mut self, object: Node, heap: usize) {
        let at = object.cell() as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        self.0[at] = u16::try_from(heap).ok();
    }
}

/// One shard on its way back.
struct Recovery<'a> {
    shard: &'a mut Shard,
    /// Hash of a pool's object.
    hash: &'a dyn Fn(u32, &ObjectId) -> u64,
    pools: &'a Pools,
    named: Named,
    /// Objects that have a name.
    objects: Vec<Node>,
    /// Records that were dropped because they are damaged, or belong to nothing.
    dropped: u64,
}

impl Shard {
    /// Takes over segments and makes the index of what is in them; the heaps exist. Returns how
    /// many records were dropped.
    pub(crate) fn recover(
        &mut self,
        mut remains: Vec<Remains>,
        hash: &dyn Fn(u32, &ObjectId) -> u64,
        pools: &Pools,
    ) -> Result<u64, Refusal> {
        let era = remains.iter().map(|segment| segment.era).max().unwrap_or_default();
        // Object numbers of an earlier era are those of other objects now.
        remains.retain(|segment| segment.era == era);
        self.space.begin_era(era);
        let (named, objects) = (Named::default(), Vec::new());
        // What is there may be more than the limits allow by now.
        self.nodes.set_regardless(true);
        let mut recovery = Recovery { shard: self, hash, pools, named, objects, dropped: 0 };
        recovery.run(remains)?;
        let dropped = recovery.dropped;
        self.nodes.set_regardless(false);
        Ok(dropped)
    }
}

impl Recovery<'_> {
    fn run(&mut self, remains: Vec<Remains>) -> Result<(), Refusal> {
        let mut find = self.shard.space.adopt(remains)?;
        self.claim_objects(&find.names)?;
        self.enter_pages(&find.pages, &find.segments)?;
        for number in std::mem::take(&mut self.objects) {
            if Object::read(&self.shard.nodes, number).pages == 0 {
                self.shard.drop_object(number);
            }
        }
        self.shard.space.open_adopted(&mut find);
        Ok(())
    }

    /// Asks for the record that comes next but some.
    fn prefetch(&self, records: &[Location], now: usize, words: u32) {
        if let Some(at) = records.get(now + AHEAD) {
            self.shard.space.prefetch(*at, words);
        }
    }

    fn drop_record(&mut self, at: Location, words: u32) {
        self.shard.space.free(at, words);
        self.dropped += 1;
    }

    /// Makes an object node for each name, under its old number.
    fn claim_objects(&mut self, names: &[Location]) -> Result<(), Refusal> {
        let mut claimed = Vec::with_capacity(names.len());
        for (now, at) in names.iter().enumerate() {
            self.prefetch(names, now, OBJECT_WORDS);
            let heap = self.shard.space.heap_of(*at);
            let words = self.shard.space.words(*at, OBJECT_WORDS);
            let name = words.try_into().ok().and_then(check_object);
            let id = id_of([words[2], words[3], words[4]]);
            // A name may be there twice, if it was being moved.
            let name = name.filter(|name| self.named.heap(name.object).is_none());
            let Some((name, pool)) = name.and_then(|name| Some((name, self.pool_of(name, heap)?))) else {
                self.drop_record(*at, OBJECT_WORDS);
                continue;
            };
            self.shard.nodes.claim(name.object, OBJECT_CLASS, heap)?;
            self.named.insert(name.object, heap);
            claimed.push((name, pool, *at, id));
        }
        self.shard.nodes.finish_claims();
        for (name, pool, record, id) in claimed {
            let heap = self.shard.space.heap_of(record);
            let hash = bucket_hash((self.hash)(name.pool, &id));
            let object = Object { record, hash, pages: 0, pool, tree: Tree::default() };
            object.write(&mut self.shard.nodes, name.object);
            self.objects.push(name.object);
            let Some(Some(pool)) = self.shard.pools.get_mut(pool.0) else { continue };
            pool.objects.insert(&mut self.shard.nodes, heap, name.object)?;
        }
        Ok(())
    }

    /// The number of the pool that an object of that heap belongs to, if it still exists.
    fn pool_of(&self, name: ObjectName, heap: usize) -> Option<PoolSlot> {
        let alive = self.pools.get(&name.pool)?;
        (alive.life == name.life && alive.heap == heap).then_some(alive.pool)
    }

    fn enter_pages(&mut self, pages: &[Location], adopted: &[Adopted]) -> Result<(), Refusal> {
        for (now, at) in pages.iter().enumerate() {
            self.prefetch(pages, now, HEAD_WORDS);
            let (head, name) = (self.shard.space.page_head(*at), self.shard.space.page_name(*at));
            let slot = self.shard.space.slot(at.slot());
            let (heap, linked) = (slot.heap, self.shard.space.heap(slot.heap).purpose == Use::Evictable);
            let known = self.named.heap(name.object) == Some(heap);
            let plausible = known && head.length() <= PAGE_SIZE && head.is_linked() == linked;
            // Where one head is damaged, what was taken for heads behind it may be payload.
            let whole = adopted.get(at.slot()).is_some_and(|segment| segment.whole);
            if plausible && (whole || self.is_intact(*at, head, name)) {
                self.enter_page(heap, *at, head, name)?;
            } else {
                self.drop_record(*at, head.words());
            }
        }
        Ok(())
    }

    fn is_intact(&self, at: Location, head: PageHead, name: PageName) -> bool {
        let mut bytes = [0; PAGE_SIZE];
        self.shard.space.copy_payload(at, head, &mut bytes);
        PayloadSum::new(&bytes[..head.length()]).finish(head, name) == head.checksum()
    }

    fn enter_page(&mut self, heap: usize, at: Location, head: PageHead, name: PageName) -> Result<(), Refusal> {
        let mut object = Object::read(&self.shard.nodes, name.object);
        if let Some(other) = object.tree.get(&self.shard.nodes, name.index) {
            // A page may be there twice, if it was being moved or recompressed; generations wrap.
            let age = self.shard.space.page_name(other).generation.wrapping_sub(name.generation);
            if age < u32::MAX / 2 || !self.is_intact(at, head, name) {
                self.drop_record(at, head.words());
                return Ok(());
            }
            self.shard.discard(object.pool, other);
            self.dropped += 1;
            object.tree.relocate(&mut self.shard.nodes, name.index, at);
            object.write(&mut self.shard.nodes, name.object);
        } else {
            let before = object.tree;
            object.tree.insert(&mut self.shard.nodes, heap, name.index, at)?;
            object.pages += 1;
            self.shard.write_object(heap, name.object, &object, before);
        }
        self.entered(at, head, name, object.pool);
        Ok(())
    }

    fn entered(&mut self, at: Location, head: PageHead, name: PageName, pool: PoolSlot) {
        let shard = &mut *self.shard;
        shard.count(pool, at, head, Contents::add);
        if head.is_linked() {
            shard.space.enqueue(at);
        }
        if shard.generation.wrapping_sub(name.generation) > u32::MAX / 2 {
            shard.generation = name.generation;
        }
    }
}
