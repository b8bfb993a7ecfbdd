// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The first engine: one lock, ordered maps, one allocation a page. Correct and slow; kept
//! until the arena engine has passed the same tests.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::codec::{Codec, Scratch, decode};
use crate::key::{Key, ObjectId, PAGE_SIZE, Page, PoolId};
use crate::op::{GetError, GetMode, PutError, Refusal};
use crate::pool::{Creation, MAX_POOLS_PER_GUEST, NoPool, PoolError, PoolKind};
use crate::stats::{Contents, Counters, GuestStats, PoolStats, StoreStats};

/// Estimate of what a page costs beyond its bytes: tree entry at two thirds of a node's
/// capacity (56 + 40 B), the allocator's header and rounding, an eviction queue entry.
const PAGE_OVERHEAD: u64 = 96 * 3 / 2 + 24 + 56;
/// Estimate of what a pool costs before it holds anything.
const POOL_OVERHEAD: u64 = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GuestNumber(u64);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PoolNumber(u64);

struct Record {
    owner: GuestNumber,
    codec: Codec,
    crc: u32,
    sequence: u64,
    bytes: Box<[u8]>,
}

impl Record {
    fn cost(&self) -> u64 {
        self.bytes.len() as u64 + PAGE_OVERHEAD
    }
}

struct Pool {
    kind: PoolKind,
    members: u64,
    pages: BTreeMap<(ObjectId, u64), Record>,
    counters: Counters,
}

struct GuestState {
    name: String,
    limit: Option<u64>,
    used: u64,
    contents: Contents,
    pools: BTreeMap<PoolId, PoolNumber>,
}

/// An entry of the eviction queue; stale once the page of that sequence is gone.
struct Queued {
    pool: PoolNumber,
    at: (ObjectId, u64),
    sequence: u64,
}

#[derive(Default)]
struct State {
    limit: u64,
    used: u64,
    next: u64,
    guests: HashMap<GuestNumber, GuestState>,
    pools: HashMap<PoolNumber, Pool>,
    shared: HashMap<[u8; 16], PoolNumber>,
    queue: VecDeque<Queued>,
    ephemeral: usize,
}

pub(crate) struct Engine(Mutex<State>);

impl Engine {
    pub(crate) fn new(limit: u64) -> Self {
        Self(Mutex::new(State { limit, ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics while the state is half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register(&self, name: String, limit: Option<u64>) -> GuestNumber {
        let mut state = self.state();
        let number = GuestNumber(state.number());
        let guest = GuestState { name, limit, used: 0, contents: Contents::default(), pools: BTreeMap::new() };
        state.guests.insert(number, guest);
        number
    }

    pub(crate) fn unregister(&self, guest: GuestNumber) {
        self.destroy_pools(guest, |_| true);
        self.state().guests.remove(&guest);
    }

    pub(crate) fn set_memory_limit(&self, bytes: u64) {
        let mut state = self.state();
        state.limit = bytes;
        while state.used > bytes && state.evict_one(None) {}
    }

    pub(crate) fn set_guest_limit(&self, guest: GuestNumber, bytes: Option<u64>) {
        let mut state = self.state();
        let Some(entry) = state.guests.get_mut(&guest) else { return };
        entry.limit = bytes;
        let limit = bytes.unwrap_or(u64::MAX);
        while state.guest_used(guest) > limit && state.evict_one(Some(guest)) {}
    }

    pub(crate) fn create_pool(&self, guest: GuestNumber, id: PoolId, kind: PoolKind) -> Result<Creation, PoolError> {
        let mut state = self.state();
        let state = &mut *state;
        let entry = state.guests.get(&guest).ok_or(PoolError::NoMemory)?;
        if let Some(number) = entry.pools.get(&id) {
            let same = state.pools.get(number).is_some_and(|pool| pool.kind == kind);
            return if same { Ok(Creation::AlreadySame) } else { Err(PoolError::Exists) };
        }
        if entry.pools.len() >= MAX_POOLS_PER_GUEST {
            return Err(PoolError::TooMany);
        }
        state.make_room(guest, POOL_OVERHEAD).map_err(|_| PoolError::NoMemory)?;
        let known = match kind {
            PoolKind::SharedEphemeral(uuid) => state.shared.get(&uuid).copied(),
            PoolKind::Ephemeral | PoolKind::Persistent => None,
        };
        let number = known.unwrap_or_else(|| PoolNumber(state.number()));
        let pool = state.pools.entry(number).or_insert_with(|| Pool {
            kind,
            members: 0,
            pages: BTreeMap::new(),
            counters: Counters::default(),
        });
        pool.members += 1;
        if let PoolKind::SharedEphemeral(uuid) = kind {
            state.shared.insert(uuid, number);
        }
        state.used += POOL_OVERHEAD;
        if let Some(entry) = state.guests.get_mut(&guest) {
            entry.used += POOL_OVERHEAD;
            entry.pools.insert(id, number);
        }
        Ok(Creation::Created)
    }

    pub(crate) fn destroy_pool(&self, guest: GuestNumber, id: PoolId) -> Result<u64, NoPool> {
        self.state().destroy_pool(guest, id)
    }

    pub(crate) fn destroy_pools(&self, guest: GuestNumber, which: impl Fn(PoolKind) -> bool) -> u64 {
        let mut state = self.state();
        let Some(entry) = state.guests.get(&guest) else { return 0 };
        let ids: Vec<PoolId> = entry
            .pools
            .iter()
            .filter(|(_, number)| state.pools.get(number).is_some_and(|pool| which(pool.kind)))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().map(|id| state.destroy_pool(guest, id).unwrap_or(0)).sum()
    }

    pub(crate) fn has_pool(&self, guest: GuestNumber, id: PoolId) -> Result<(), NoPool> {
        self.state().pool(guest, id).map(|_| ())
    }

    pub(crate) fn put(
        &self,
        guest: GuestNumber,
        scratch: &mut Scratch,
        key: &Key,
        page: &Page,
    ) -> Result<(), PutError> {
        let (codec, bytes) = scratch.encode(page);
        let crc = crc32fast::hash(bytes);
        let mut state = self.state();
        let number = state.pool(guest, key.pool)?;
        let at = (key.object, key.index);
        state.remove(number, &at);
        let sequence = state.number();
        let record = Record { owner: guest, codec, crc, sequence, bytes: bytes.into() };
        let room = state.make_room(guest, record.cost());
        let Some(pool) = state.pools.get_mut(&number) else { return Err(NoPool.into()) };
        pool.counters.puts += 1;
        if let Err(reason) = room {
            pool.counters.refused.count(reason);
            return Err(PutError::Refused(reason));
        }
        let ephemeral = pool.kind.is_ephemeral();
        state.insert(number, at, record);
        if ephemeral {
            state.queue.push_back(Queued { pool: number, at, sequence });
            state.trim_queue();
        }
        Ok(())
    }

    pub(crate) fn get(
        &self,
        guest: GuestNumber,
        _scratch: &mut Scratch,
        key: &Key,
        mode: GetMode,
        page: &mut Page,
    ) -> Result<(), GetError> {
        let mut state = self.state();
        let number = state.pool(guest, key.pool)?;
        let at = (key.object, key.index);
        let Some(pool) = state.pools.get_mut(&number) else { return Err(NoPool.into()) };
        if mode == GetMode::Exclusive && !pool.kind.is_ephemeral() {
            return Err(GetError::ExclusivePersistent);
        }
        pool.counters.gets += 1;
        let record = pool.pages.get(&at).ok_or(GetError::Miss)?;
        let intact = crc32fast::hash(&record.bytes) == record.crc && decode(record.codec, &record.bytes, page).is_ok();
        let ephemeral = pool.kind.is_ephemeral();
        if intact {
            pool.counters.hits += 1;
        } else {
            pool.counters.corrupt += 1;
        }
        if mode == GetMode::Exclusive || (ephemeral && !intact) {
            state.remove(number, &at);
        }
        match (intact, ephemeral) {
            (true, _) => Ok(()),
            (false, true) => Err(GetError::Miss),
            (false, false) => Err(GetError::Corrupt),
        }
    }

    pub(crate) fn flush_range(
        &self,
        guest: GuestNumber,
        id: PoolId,
        object: &ObjectId,
        first: u64,
        last: u64,
    ) -> Result<u64, NoPool> {
        let mut state = self.state();
        let number = state.pool(guest, id)?;
        Ok(state.flush(number, (*object, first)..=(*object, last)))
    }

    pub(crate) fn flush_pool(&self, guest: GuestNumber, id: PoolId) -> Result<u64, NoPool> {
        let mut state = self.state();
        let number = state.pool(guest, id)?;
        Ok(state.flush(number, ..))
    }

    pub(crate) fn guest_stats(&self, guest: GuestNumber) -> GuestStats {
        let state = self.state();
        let Some(entry) = state.guests.get(&guest) else {
            return GuestStats {
                name: String::new(),
                physical_bytes: 0,
                memory_limit: None,
                contents: Contents::default(),
                pools: Vec::new(),
            };
        };
        let pools = entry.pools.iter().filter_map(|(id, number)| {
            let pool = state.pools.get(number)?;
            let mut contents = Contents::default();
            pool.pages.values().for_each(|record| tally(&mut contents, record, 1));
            Some(PoolStats { id: *id, kind: pool.kind, contents, counters: pool.counters })
        });
        GuestStats {
            name: entry.name.clone(),
            physical_bytes: entry.used,
            memory_limit: entry.limit,
            contents: entry.contents,
            pools: pools.collect(),
        }
    }

    pub(crate) fn store_stats(&self) -> StoreStats {
        let state = self.state();
        let mut contents = Contents::default();
        for guest in state.guests.values() {
            contents.pages += guest.contents.pages;
            contents.same_filled += guest.contents.same_filled;
            contents.raw += guest.contents.raw;
            contents.compressed_bytes += guest.contents.compressed_bytes;
        }
        let raw_bytes = contents.pages * PAGE_SIZE as u64;
        let ratio = if state.used == 0 { 0.0 } else { raw_bytes as f64 / state.used as f64 };
        StoreStats {
            physical_bytes: state.used,
            memory_limit: state.limit,
            guests: state.guests.len() as u64,
            contents,
            ratio,
        }
    }
}

fn tally(contents: &mut Contents, record: &Record, sign: i64) {
    let add = |field: &mut u64, by: u64| {
        *field = if sign > 0 { *field + by } else { *field - by };
    };
    add(&mut contents.pages, 1);
    add(&mut contents.compressed_bytes, record.bytes.len() as u64);
    match record.codec {
        Codec::Same => add(&mut contents.same_filled, 1),
        Codec::Raw => add(&mut contents.raw, 1),
        Codec::Lz4 => {}
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn guest_used(&self, guest: GuestNumber) -> u64 {
        self.guests.get(&guest).map_or(0, |guest| guest.used)
    }

    fn pool(&self, guest: GuestNumber, id: PoolId) -> Result<PoolNumber, NoPool> {
        self.guests.get(&guest).and_then(|guest| guest.pools.get(&id)).copied().ok_or(NoPool)
    }

    fn insert(&mut self, number: PoolNumber, at: (ObjectId, u64), record: Record) {
        let Some(pool) = self.pools.get_mut(&number) else { return };
        self.used += record.cost();
        self.ephemeral += usize::from(pool.kind.is_ephemeral());
        if let Some(owner) = self.guests.get_mut(&record.owner) {
            owner.used += record.cost();
            tally(&mut owner.contents, &record, 1);
        }
        pool.pages.insert(at, record);
    }

    fn remove(&mut self, number: PoolNumber, at: &(ObjectId, u64)) -> bool {
        let Some(pool) = self.pools.get_mut(&number) else { return false };
        let Some(record) = pool.pages.remove(at) else { return false };
        self.used -= record.cost();
        self.ephemeral -= usize::from(pool.kind.is_ephemeral());
        if let Some(owner) = self.guests.get_mut(&record.owner) {
            owner.used -= record.cost();
            tally(&mut owner.contents, &record, -1);
        }
        true
    }

    fn flush(&mut self, number: PoolNumber, range: impl std::ops::RangeBounds<(ObjectId, u64)>) -> u64 {
        let Some(pool) = self.pools.get_mut(&number) else { return 0 };
        let keys: Vec<_> = pool.pages.range(range).map(|(at, _)| *at).collect();
        pool.counters.flushed += keys.len() as u64;
        keys.iter().map(|at| u64::from(self.remove(number, at))).sum()
    }

    fn destroy_pool(&mut self, guest: GuestNumber, id: PoolId) -> Result<u64, NoPool> {
        let entry = self.guests.get_mut(&guest).ok_or(NoPool)?;
        let number = entry.pools.remove(&id).ok_or(NoPool)?;
        entry.used -= POOL_OVERHEAD;
        self.used -= POOL_OVERHEAD;
        // Two numbers of one guest may name the same shared pool; its pages stay until the last.
        let still_in = entry.pools.values().any(|other| *other == number);
        let pool = self.pools.get_mut(&number).ok_or(NoPool)?;
        pool.members -= 1;
        let last = pool.members == 0;
        let kind = pool.kind;
        let keys: Vec<_> =
            pool.pages.iter().filter(|(_, record)| !still_in && record.owner == guest).map(|(at, _)| *at).collect();
        keys.iter().for_each(|at| {
            self.remove(number, at);
        });
        if last {
            self.pools.remove(&number);
            if let PoolKind::SharedEphemeral(uuid) = kind {
                self.shared.remove(&uuid);
            }
        }
        Ok(keys.len() as u64)
    }

    /// Evicts until `bytes` fit for `guest`.
    fn make_room(&mut self, guest: GuestNumber, bytes: u64) -> Result<(), Refusal> {
        let limit = self.guests.get(&guest).and_then(|guest| guest.limit).unwrap_or(u64::MAX);
        while self.guest_used(guest).saturating_add(bytes) > limit {
            if !self.evict_one(Some(guest)) {
                return Err(Refusal::GuestLimit);
            }
        }
        while self.used.saturating_add(bytes) > self.limit {
            if !self.evict_one(None) {
                return Err(Refusal::StoreFull);
            }
        }
        Ok(())
    }

    fn is_current(&self, entry: &Queued) -> bool {
        self.pools
            .get(&entry.pool)
            .and_then(|pool| pool.pages.get(&entry.at))
            .is_some_and(|record| record.sequence == entry.sequence)
    }

    /// Drops the oldest ephemeral page, of one guest or of any.
    fn evict_one(&mut self, guest: Option<GuestNumber>) -> bool {
        let position = self.queue.iter().position(|entry| {
            let record = self.pools.get(&entry.pool).and_then(|pool| pool.pages.get(&entry.at));
            record.is_some_and(|record| {
                record.sequence == entry.sequence && guest.is_none_or(|guest| record.owner == guest)
            })
        });
        let Some(entry) = position.and_then(|position| self.queue.remove(position)) else {
            return false;
        };
        if let Some(pool) = self.pools.get_mut(&entry.pool) {
            pool.counters.evicted += 1;
        }
        self.remove(entry.pool, &entry.at)
    }

    /// Forgets stale entries once they outnumber the current ones.
    fn trim_queue(&mut self) {
        if self.queue.len() > 64 + 2 * self.ephemeral {
            let mut queue = std::mem::take(&mut self.queue);
            queue.retain(|entry| self.is_current(entry));
            self.queue = queue;
        }
    }
}
