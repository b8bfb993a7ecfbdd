// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Storing a page: its object is found or made, room is found for its record, the index gets to
//! know it.

use super::evict::{Patience, learn};
use super::index::nodes::Node;
use super::index::objects::{OBJECT_CLASS, Object};
use super::index::tree::Tree;
use super::space::record::{OBJECT_WORDS, ObjectName, PageHead, PageName, object_words};
use super::space::{self, Location};
use super::{HEAD_WORDS, NewPage, PageKey, Shard};
use crate::accounting::Use;
use crate::op::Refusal;
use crate::stats::Contents;

/// Most pages evicted one by one to make room for one record.
const MAX_EVICTIONS: usize = 32;

/// Pages that are out of service and are collected at a time to make room for one record.
const COLLECTED_AT_A_TIME: u64 = 8;

impl Shard {
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
        let objects = &mut self.pools[key.pool.0].as_mut().ok_or(Refusal::NoMemory)?.objects;
        if let Err(refusal) = objects.insert(&mut self.nodes, heap, number) {
            self.space.free(record, OBJECT_WORDS);
            self.nodes.free(number);
            return Err(refusal);
        }
        Ok(number)
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
                // What is out of service goes first: once it leaves holes, these are tried again.
                Err(_) if self.has_retired_records() && evicted < MAX_EVICTIONS => {
                    self.collect(COLLECTED_AT_A_TIME);
                    evicted += 1;
                    continue;
                }
                Err(_) if may_evict && evicted < MAX_EVICTIONS && self.evict_one(heap, &mut patience) => {
                    evicted += 1;
                    continue;
                }
                Err(refusal) => Err(refusal),
            };
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
}
