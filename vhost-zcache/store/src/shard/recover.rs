// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes a shard's index again from its segments alone.

use std::collections::{BTreeMap, HashMap};

use crate::accounting::Use;
use crate::arena::header::Lane;
use crate::arena::memory::Segment;
use crate::key::{ObjectId, PAGE_SIZE};
use crate::op::Refusal;
use crate::shard::index::nodes::Node;
use crate::shard::index::objects::{OBJECT_CLASS, Object};
use crate::shard::index::tree::Tree;
use crate::shard::space::record::{
    Head, Life, OBJECT_WORDS, ObjectName, PageHead, PageName, PayloadSum, check_object, id_of,
};
use crate::shard::space::{FIRST, Location};
use crate::shard::{PoolSlot, Shard, bucket_hash};
use crate::stats::Contents;

/// A pool that exists.
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

/// One shard on its way back.
struct Recovery<'a> {
    shard: &'a mut Shard,
    /// Hash of a pool's object.
    hash: &'a dyn Fn(u32, &ObjectId) -> u64,
    pools: &'a Pools,
    /// Records that were dropped because they are damaged, or belong to nothing.
    dropped: u64,
}

impl Shard {
    /// Takes over segments and makes the index of what is in them; the heaps exist. Returns how
    /// many records were dropped.
    pub(crate) fn recover(
        &mut self,
        segments: Vec<(usize, Lane, Segment)>,
        hash: &dyn Fn(u32, &ObjectId) -> u64,
        pools: &Pools,
    ) -> Result<u64, Refusal> {
        let mut recovery = Recovery { shard: self, hash, pools, dropped: 0 };
        recovery.run(segments)?;
        Ok(recovery.dropped)
    }
}

impl Recovery<'_> {
    fn run(&mut self, segments: Vec<(usize, Lane, Segment)>) -> Result<(), Refusal> {
        let mut slots = Vec::new();
        for (heap, lane, segment) in segments {
            slots.push(self.shard.space.adopt(heap, lane, segment)?);
        }
        let objects = self.claim_objects(&slots)?;
        self.enter_pages(&slots, &objects)?;
        for number in objects.keys() {
            if Object::read(&self.shard.nodes, *number).pages == 0 {
                self.shard.drop_object(*number);
            }
        }
        for slot in slots {
            self.shard.space.stop_draining(slot);
        }
        Ok(())
    }

    fn records(&self, slot: usize) -> Vec<(Location, Head)> {
        let mut records = Vec::new();
        let mut at = Location::new(slot, FIRST);
        while let Some((head, next)) = self.shard.space.walk(at) {
            if matches!(head, Head::Page(_) | Head::Object) {
                records.push((at, head));
            }
            at = next;
        }
        records
    }

    fn drop_record(&mut self, at: Location, head: Head) {
        self.shard.space.free(at, head.words());
        self.dropped += 1;
    }

    /// Makes an object node for each name, under its old number. Returns their heaps.
    fn claim_objects(&mut self, slots: &[usize]) -> Result<HashMap<Node, usize>, Refusal> {
        let mut found = HashMap::new();
        let mut names = Vec::new();
        for slot in slots {
            let heap = self.shard.space.slot(*slot).heap;
            for (at, head) in self.records(*slot) {
                if head != Head::Object {
                    continue;
                }
                let words = self.shard.space.words(at, OBJECT_WORDS);
                let name = words.try_into().ok().and_then(check_object);
                let id = id_of([words[2], words[3], words[4]]);
                // A name may be there twice, if it was being moved.
                let name = name.filter(|name| !found.contains_key(&name.object));
                let Some((name, pool)) = name.and_then(|name| Some((name, self.pool_of(name, heap)?))) else {
                    self.drop_record(at, head);
                    continue;
                };
                self.shard.nodes.claim(name.object, OBJECT_CLASS, heap)?;
                found.insert(name.object, heap);
                names.push((name, pool, at, id));
            }
        }
        self.shard.nodes.finish_claims();
        for (name, pool, record, id) in names {
            let heap = self.shard.space.heap_of(record);
            let hash = bucket_hash((self.hash)(name.pool, &id));
            let object = Object { record, hash, pages: 0, pool, tree: Tree::default() };
            object.write(&mut self.shard.nodes, name.object);
            let Some(Some(pool)) = self.shard.pools.get_mut(pool.0) else { continue };
            pool.objects.insert(&mut self.shard.nodes, heap, name.object)?;
        }
        Ok(found)
    }

    /// The number of the pool that an object of that heap belongs to, if it still exists.
    fn pool_of(&self, name: ObjectName, heap: usize) -> Option<PoolSlot> {
        let alive = self.pools.get(&name.pool)?;
        (alive.life == name.life && alive.heap == heap).then_some(alive.pool)
    }

    fn enter_pages(&mut self, slots: &[usize], objects: &HashMap<Node, usize>) -> Result<(), Refusal> {
        let mut bytes = [0; PAGE_SIZE];
        for slot in slots {
            let heap = self.shard.space.slot(*slot).heap;
            let linked = self.shard.space.heap(heap).purpose == Use::Evictable;
            for (at, record) in self.records(*slot) {
                let Head::Page(head) = record else { continue };
                let name = self.shard.space.page_name(at);
                let known = objects.get(&name.object) == Some(&heap);
                let plausible = known && head.length() <= PAGE_SIZE && head.is_linked() == linked;
                if !plausible {
                    self.drop_record(at, record);
                    continue;
                }
                self.shard.space.copy_payload(at, head, &mut bytes);
                if PayloadSum::new(&bytes[..head.length()]).finish(head, name) != head.checksum() {
                    self.drop_record(at, record);
                    continue;
                }
                self.enter_page(heap, at, head, name)?;
            }
        }
        Ok(())
    }

    fn enter_page(&mut self, heap: usize, at: Location, head: PageHead, name: PageName) -> Result<(), Refusal> {
        let shard = &mut *self.shard;
        let mut object = Object::read(&shard.nodes, name.object);
        if let Some(other) = object.tree.get(&shard.nodes, name.index) {
            // A page may be there twice, if it was being moved or recompressed; generations wrap.
            let age = shard.space.page_name(other).generation.wrapping_sub(name.generation);
            if age < u32::MAX / 2 {
                self.drop_record(at, Head::Page(head));
                return Ok(());
            }
            shard.discard(object.pool, other);
            self.dropped += 1;
            let shard = &mut *self.shard;
            object.tree.relocate(&mut shard.nodes, name.index, at);
            object.write(&mut shard.nodes, name.object);
            self.entered(at, head, name, object.pool);
            return Ok(());
        }
        let before = object.tree;
        object.tree.insert(&mut shard.nodes, heap, name.index, at)?;
        object.pages += 1;
        shard.write_object(heap, name.object, &object, before);
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
