// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One shard: everything about a part of the keys, under one lock. Its own index, its own
//! segments, its own queues; nothing in it refers to another shard.

#[cfg(feature = "check")]
mod check;
pub(crate) mod cold;
pub(crate) mod compact;
pub(crate) mod evict;
pub(crate) mod index;
mod leave;
pub(crate) mod recover;
pub(crate) mod retire;
pub(crate) mod space;
pub(crate) mod work;

use std::sync::Arc;

use crate::accounting::{Account, Use};
use crate::codec::Codec;
use crate::fault::Faults;
use crate::key::{ObjectId, Page};
use crate::op::{GetMode, Refusal};
use crate::shard::evict::duel::Duel;
use crate::shard::evict::learn::{self, Learned};
use crate::shard::evict::{Departure, Patience};
use crate::shard::index::nodes::{Node, Nodes};
use crate::shard::index::objects::{OBJECT_CLASS, Object, Objects};
use crate::shard::index::tree::Tree;
use crate::shard::retire::{FEW, Retired};
use crate::shard::space::record::{
    Head, Life, MAX_FREQUENCY, OBJECT_WORDS, ObjectName, PageHead, PageName, PayloadSum, id_words, object_words,
};
use crate::shard::space::{Location, Space};
use crate::stats::{Contents, Counters};

/// Most pages evicted one by one to make room for one record.
const MAX_EVICTIONS: usize = 32;

/// Words of a page that are looked at when it is replaced.
const HEAD_WORDS: u32 = 4;
/// Words of a page that are asked for before it is read; the processor comes to ask for more by itself.
const READ_WORDS: u32 = 192;

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
    pub(crate) pool: usize,
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
    pub(crate) pools: Vec<Option<PoolShard>>,
    /// Numbers of no pool.
    vacant_pools: Vec<usize>,
    retired: Retired,
    /// Of each evictable heap.
    pub(crate) learned: Vec<Option<Learned>>,
    pub(crate) generation: u32,
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
    pub(crate) fn add_pool(&mut self, id: u32, life: Life) -> usize {
        self.place_pool(PoolShard { id, life, ..PoolShard::default() })
    }

    pub(crate) fn pool_mut(&mut self, pool: usize) -> &mut PoolShard {
        self.pools[pool].as_mut().expect("objects belong to existing pools only")
    }

    fn is_named(&self, object: &Object, id: [u64; 3]) -> bool {
        self.space.words(object.record, OBJECT_WORDS)[2..] == id
    }

    fn find(&self, key: &PageKey) -> Option<(Node, Object)> {
        let objects = &self.pools.get(key.pool)?.as_ref()?.objects;
        let id = id_words(key.object);
        objects.find(&self.nodes, key.bucket_hash(), |object| self.is_named(object, id))
    }

    /// An object, and where its page of the key's index is. In a large store each step is a line of
    /// memory that no cache has, so name and page (its first `soon` words) are asked for before either
    /// is looked at.
    fn find_page(&self, key: &PageKey, soon: u32) -> Option<(Node, Object, Option<Location>)> {
        let objects = &self.pools.get(key.pool)?.as_ref()?.objects;
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

    fn create_object(&mut self, heap: usize, key: &PageKey, may_evict: bool) -> Result<Node, Refusal> {
        let number = self.nodes.alloc(OBJECT_CLASS, heap)?;
        let record = self.space.alloc_name(heap).map_or_else(|| self.alloc(heap, OBJECT_WORDS, may_evict), Ok);
        let record = record.inspect_err(|_| self.nodes.free(number))?;
        let pool = self.pool_mut(key.pool);
        let name = ObjectName { object: number, pool: pool.id, life: pool.life };
        let words = object_words(name, key.object);
        self.space.words_mut(record, OBJECT_WORDS)[1..].copy_from_slice(&words[1..]);
        self.space.publish(record, words[0]);
        let hash = key.bucket_hash();
        let object = Object { record, hash, pages: 0, pool: key.pool, tree: Tree::default() };
        object.write(&mut self.nodes, number);
        let objects = &mut self.pools[key.pool].as_mut().ok_or(Refusal::NoMemory)?.objects;
        if let Err(refusal) = objects.insert(&mut self.nodes, heap, number) {
            self.space.free(record, OBJECT_WORDS);
            self.nodes.free(number);
            return Err(refusal);
        }
        Ok(number)
    }

    /// Writes an object whose tree was `before`, and lets lookups guess where its pages are now.
    pub(in crate::shard) fn write_object(&mut self, owner: usize, number: Node, object: &Object, before: Tree) {
        object.write(&mut self.nodes, number);
        if object.tree != before
            && !object.is_retired()
            && let Some(pool) = &mut self.pools[object.pool]
        {
            pool.objects.guess(&mut self.nodes, owner, object);
        }
    }

    pub(in crate::shard) fn drop_object(&mut self, number: Node) {
        let object = Object::read(&self.nodes, number);
        if let Some(pool) = &mut self.pools[object.pool] {
            pool.objects.remove(&mut self.nodes, number);
        }
        self.space.free(object.record, OBJECT_WORDS);
        self.nodes.free(number);
    }

    /// Finds room, evicting pages of the same heap if that is allowed: a few while memory is short,
    /// to do without more of it, and more when there is none.
    fn alloc(&mut self, heap: usize, words: u32, may_evict: bool) -> Result<Location, Refusal> {
        let mut evicted = 0;
        let mut patience = Patience::for_a_record();
        loop {
            if may_evict && evicted < MAX_EVICTIONS && self.space.heap(heap).account.is_tight() {
                if let Some(at) = self.space.alloc_hole(heap, words) {
                    return Ok(at);
                }
                evicted += 1;
                if self.evict_one(heap, &mut patience) {
                    continue;
                }
            }
            return match self.space.alloc(heap, words) {
                Ok(at) => Ok(at),
                Err(_) if may_evict && evicted < MAX_EVICTIONS && self.evict_one(heap, &mut patience) => {
                    evicted += 1;
                    continue;
                }
                Err(refusal) => Err(refusal),
            };
        }
    }

    /// Stores a page. On refusal the key holds nothing.
    pub(crate) fn put(&mut self, heap: usize, key: &PageKey, page: &mut NewPage) -> Result<(), Refusal> {
        let (number, old) = match self.find_page(key, HEAD_WORDS) {
            Some((number, _, old)) => (number, old),
            None => (self.create_object(heap, key, page.may_evict)?, None),
        };
        let mut object = Object::read(&self.nodes, number);
        if let Some(old) = old {
            self.discard(key.pool, old);
        } else {
            // Counted in advance: evicting all the others must not drop the object.
            object.pages += 1;
            object.write(&mut self.nodes, number);
        }
        let pages = self.space.heap(heap).contents.pages;
        if let Some(learned) = &mut self.learned[heap] {
            page.proven |= learned.put(learn::name(key.bucket_hash(), key.index), pages);
        }
        let linked = self.space.heap(heap).purpose == Use::Evictable;
        let head = PageHead::new(page.codec, page.bytes.len(), linked, page.epoch).with_main(page.proven);
        let room = self.alloc(heap, head.words(), page.may_evict);
        // Evictions may have changed the object's other pages.
        object = Object::read(&self.nodes, number);
        let before = object.tree;
        let stored = room.and_then(|at| {
            if old.is_some() {
                object.tree.relocate(&mut self.nodes, key.index, at);
                return Ok(at);
            }
            match object.tree.insert(&mut self.nodes, heap, key.index, at) {
                Ok(()) => Ok(at),
                Err(refusal) => {
                    self.space.free(at, head.words());
                    Err(refusal)
                }
            }
        });
        if stored.is_err() {
            if old.is_some() {
                object.tree.remove(&mut self.nodes, heap, key.index);
            }
            object.pages -= 1;
        }
        self.write_object(heap, number, &object, before);
        match stored {
            Ok(at) => {
                self.generation = self.generation.wrapping_add(1);
                let name = PageName { object: number, generation: self.generation, index: key.index };
                let head = head.with_checksum(page.sum.finish(head, name));
                self.write_page(at, head, name, page.bytes);
                if linked {
                    self.space.enqueue(at);
                }
                self.count(key.pool, at, head, Contents::add);
                Ok(())
            }
            Err(refusal) => {
                if object.pages == 0 {
                    self.drop_object(number);
                }
                Err(refusal)
            }
        }
    }

    /// Writes a page record over a hole.
    pub(in crate::shard) fn write_page(&mut self, at: Location, head: PageHead, name: PageName, bytes: &[u8]) {
        let words = self.space.words_mut(at, head.words());
        words[1..3].copy_from_slice(&name.words());
        let payload = &mut words[head.payload_at() as usize..];
        space::copy_in(payload, bytes);
        self.space.publish(at, head.0);
    }

    pub(in crate::shard) fn count(
        &mut self,
        pool: usize,
        at: Location,
        head: PageHead,
        change: fn(&mut Contents, PageHead),
    ) {
        let heap = self.space.heap_of(at);
        change(&mut self.space.heap_mut(heap).contents, head);
        change(&mut self.pool_mut(pool).contents, head);
    }

    /// Frees a page's record, which the index must forget.
    pub(in crate::shard) fn discard(&mut self, pool: usize, at: Location) {
        self.space.work.count();
        let head = self.space.page_head(at);
        self.count(pool, at, head, Contents::sub);
        if head.is_linked() {
            self.space.dequeue(at);
        }
        self.space.free(at, head.words());
    }

    /// Copies a page's stored bytes out, for a guest whose pages are in `heap`.
    pub(crate) fn get(
        &mut self,
        heap: usize,
        key: &PageKey,
        mode: GetMode,
        epoch: u8,
        out: &mut Page,
    ) -> Option<(PageHead, PageName)> {
        if let Some(learned) = &self.learned[heap] {
            learned.get(learn::name(key.bucket_hash(), key.index), mode);
        }
        let (number, object, at) = self.find_page(key, READ_WORDS)?;
        let at = at?;
        if self.has_left(at) {
            self.remove_page(number, key.index);
            return None;
        }
        let head = self.space.page_head(at);
        let name = self.space.page_name(at);
        self.space.copy_payload(at, head, out);
        if mode == GetMode::Exclusive {
            let heap = self.space.heap_of(at);
            self.leave(heap, object.hash, key.index, Departure::Hit);
            self.remove_page(number, key.index);
        } else if head.epoch() != epoch || head.frequency() < MAX_FREQUENCY {
            let used = head.with_frequency(head.frequency().saturating_add(1)).with_epoch(epoch);
            self.space.set_word(at, used.0);
        }
        Some((head, name))
    }

    /// Lets it be known that a page is about to leave.
    pub(crate) fn leave(&mut self, heap: usize, hash: u32, index: u64, departure: Departure) {
        let pages = self.space.heap(heap).contents.pages;
        if let Some(learned) = &mut self.learned[heap] {
            learned.leave(learn::name(hash, index), pages, departure);
        }
    }

    /// Removes a page if it still is the one of that name.
    pub(crate) fn remove_exact(&mut self, key: &PageKey, name: PageName) {
        let Some((number, _, Some(at))) = self.find_page(key, HEAD_WORDS) else { return };
        if self.space.page_name(at) == name {
            self.remove_page(number, key.index);
        }
    }

    /// Removes one page of an object, and the object with its last page.
    pub(in crate::shard) fn remove_page(&mut self, number: Node, index: u64) -> bool {
        let mut object = Object::read(&self.nodes, number);
        let before = object.tree;
        let Some(owner) = self.owner_of(&object, index) else { return false };
        let Some(at) = object.tree.remove(&mut self.nodes, owner, index) else {
            return false;
        };
        object.pages -= 1;
        self.write_object(owner, number, &object, before);
        self.discard(object.pool, at);
        if object.is_retired() {
            self.pool_mut(object.pool).retired_pages -= 1;
        } else if object.pages == 0 {
            self.drop_object(number);
        }
        true
    }

    /// Who pays when an object's tree is rearranged: the guest whose heap its name is in, or the
    /// page of that index if the object has no name any more.
    fn owner_of(&self, object: &Object, index: u64) -> Option<usize> {
        let retired = || object.tree.get(&self.nodes, index);
        let record = if object.is_retired() { retired()? } else { object.record };
        Some(self.space.heap_of(record))
    }

    /// Removes at most `most` pages of `first..=last` of an object; returns how many, and where
    /// to go on if there may be more.
    pub(crate) fn remove_range(&mut self, key: &PageKey, last: u64, most: u64) -> (u64, Option<u64>) {
        let Some((number, object)) = self.find(key) else { return (0, None) };
        if key.index == 0 && last == u64::MAX && u64::from(object.pages) > FEW {
            return (self.retire_object(number), None);
        }
        self.remove_indexes(number, key.index, last, most)
    }

    pub(in crate::shard) fn remove_indexes(
        &mut self,
        number: Node,
        first: u64,
        last: u64,
        most: u64,
    ) -> (u64, Option<u64>) {
        let mut from = first;
        let mut removed = 0;
        loop {
            let object = Object::read(&self.nodes, number);
            let Some((index, at)) = object.tree.next(&self.nodes, from) else {
                return (removed, None);
            };
            if index > last {
                return (removed, None);
            }
            if removed == most {
                return (removed, Some(index));
            }
            if let Some(learned) = &self.learned[self.space.heap_of(at)] {
                learned.flush(learn::name(object.hash, index));
            }
            self.remove_page(number, index);
            removed += 1;
            if object.pages == 1 || index == u64::MAX {
                return (removed, None);
            }
            from = index + 1;
        }
    }

    /// Removes some pages of a pool; 0 means that it is empty.
    pub(crate) fn remove_some(&mut self, pool: usize, most: u64) -> u64 {
        let mut removed = 0;
        while removed < most {
            let Some(Some(shard)) = self.pools.get(pool) else { break };
            let Some(number) = shard.objects.any(&self.nodes) else { break };
            removed += self.remove_indexes(number, 0, u64::MAX, most - removed).0;
        }
        removed
    }

    /// Moves a record to another place, in heap `to`.
    pub(in crate::shard) fn relocate(&mut self, at: Location, head: Head, to: usize) -> Result<(), Refusal> {
        self.space.work.count();
        let words = head.words();
        let apart = if head == Head::Object { self.space.alloc_name(to) } else { None };
        let new = apart.map_or_else(|| self.space.alloc(to, words), Ok)?;
        self.space.copy(at, new, words);
        match head {
            Head::Page(page) => {
                let name = self.space.page_name(at);
                if page.is_linked() {
                    self.space.requeue(at, new);
                }
                self.point_to(name, new);
            }
            Head::Object => {
                let number = self.space.object_at(at);
                let mut object = Object::read(&self.nodes, number);
                object.record = new;
                object.write(&mut self.nodes, number);
            }
            Head::End | Head::Hole(_) | Head::Unknown => {}
        }
        self.space.free(at, words);
        Ok(())
    }

    /// Lets the index find a page at its new place.
    pub(in crate::shard) fn point_to(&mut self, name: PageName, at: Location) {
        let mut object = Object::read(&self.nodes, name.object);
        object.tree.relocate(&mut self.nodes, name.index, at);
        if object.tree.height == 0 {
            object.write(&mut self.nodes, name.object);
        }
    }
}
