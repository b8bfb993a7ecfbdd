// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What requests for pages do. Encoding, decoding and checksums are done without any lock.

use std::sync::atomic::Ordering::Relaxed;

use super::Engine;
use super::guest_state::{Access, Entry, GuestState, Spot};
use super::names::PoolRef;
use super::room::Effort;
use super::shared;
use crate::accounting::Use;
use crate::codec::{Codec, Scratch};
use crate::key::{Key, ObjectId, Page, PoolId};
use crate::op::{GetError, GetMode, PutError, Refusal};
use crate::pool::NoPool;
use crate::shard::space::record::PayloadSum;
use crate::shard::{NewPage, PageKey};

/// Times that room is made for one put before it is refused.
const ATTEMPTS: usize = 4;
/// Pages put into a shard until it is looked again who gives first, as guests that make room
/// themselves do not have to.
const SURVEY: u32 = 256;
/// Pages of a range that are removed before other requests for the shard get their turn.
const BATCH: u64 = 512;

impl Engine {
    /// Stores a page, making room for it if it must. When it is refused the key holds nothing.
    pub(crate) fn put(
        &self,
        guest: &GuestState,
        scratch: &mut Scratch,
        key: &Key,
        page: &Page,
    ) -> Result<(), PutError> {
        let spot = guest.spot(key)?;
        if guest.frozen.load(Relaxed) {
            return self.refuse(guest, &spot, Refusal::Frozen);
        }
        // Encoding takes longer than the memory to come.
        spot.prefetch();
        let (codec, bytes) = scratch.encode(page);
        self.put_encoded(guest, &spot, codec, bytes, PayloadSum::new(bytes))
    }

    /// Stores a page that is encoded; for a frozen guest, too, which has had it before.
    pub(super) fn put_encoded(
        &self,
        guest: &GuestState,
        spot: &Spot<'_>,
        codec: Codec,
        bytes: &[u8],
        sum: PayloadSum,
    ) -> Result<(), PutError> {
        let epoch = self.epoch.load(Relaxed);
        let mut new = NewPage { codec, bytes, sum, epoch, proven: false, may_evict: false };
        let mut attempt = 0;
        let mut effort = Effort::of_a_put();
        loop {
            attempt += 1;
            let last = attempt == ATTEMPTS;
            let mut survey_is_due = false;
            let outcome = guest.at_spot(spot, Access::Change, |shard, heap, key| {
                new.may_evict = last || self.may_evict(guest, shard, heap);
                let outcome = shard.put(heap, key, &mut new);
                survey_is_due = shard.puts().is_multiple_of(SURVEY);
                let counters = &mut shard.pool_mut(key.pool).counters;
                counters.puts += u64::from(attempt == 1);
                if let (Err(refusal), true) = (outcome, last) {
                    counters.refused.count(refusal);
                }
                outcome
            })?;
            if survey_is_due {
                self.first_to_give();
            }
            let Err(refusal) = outcome else { return Ok(()) };
            if last {
                return Err(PutError::Refused(refusal));
            }
            if !self.make_room(guest, refusal, &mut effort) {
                // Straight to the last attempt, which counts the refusal.
                attempt = ATTEMPTS - 1;
            }
        }
    }

    /// Refuses a put without trying. As after any other refusal, the key holds nothing.
    fn refuse(&self, guest: &GuestState, spot: &Spot<'_>, refusal: Refusal) -> Result<(), PutError> {
        guest.at_spot(spot, Access::Change, |shard, _, key| {
            shard.remove_range(key, key.index, 1);
            let counters = &mut shard.pool_mut(key.pool).counters;
            counters.puts += 1;
            counters.refused.count(refusal);
        })?;
        Err(PutError::Refused(refusal))
    }

    /// Copies a page out under its shard's lock, and decodes and verifies it outside.
    pub(crate) fn get(
        &self,
        guest: &GuestState,
        scratch: &mut Scratch,
        key: &Key,
        mode: GetMode,
        page: &mut Page,
    ) -> Result<(), GetError> {
        let epoch = self.epoch.load(Relaxed);
        let access = if mode == GetMode::Exclusive { Access::Change } else { Access::Read };
        let (found, evictable) = guest.at_page(key, access, |shard, heap, key| {
            let evictable = shard.space.heap(heap).purpose == Use::Evictable;
            if mode == GetMode::Exclusive && !evictable {
                return Err(GetError::ExclusivePersistent);
            }
            let found = shard.get(heap, key, mode, epoch, &mut scratch.stored);
            let counters = &mut shard.pool_mut(key.pool).counters;
            counters.gets += 1;
            counters.hits += u64::from(found.is_some());
            Ok((found, evictable))
        })??;
        let (head, name) = found.ok_or(GetError::Miss)?;
        let length = head.length();
        let stored = scratch.stored.get(..length).unwrap_or_default();
        let intact = PayloadSum::new(stored).finish(head, name) == head.checksum()
            && scratch.decode(head.codec(), length, page).is_ok();
        if intact {
            return Ok(());
        }
        guest.at_page(key, Access::Change, |shard, _, key| {
            shard.pool_mut(key.pool).counters.corrupt += 1;
            if evictable {
                shard.remove_exact(key, name);
            }
        })?;
        if evictable { Err(GetError::Miss) } else { Err(GetError::Corrupt) }
    }

    /// Removes the pages `first..=last` of an object, a batch under each lock; returns how many.
    pub(crate) fn flush_range(
        &self,
        guest: &GuestState,
        id: PoolId,
        object: &ObjectId,
        first: u64,
        last: u64,
    ) -> Result<u64, NoPool> {
        // A pool that ends meanwhile, and another that begins under its number, are left alone.
        let (domain, id, own) = match guest.entry(id)? {
            Entry::Own { life, kind } => (guest.domain()?.clone(), id, Some((life, kind))),
            Entry::Shared(shared) => (shared.domain.clone(), shared::POOL, None),
        };
        let hash = domain.hash(id.0, object);
        let mut total = 0;
        for number in domain.shards_of(hash, first, last) {
            let mut from = Some(first);
            while let Some(index) = from {
                let mut stripe = domain.lock(number);
                let named = match own {
                    Some((life, _)) => stripe.names.resolve_life(id, life),
                    None => stripe.names.resolve(id),
                };
                let Some(PoolRef::Own { pool, .. }) = named else { break };
                let key = PageKey { pool: *pool, hash, object, index };
                let (removed, next) = stripe.shard.remove_range(&key, last, BATCH);
                stripe.shard.pool_mut(key.pool).counters.flushed += removed;
                total += removed;
                from = next;
            }
        }
        domain.touch();
        if own.is_some_and(|(_, kind)| !kind.is_ephemeral()) {
            guest.take_back.count_gone(total);
        }
        Ok(total)
    }

    /// Removes one page; returns how many there were, 0 or 1.
    pub(crate) fn flush_page(&self, guest: &GuestState, key: &Key) -> Result<u64, NoPool> {
        let (removed, evictable) = guest.at_page(key, Access::Change, |shard, heap, key| {
            let (removed, _) = shard.remove_range(key, key.index, 1);
            shard.pool_mut(key.pool).counters.flushed += removed;
            (removed, shard.space.heap(heap).purpose == Use::Evictable)
        })?;
        if !evictable {
            guest.take_back.count_gone(removed);
        }
        Ok(removed)
    }
}
