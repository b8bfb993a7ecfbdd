// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A set of shards and how keys are spread over them: a guest's own keys, or a shared pool's.

use std::hash::{Hash, Hasher};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use log::error;
use parking_lot::{Mutex, MutexGuard};
use siphasher::sip::SipHasher13;

use super::names::Names;
use super::pending::Pending;
use crate::accounting::{Account, Use};
use crate::arena::header::Label;
use crate::arena::memory::Arena;
use crate::arena::prefetch::Tail;
use crate::arena::ready::{Ready, Wake};
use crate::codec::RAW_ABOVE;
use crate::fault::Faults;
use crate::key::ObjectId;
use crate::op::Refusal;
use crate::shard::Shard;
use crate::shard::evict::Policy;
use crate::shard::evict::duel::Duel;
use crate::shard::evict::learn::Learned;
use crate::shard::retire::Detached;
use crate::shard::space::{Slot, Space};
use crate::stats::Contents;

/// An object's pages are spread over the shards in stripes of this many, so that a large file or
/// swap device is served in parallel while a small file stays in one shard.
const STRIPE_BITS: u32 = 6;
/// Rounds of the background without growth after which the room ahead of the tails is given back.
const QUIET_ROUNDS: u8 = 10;
/// Then, room of less than one part in this many of its heap stays: giving back a part of a huge
/// page makes small ones of the rest.
const QUIET_PARTS: u64 = 64;

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
    /// Domains made so far.
    pub(crate) domains: Arc<AtomicU64>,
}

impl Common {
    /// Those of a store of four segments.
    #[cfg(test)]
    pub(crate) fn small(shards: usize) -> Self {
        let faults = Faults::default();
        let arena = Arc::new(Arena::new(4, faults.clone()).expect("there is memory"));
        Self { arena, wake: Arc::default(), faults, seed: [0; 2], shards, domains: Arc::default() }
    }

    /// The label of a guest's segments in a shard.
    pub(crate) fn label(&self, guest: u32, shard: usize, recoverable: bool) -> Label {
        // At most 256, see `StoreConfig::shards`.
        let number = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        Label { guest, shard: number(shard), shards: number(self.shards), era: 0, seed: self.seed, recoverable }
    }

    fn shard(&self, number: usize, recoverable: bool, ready: &Arc<Ready>, tail: &Arc<Tail>) -> Shard {
        // Who owns a segment is known when it is opened.
        let label = self.label(0, number, recoverable);
        let space = Space::new(Arc::clone(&self.arena), label, Arc::clone(ready), Arc::clone(tail));
        Shard::new(space, self.faults.clone())
    }
}

/// What one lock protects: a shard, and what pool numbers stand for in it.
pub(crate) struct Stripe {
    pub(crate) names: Names,
    pub(crate) shard: Shard,
    /// What an earlier process has left in the shard, and nobody has looked at.
    pending: Option<Box<Pending>>,
}

impl Stripe {
    /// Takes away all segments of a guest's own evictable heap, with its pages.
    pub(crate) fn shed(&mut self, heap: usize) -> Option<Vec<Slot>> {
        self.shard.shed(heap, &self.names.of_heap(heap))
    }
}

/// A shard and what may be looked at without its lock. Aligned so that no two shards are on one
/// pair of cache lines, which processors fetch together.
#[repr(align(128))]
struct Locked {
    stripe: Mutex<Stripe>,
    tail: Arc<Tail>,
}

/// Shards of one guest's own pools, or of one shared pool.
pub(crate) struct Domain {
    /// Tells it from all other domains of the store; later ones have larger numbers.
    pub(crate) number: u64,
    shards: Box<[Locked]>,
    seed: [u64; 2],
    pub(crate) ready: Arc<Ready>,
    wake: Arc<Wake>,
    /// Something was changed since the background has looked.
    touched: AtomicBool,
    /// Rounds since it last grew; from `QUIET_ROUNDS` on there is no room ahead.
    quiet: AtomicU8,
}

impl Domain {
    pub(crate) fn new(common: &Common, recoverable: bool) -> Self {
        let ready = Arc::new(Ready::new(Arc::clone(&common.wake)));
        let shard = |number| {
            let tail = Arc::default();
            let shard = common.shard(number, recoverable, &ready, &tail);
            Locked { stripe: Mutex::new(Stripe { names: Names::default(), shard, pending: None }), tail }
        };
        let shards = (0..common.shards).map(shard).collect();
        Self {
            number: common.domains.fetch_add(1, Relaxed),
            shards,
            seed: common.seed,
            ready,
            wake: Arc::clone(&common.wake),
            touched: AtomicBool::new(false),
            quiet: AtomicU8::new(QUIET_ROUNDS),
        }
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

    /// Locks a shard. If nobody has looked yet for what an earlier process has left in it, that is
    /// done first, so there is nothing that could be done before. If the host has no memory for the
    /// index of that, the process ends: there is no answer about pages that were not found.
    pub(crate) fn lock(&self, shard: usize) -> MutexGuard<'_, Stripe> {
        // No code under the lock panics; if a bug makes it, the other shards go on, and this one
        // is checked by the checksums of its pages.
        let mut stripe = self.lock_as_is(shard);
        if stripe.pending.is_some() && self.find_pending(&mut stripe).is_err() {
            error!("The host has no memory for the index of what is stored");
            process::abort();
        }
        stripe.shard.space.work.begin_hold();
        stripe
    }

    /// Locks a shard in which pages may still have to be found: for names of pools, and for who
    /// takes everything away.
    fn lock_as_is(&self, shard: usize) -> MutexGuard<'_, Stripe> {
        self.shards[shard].stripe.lock()
    }

    /// One shard after the other, as [`Domain::lock_as_is`] does.
    pub(super) fn each_as_is(&self) -> impl Iterator<Item = MutexGuard<'_, Stripe>> {
        (0..self.shards.len()).map(|shard| self.lock_as_is(shard))
    }

    /// Leaves a shard, in which nothing is, what an earlier process has left in it.
    pub(super) fn set_pending(&self, shard: usize, pending: Pending) {
        self.lock_as_is(shard).pending = Some(Box::new(pending));
    }

    /// Looks for what an earlier process has left in a shard, if nobody has. After a refusal the
    /// store is of no use.
    pub(super) fn find(&self, shard: usize) -> Result<(), Refusal> {
        self.find_pending(&mut self.lock_as_is(shard))
    }

    #[cold]
    fn find_pending(&self, stripe: &mut Stripe) -> Result<(), Refusal> {
        stripe.pending.take().map_or(Ok(()), |pending| pending.find(self, stripe))
    }

    /// Asks for the memory that a page put into a shard will be written to, if its heap grows.
    /// Memory the kernel has just cleared is in no cache of this processor, and the shard's lock
    /// could not be released before it has come. What a smaller page leaves of it is there for the
    /// next.
    pub(crate) fn prefetch_tail(&self, shard: usize) {
        self.shards[shard].tail.prefetch(RAW_ABOVE / size_of::<u64>());
    }

    /// Notes that something was changed, for the background to look after.
    pub(crate) fn touch(&self) {
        if !self.touched.load(Relaxed) {
            self.touched.store(true, SeqCst);
            self.wake.rouse();
        }
    }

    /// Whether something was changed since `take_touched`.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(SeqCst)
    }

    /// Whether something was changed since the last call.
    pub(crate) fn take_touched(&self) -> bool {
        self.touched.load(Relaxed) && self.touched.swap(false, Relaxed)
    }

    /// Makes segments ready for heaps that grow.
    pub(crate) fn make_ready(&self, arena: &Arc<Arena>) {
        self.ready.make(arena);
    }

    /// Called once a round: gives the room back when the heaps have stopped growing. Returns
    /// whether there is some that is not given back yet.
    pub(crate) fn settle(&self) -> bool {
        if self.ready.grew() {
            self.quiet.store(0, Relaxed);
        }
        let quiet = self.quiet.load(Relaxed);
        if quiet >= QUIET_ROUNDS {
            return false;
        }
        self.quiet.store(quiet + 1, Relaxed);
        if quiet + 1 == QUIET_ROUNDS {
            self.ready.trim(usize::MAX);
            for mut stripe in self.each() {
                stripe.shard.space.trim_ahead(QUIET_PARTS);
            }
        }
        true
    }

    /// Checks what no shard knows.
    #[cfg(feature = "check")]
    pub(crate) fn check_ready(&self) -> Result<(), String> {
        self.ready.check()
    }

    /// Gives back some of what is resident and not used yet, for a put that waits for it: a ready
    /// segment of each heap, or the room behind the tails of one shard. Returns how many bytes.
    pub(crate) fn trim_ahead(&self) -> u64 {
        let behind_tails = |mut stripe: MutexGuard<'_, Stripe>| stripe.shard.space.trim_ahead(u64::MAX);
        match self.ready.trim(1) {
            0 => self.each().map(behind_tails).find(|bytes| *bytes > 0).unwrap_or(0),
            ready => ready,
        }
    }

    /// Gives back all that is resident and not used yet; returns how many bytes.
    pub(crate) fn trim_all_ahead(&self) -> u64 {
        let behind_tails: u64 = self.each().map(|mut stripe| stripe.shard.space.trim_ahead(u64::MAX)).sum();
        self.ready.trim(usize::MAX) + behind_tails
    }

    /// One shard after the other.
    pub(crate) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Stripe>> {
        (0..self.shards.len()).map(|shard| self.lock(shard))
    }

    /// Adds a heap to all shards; it has the same number in each. Two calls may not meet.
    pub(crate) fn add_heap(&self, account: &Arc<Account>, purpose: Use, guest: u32) -> usize {
        let duel = (purpose == Use::Evictable).then(|| Arc::new(Duel::new(Arc::clone(account), self.len())));
        // Those of guests that have left go in one shard earlier than in another.
        let used = |heap: usize| self.each().any(|stripe| stripe.shard.space.has_heap(heap));
        let heap = (0..).find(|heap| !used(*heap)).unwrap_or(usize::MAX);
        for mut stripe in self.each() {
            stripe.shard.add_heap(heap, account, purpose, guest, duel.as_ref());
        }
        self.ready.add(heap, Arc::clone(account), purpose);
        heap
    }

    /// Takes everything away that is in the shards.
    pub(crate) fn detach(&self) -> Vec<Detached> {
        self.ready.remove(|_| true);
        let detach = |mut stripe: MutexGuard<'_, Stripe>| {
            // Nobody looks for it any more.
            stripe.pending = None;
            stripe.shard.detach()
        };
        self.each_as_is().map(detach).collect()
    }

    /// How pages of an evictable heap are chosen to make room.
    pub(crate) fn policy(&self, heap: usize) -> Policy {
        let stripe = self.lock(0);
        let learned = stripe.shard.learned.get(heap).and_then(Option::as_ref);
        learned.map_or_else(Policy::default, Learned::policy)
    }

    /// Contents of a heap.
    pub(crate) fn heap_contents(&self, heap: usize) -> Contents {
        let mut contents = Contents::default();
        for stripe in self.each() {
            if let Some(Some(heap)) = stripe.shard.space.heaps.get(heap) {
                contents.merge(&heap.contents);
            }
        }
        contents
    }
}
