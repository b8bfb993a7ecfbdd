// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Removing pages one by one, and objects with their last page. What removes much at once is in
//! [`retire`](super::retire).

use super::evict::{Departure, learn};
use super::index::nodes::Node;
use super::index::objects::Object;
use super::retire::FEW;
use super::space::Location;
use super::space::record::OBJECT_WORDS;
use super::{PageKey, PoolSlot, Shard};
use crate::stats::Contents;

impl Shard {
    /// Removes at most `most` pages of `first..=last` of an object; returns how many, and where
    /// to go on if there may be more.
    pub(crate) fn remove_range(&mut self, key: &PageKey, last: u64, most: u64) -> (u64, Option<u64>) {
        let Some((number, object)) = self.find(key) else { return (0, None) };
        if key.index == 0 && last == u64::MAX && u64::from(object.pages) > FEW {
            return (self.retire_object(number), None);
        }
        self.remove_indexes(number, key.index, last, most)
    }

    /// [`Shard::remove_range`], of an object that was found.
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
    pub(crate) fn remove_some(&mut self, pool: PoolSlot, most: u64) -> u64 {
        let mut removed = 0;
        while removed < most {
            let Some(shard) = self.pool(pool) else { break };
            let Some(number) = shard.objects.any(&self.nodes) else { break };
            removed += self.remove_indexes(number, 0, u64::MAX, most - removed).0;
        }
        removed
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

    /// Lets it be known that a page is about to leave.
    pub(crate) fn leave(&mut self, heap: usize, hash: u32, index: u64, departure: Departure) {
        let pages = self.space.heap(heap).contents.pages;
        if let Some(learned) = &mut self.learned[heap] {
            learned.leave(learn::name(hash, index), pages, departure);
        }
    }

    /// Frees a page's record, which the index must forget.
    pub(in crate::shard) fn discard(&mut self, pool: PoolSlot, at: Location) {
        self.space.work.count();
        let head = self.space.page_head(at);
        self.count(pool, at, head, Contents::sub);
        if head.is_linked() {
            self.space.dequeue(at);
        }
        self.space.free(at, head.words());
    }

    /// Frees an object without pages, and its name.
    pub(in crate::shard) fn drop_object(&mut self, number: Node) {
        let object = Object::read(&self.nodes, number);
        if let Some(pool) = &mut self.pools[object.pool.0] {
            pool.objects.remove(&mut self.nodes, number);
        }
        self.space.free(object.record, OBJECT_WORDS);
        self.nodes.free(number);
    }
}
