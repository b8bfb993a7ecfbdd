// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All ephemeral pages of a guest's own leave a shard at once, for a host that wants much memory
//! soon: no record is touched, and the time it takes is that of one look at each segment.
//!
//! The segments go as they are. What is left is a part of the index that leads nowhere and that
//! nobody finds; its nodes follow in steps, as [`retire`](super::retire) has it. A later process
//! finds segments that say nothing of themselves, and drops them: they were marked while the shard
//! was locked, so none of their pages comes back after another was put or flushed in its place.

use super::index::nodes::Nodes;
use super::index::objects::{Object, Objects};
use super::space::Slot;
use super::{PoolSlot, Shard};
use crate::stats::Contents;

/// The index of pages that are gone.
pub(super) struct Orphans {
    objects: Objects,
    /// The heap they were in, whose owner pays for the index.
    heap: usize,
}

impl Orphans {
    /// Frees what leads to at most `most` pages, and takes that off `most`; returns whether that
    /// was all.
    pub(super) fn forget(&mut self, nodes: &mut Nodes, most: &mut u64) -> bool {
        while let Some(number) = self.objects.any(nodes) {
            let mut object = Object::read(nodes, number);
            while let Some((index, _)) = object.tree.next(nodes, 0) {
                if *most == 0 {
                    object.write(nodes, number);
                    return false;
                }
                object.tree.remove(nodes, self.heap, index);
                *most -= 1;
            }
            self.objects.remove(nodes, number);
            nodes.free(number);
        }
        true
    }
}

impl Shard {
    /// Takes away all segments of an evictable heap, with all pages of these pools, which are all
    /// that are in the heap. `None` while pages wait to be collected, which may be in it too.
    pub(crate) fn shed(&mut self, heap: usize, pools: &[PoolSlot]) -> Option<Vec<Slot>> {
        if self.has_retired() {
            return None;
        }
        let space = &self.space;
        self.compaction.take_if(|slot| space.slot(*slot).heap == heap);
        for number in pools {
            let pool = self.pool_mut(*number);
            pool.counters.evicted += pool.contents.pages;
            pool.contents = Contents::default();
            let objects = std::mem::take(&mut pool.objects);
            self.retired.add_orphans(Orphans { objects, heap });
        }
        Some(self.space.take_heap(heap))
    }
}
