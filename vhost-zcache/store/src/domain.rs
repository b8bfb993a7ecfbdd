// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A set of shards and how keys are spread over them: a guest's own keys, or a shared pool's.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use siphasher::sip::SipHasher13;

use crate::accounting::{Account, Use};
use crate::arena::memory::{Arena, Tail};
use crate::arena::ready::{Ready, Wake};
use crate::arena::space::{Label, Slot, Space};
use crate::codec::RAW_ABOVE;
use crate::evict::Policy;
use crate::evict::duel::Duel;
use crate::evict::learn::Learned;
use crate::fault::Faults;
use crate::key::{ObjectId, PoolId};
use crate::op::Refusal;
use crate::shard::{PoolRef, PoolShard, Shard};
use crate::stats::{Contents, Counters};

/// An object's pages are spread over the shards in stripes of this many, so that a large file or
/// swap device is served in parallel while a small file stays in one shard.
const STRIPE_BITS: u32 = 6;
/// Rounds of the background without growth after which the room ahead of the tails is given back.
const QUIET_ROUNDS: u8 = 10;
/// Then, room of less than one part in this many of its heap stays: giving back a part of a huge page makes
/// small ones of the rest.
const QUIET_PARTS: u64 = 64;
/// Pages removed before other requests get their turn.
const BATCH: u64 = 512;

/// What all shards of a store have in common.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) arena: Arc<Arena>,
    pub(crate) wake: Arc<Wake>,
    pub(crate) faults: Faults,
    /// Secret, because keys are chosen by guests.
    pub(crate) seed: [u64; 2],
    /// Shards per domain, a power of two.
    pub(crate) shards: usize,
}

impl Common {
    pub(crate) fn label(&self, shard: usize, recoverable: bool) -> Label {
        // At most 256, see `StoreConfig::shards`.
        let number = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        Label { shard: number(shard), shards: number(self.shards), seed: self.seed, recoverable }
    }

    fn shard(&self, number: usize, recoverable: bool, ready: &Arc<Ready>, tail: &Arc<Tail>) -> Shard {
        let label = self.label(number, recoverable);
        let space = Space::new(Arc::clone(&self.arena), label, Arc::clone(ready), Arc::clone(tail));
        Shard::new(space, self.faults.clone())
    }
}

/// A shard and what may be looked at without its lock. Aligned so that no two shards are on one pair
/// of cache lines, which processors fetch together.
#[repr(align(128))]
struct Locked {
    shard: Mutex<Shard>,
    tail: Arc<Tail>,
}

/// Shards of one guest's own pools, or of one shared pool.
pub(crate) struct Domain {
    shards: Box<[Locked]>,
    seed: [u64; 2],
    ready: Arc<Ready>,
    /// Rounds since it last grew; from `QUIET_ROUNDS` on there is no room ahead.
    quiet: AtomicU8,
}

impl Domain {
    pub(crate) fn new(common: &Common, recoverable: bool) -> Self {
        let ready = Arc::new(Ready::new(Arc::clone(&common.wake)));
        let shard = |number| {
            let tail = Arc::default();
            Locked { shard: Mutex::new(common.shard(number, recoverable, &ready, &tail)), tail }
        };
        let shards = (0..common.shards).map(shard).collect();
        Self { shards, seed: common.seed, ready, quiet: AtomicU8::new(QUIET_ROUNDS) }
    }

    /// Drops everything in all shards.
    pub(crate) fn clear(&self, common: &Common) {
        for number in 0..self.len() {
            let empty = common.shard(number, true, &self.ready, &self.shards[number].tail);
            let old = std::mem::replace(&mut *self.lock(number), empty);
            drop(old);
        }
        self.ready.remove(|_| true);
    }

    /// Hash of an object of a pool.
    pub(crate) fn hash(&self, pool: u32, object: &ObjectId) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.seed[0], self.seed[1]);
        pool.hash(&mut hasher);
        hasher.write(&object.0);
        hasher.finish()
    }

    /// The shard of a page.
    pub(crate) fn shard_of(&self, hash: u64, index: u64) -> usize {
        let start = hash >> 32;
        (start.wrapping_add(index >> STRIPE_BITS) as usize) & (self.shards.len() - 1)
    }

    /// The shards that may hold pages of a range of indexes.
    pub(crate) fn shards_of(&self, hash: u64, first: u64, last: u64) -> impl Iterator<Item = usize> {
        let stripes = (last >> STRIPE_BITS) - (first >> STRIPE_BITS);
        let count = usize::try_from(stripes).unwrap_or(usize::MAX).saturating_add(1);
        let start = self.shard_of(hash, first);
        let mask = self.shards.len() - 1;
        (0..count.min(self.shards.len())).map(move |step| (start + step) & mask)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    pub(crate) fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // No code under the lock panics; if a bug makes it, the other shards go on, and this one
        // is checked by the checksums of its pages.
        let mut shard = self.shards[shard].shard.lock();
        shard.space.work.begin_hold();
        shard
    }

    /// Asks for the memory that a page put into a shard will be written to, if its heap grows. Memory
    /// the kernel has just cleared is in no cache of this processor, and the shard's lock could not be
    /// released before it has come. What a smaller page leaves of it is there for the next.
    pub(crate) fn prefetch_tail(&self, shard: usize) {
        self.shards[shard].tail.prefetch(RAW_ABOVE / size_of::<u64>());
    }

    /// Makes segments ready for heaps that grow.
    pub(crate) fn make_ready(&self, arena: &Arc<Arena>) {
        self.ready.make(arena);
    }

    /// Called once a round: gives the room back when the heaps have stopped growing.
    pub(crate) fn settle(&self) {
        if self.ready.grew() {
            self.quiet.store(0, Relaxed);
        }
        let quiet = self.quiet.load(Relaxed);
        if quiet < QUIET_ROUNDS {
            self.quiet.store(quiet + 1, Relaxed);
            if quiet + 1 == QUIET_ROUNDS {
                self.ready.trim(usize::MAX);
                for mut shard in self.each() {
                    shard.space.trim_ahead(QUIET_PARTS);
                }
            }
        }
    }

    /// Checks what no shard knows.
    #[cfg(feature = "check")]
    pub(crate) fn check_ready(&self) -> Result<(), String> {
        self.ready.check()
    }

    /// Gives back some of what is resident and not used yet, for a put that waits for it: a ready segment of each heap,
    /// or the room behind the tails of one shard. Returns whether there was any.
    pub(crate) fn trim_ahead(&self) -> bool {
        self.ready.trim(1) || self.each().any(|mut shard| shard.space.trim_ahead(u64::MAX))
    }

    /// One shard after the other.
    pub(crate) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        (0..self.shards.len()).map(|shard| self.lock(shard))
    }

    /// Adds a heap to all shards; it has the same number in each.
    pub(crate) fn add_heap(&self, account: &Arc<Account>, purpose: Use, guest: u32) -> usize {
        let duel = (purpose == Use::Evictable).then(|| Arc::new(Duel::new(Arc::clone(account), self.len())));
        let heap =
            self.each().map(|mut shard| shard.add_heap(account, purpose, guest, duel.as_ref())).max().unwrap_or(0);
        self.ready.add(heap, Arc::clone(account), purpose);
        heap
    }

    /// Adds a pool to all shards under the same number.
    pub(crate) fn add_pool(&self, pool: usize, id: u32) {
        for mut shard in self.each() {
            shard.add_pool(pool, id);
        }
    }

    /// Lets all shards know what a guest's pool number stands for.
    pub(crate) fn name_pool(&self, id: PoolId, reference: &PoolRef) {
        for mut shard in self.each() {
            if let Err(at) = shard.names.binary_search_by_key(&id, |(id, _)| *id) {
                shard.names.insert(at, (id, reference.clone()));
            }
        }
    }

    /// Removes all pages of a pool, letting others in between; returns how many there were.
    pub(crate) fn clear_pool(&self, pool: usize, count: impl Fn(&mut PoolShard, u64)) -> u64 {
        let mut total = 0;
        for shard in 0..self.len() {
            loop {
                let mut guard = self.lock(shard);
                let removed = guard.remove_some(pool, BATCH);
                if let Some(Some(pool)) = guard.pools.get_mut(pool) {
                    count(pool, removed);
                }
                if removed < BATCH {
                    total += removed;
                    break;
                }
                total += removed;
            }
        }
        total
    }

    /// Contents and counters of a pool.
    pub(crate) fn pool_stats(&self, pool: usize) -> (Contents, Counters) {
        let mut contents = Contents::default();
        let mut counters = Counters::default();
        for shard in self.each() {
            if let Some(Some(pool)) = shard.pools.get(pool) {
                contents.merge(&pool.contents);
                counters.merge(&pool.counters);
            }
        }
        (contents, counters)
    }

    /// How pages of an evictable heap are chosen to make room.
    pub(crate) fn policy(&self, heap: usize) -> Policy {
        let shard = self.lock(0);
        let learned = shard.learned.get(heap).and_then(Option::as_ref);
        learned.map_or_else(Policy::default, Learned::policy)
    }

    /// Contents of a heap.
    pub(crate) fn heap_contents(&self, heap: usize) -> Contents {
        let mut contents = Contents::default();
        for shard in self.each() {
            if let Some(Some(heap)) = shard.space.heaps.get(heap) {
                contents.merge(&heap.contents);
            }
        }
        contents
    }
}

/// A shared pool. It is pool 0 of its own domain; each member's pages are in the member's heap.
pub(crate) struct Shared {
    pub(crate) domain: Domain,
    pub(crate) uuid: [u8; 16],
    members: Mutex<Vec<Member>>,
}

struct Member {
    guest: u32,
    heap: usize,
}

impl Shared {
    pub(crate) fn new(common: &Common, uuid: [u8; 16]) -> Self {
        let domain = Domain::new(common, false);
        domain.add_pool(0, 0);
        Self { domain, uuid, members: Mutex::new(Vec::new()) }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock()
    }

    /// Lets a guest in that is not a member yet, and returns the heap of its pages.
    pub(crate) fn join(&self, guest: u32, account: &Arc<Account>) -> usize {
        let mut members = self.members();
        let heap = self.domain.add_heap(account, Use::Evictable, guest);
        members.push(Member { guest, heap });
        heap
    }

    /// Contents of a member's heap.
    pub(crate) fn contents_of(&self, guest: u32) -> Contents {
        let members = self.members();
        let member = members.iter().find(|member| member.guest == guest);
        member.map_or_else(Contents::default, |member| self.domain.heap_contents(member.heap))
    }

    /// Lets a guest out; returns how many of its pages went, and whether nobody is left.
    pub(crate) fn leave(&self, guest: u32) -> (u64, bool) {
        let mut members = self.members();
        let Some(at) = members.iter().position(|member| member.guest == guest) else {
            return (0, members.is_empty());
        };
        let heap = members.swap_remove(at).heap;
        let heir = members.first().map(|member| member.heap);
        let mut pages = 0;
        for mut shard in self.domain.each() {
            pages += shard.space.heap(heap).contents.pages;
            let returned = shard.remove_heap(heap, heir);
            drop(shard);
            drop(returned);
        }
        self.domain.ready.remove(|other| other == heap);
        (pages, members.is_empty())
    }
}

impl Shard {
    /// Removes a member's heap: its pages go, names of objects that others have pages of move to
    /// `heir`, who also takes over what the leaver pays for in the index.
    fn remove_heap(&mut self, heap: usize, heir: Option<usize>) -> Vec<Slot> {
        let slots: Vec<usize> = (0..self.space.slots.len())
            .filter(|slot| matches!(&self.space.slots[*slot], Some(slot) if slot.heap == heap))
            .collect();
        for slot in &slots {
            if !self.space.slot(*slot).draining {
                self.space.start_draining(*slot);
            }
            self.evict_pages(*slot);
        }
        let mut returned = Vec::new();
        for slot in slots {
            // What is left are names of objects of which other members have pages.
            if let Some(heir) = heir {
                self.move_names(slot, heir);
            }
            returned.extend(self.space.release(slot));
        }
        if let Some(heir) = heir
            && self.nodes.inherit(heap, heir) != Ok(())
        {
            // The heir cannot pay: the pool is ephemeral, so it loses its pages here.
            self.remove_some(0, u64::MAX);
            let _: Result<(), Refusal> = self.nodes.inherit(heap, heir);
        }
        self.space.heaps[heap] = None;
        self.learned[heap] = None;
        returned
    }
}
