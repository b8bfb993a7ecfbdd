// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest's pool numbers stand for in one shard.

use std::sync::Arc;

use super::shared::Shared;
use crate::key::PoolId;
use crate::shard::PoolSlot;
use crate::shard::space::record::Life;

/// Where a pool's pages are.
#[derive(Clone)]
pub(crate) enum PoolRef {
    /// A pool in this shard, by its number there, and the heap of its pages.
    Own { pool: PoolSlot, heap: usize },
    /// A pool shared with other guests, and the heap of this guest's pages there.
    Shared { pool: Arc<Shared>, heap: usize },
}

struct Name {
    id: PoolId,
    /// Tells a pool from another that had the same number before.
    life: Life,
    pool: PoolRef,
}

/// The pools of one shard by the guest's numbers. They are few, so a sorted list is found through
/// fastest.
#[derive(Default)]
pub(crate) struct Names(Vec<Name>);

impl Names {
    fn place(&self, id: PoolId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |name| name.id)
    }

    /// The pool a guest means by a number.
    pub(crate) fn resolve(&self, id: PoolId) -> Option<&PoolRef> {
        let at = self.place(id).ok()?;
        Some(&self.0[at].pool)
    }

    /// The number in this shard of a pool that is not shared.
    pub(super) fn own(&self, id: PoolId) -> Option<PoolSlot> {
        match self.resolve(id)? {
            PoolRef::Own { pool, .. } => Some(*pool),
            PoolRef::Shared { .. } => None,
        }
    }

    /// The pools of this shard whose pages are in a heap.
    pub(super) fn of_heap(&self, heap: usize) -> Vec<PoolSlot> {
        let in_heap = |name: &Name| match &name.pool {
            PoolRef::Own { pool, heap: own } if *own == heap => Some(*pool),
            _ => None,
        };
        self.0.iter().filter_map(in_heap).collect()
    }

    /// The pool a guest means by a number, if it is still the one of that life.
    pub(crate) fn resolve_life(&self, id: PoolId, life: Life) -> Option<&PoolRef> {
        let at = self.place(id).ok()?;
        (self.0[at].life == life).then(|| &self.0[at].pool)
    }

    /// Names a pool, in place of another of the same number.
    pub(crate) fn set(&mut self, id: PoolId, life: Life, pool: PoolRef) {
        let name = Name { id, life, pool };
        match self.place(id) {
            Ok(at) => self.0[at] = name,
            Err(at) => self.0.insert(at, name),
        }
    }

    /// Takes a name away; returns what it stood for.
    pub(crate) fn remove(&mut self, id: PoolId) -> Option<PoolRef> {
        let at = self.place(id).ok()?;
        Some(self.0.remove(at).pool)
    }
}
