// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests and pools as they are found in an earlier process's arena.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::accounting::Use;
use crate::arena::header::{Lane, Origin};
use crate::arena::memory::Segment;
use crate::engine::guest_state::{Entry, GuestState};
use crate::engine::{EPHEMERAL, Engine, PERSISTENT, SHARD_OVERHEAD};
use crate::guest::GuestConfig;
use crate::key::{ObjectId, PoolId};
use crate::op::Refusal;
use crate::pool::PoolKind;
use crate::shard::PoolRef;
use crate::shard::recover::FoundPools;

impl Engine {
    /// Makes the guests of an earlier process's arena again, from the arena alone.
    pub(crate) fn recover(
        &self,
        segments: Vec<(Origin, Segment)>,
        mut config: impl FnMut(u32) -> GuestConfig,
    ) -> Result<(Vec<Arc<GuestState>>, u64), Refusal> {
        let mut found: BTreeMap<u32, Vec<(Origin, Segment)>> = BTreeMap::new();
        for (origin, segment) in segments {
            if origin.label.seed == self.common.seed && usize::from(origin.label.shards) == self.common.shards {
                found.entry(origin.guest).or_default().push((origin, segment));
            }
        }
        let mut guests = Vec::new();
        let mut dropped = 0;
        for (number, segments) in found {
            let config = config(number);
            // Its limit applies once everything is back.
            let guest = self.guest_state(number, config.name, None);
            dropped += self.recover_guest(&guest, segments)?;
            self.next_guest.fetch_max(number.saturating_add(1), Relaxed);
            self.guest_count.fetch_add(1, Relaxed);
            self.guests_map().insert(number, Arc::clone(&guest));
            self.set_guest_limit(&guest, config.memory_limit);
            guests.push(guest);
        }
        Ok((guests, dropped))
    }

    fn recover_guest(&self, guest: &GuestState, segments: Vec<(Origin, Segment)>) -> Result<u64, Refusal> {
        guest.pools().base.grow(self.common.shards as u64 * SHARD_OVERHEAD)?;
        let domain = guest.domain.get_or_init(|| self.own_domain(guest));
        let mut by_shard: BTreeMap<usize, Vec<(usize, Lane, Segment)>> = BTreeMap::new();
        for (origin, segment) in segments {
            let heap = if origin.purpose == Use::Evictable { EPHEMERAL } else { PERSISTENT };
            by_shard.entry(usize::from(origin.label.shard)).or_default().push((heap, origin.lane, segment));
        }
        let mut pools = FoundPools::new();
        let mut dropped = 0;
        let hash = |pool, object: &ObjectId| domain.hash(pool, object);
        for (number, segments) in by_shard {
            dropped += domain.lock(number).recover(segments, &hash, &mut pools)?;
        }
        let mut known = guest.pools();
        for (id, (slot, purpose)) in pools {
            domain.add_pool(slot, id);
            let (kind, heap) = match purpose {
                Use::Evictable => (PoolKind::Ephemeral, EPHEMERAL),
                Use::Kept => (PoolKind::Persistent, PERSISTENT),
            };
            domain.name_pool(PoolId(id), &PoolRef::Own { pool: slot, heap });
            known.entries.insert(PoolId(id), Entry::Own { slot, kind });
        }
        Ok(dropped)
    }
}
