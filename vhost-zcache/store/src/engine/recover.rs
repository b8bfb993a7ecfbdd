// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests and pools as they are found in an earlier process's arena.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::guest_state::{Entry, GuestState};
use super::pools::add_own;
use super::roster::{self, Roster};
use super::{EPHEMERAL, Engine, PERSISTENT, SHARD_OVERHEAD};
use crate::accounting::Use;
use crate::arena::header::{Lane, Origin, Role};
use crate::arena::memory::Segment;
use crate::guest::GuestConfig;
use crate::key::ObjectId;
use crate::op::Refusal;
use crate::pool::PoolKind;
use crate::shard::recover::Alive;

/// One guest's segments.
#[derive(Default)]
struct Found {
    roster: Option<Segment>,
    /// By shard.
    records: BTreeMap<usize, Vec<(usize, Lane, Segment)>>,
}

impl Engine {
    /// Makes the guests of an earlier process's arena again, from the arena alone. Returns them and
    /// how many records were dropped.
    pub(crate) fn recover(
        &self,
        segments: Vec<(Origin, Segment)>,
        mut config: impl FnMut(u32) -> GuestConfig,
    ) -> Result<(Vec<Arc<GuestState>>, u64), Refusal> {
        let mut found: BTreeMap<u32, Found> = BTreeMap::new();
        for (Origin { label, role }, segment) in segments {
            if label.seed != self.common.seed || usize::from(label.shards) != self.common.shards {
                continue;
            }
            let guest = found.entry(label.guest).or_default();
            match role {
                Role::Roster => guest.roster = Some(segment),
                Role::Records(purpose, lane) => {
                    let heap = if purpose == Use::Evictable { EPHEMERAL } else { PERSISTENT };
                    guest.records.entry(usize::from(label.shard)).or_default().push((heap, lane, segment));
                }
            }
        }
        let mut guests = Vec::new();
        let mut dropped = 0;
        for (number, found) in found {
            // A guest without a roster had left, and only its memory had not been given back.
            let Some(roster) = found.roster else { continue };
            let config = config(number);
            let limit = config.memory_limit;
            // Its limit applies once everything is back.
            let guest = self.guest_state(number, GuestConfig { memory_limit: None, ..config });
            dropped += self.recover_guest(&guest, roster, found.records)?;
            self.registry.add(&guest);
            self.set_guest_limit(&guest, limit);
            guests.push(guest);
        }
        Ok((guests, dropped))
    }

    fn recover_guest(
        &self,
        guest: &GuestState,
        roster: Segment,
        records: BTreeMap<usize, Vec<(usize, Lane, Segment)>>,
    ) -> Result<u64, Refusal> {
        let mut known = guest.pools();
        known.base.grow(self.common.shards as u64 * SHARD_OVERHEAD)?;
        let (roster, pools) = Roster::adopt(roster, known.base.another())?;
        known.roster = Some(roster);
        let domain = guest.domain.get_or_init(|| self.own_domain(guest));
        for (id, roster::Entry { life, purpose }) in &pools {
            let kind = if *purpose == Use::Kept { PoolKind::Persistent } else { PoolKind::Ephemeral };
            add_own(domain, *id, *life, kind);
            known.note_life(*life);
            known.entries.insert(*id, Entry::Own { kind, life: *life });
        }
        let mut dropped = 0;
        for (number, segments) in records {
            let mut stripe = domain.lock(number);
            let mut numbers = BTreeMap::new();
            for (id, roster::Entry { life, purpose }) in &pools {
                if let Some(pool) = stripe.names.own(*id) {
                    let heap = if *purpose == Use::Kept { PERSISTENT } else { EPHEMERAL };
                    numbers.insert(id.0, Alive { pool, heap, life: *life });
                }
            }
            let hash = |pool, object: &ObjectId| domain.hash(pool, object);
            dropped += stripe.shard.recover(segments, &hash, &numbers)?;
        }
        Ok(dropped)
    }
}
