// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an earlier process has left in a shard, until somebody looks: the first who locks the shard
//! ([`Domain::lock`]), or [`Recovery::finish`](super::recover::Recovery::finish).
//!
//! Between two processes guests wait for one shard, not for all. That is right because nobody can
//! tell: everything that is done to a shard or asked of it is done under its lock, and the lock
//! finds the pages first. Which pools there are is known before, of the roster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{process, thread};

use super::domain::{Domain, Stripe};
use super::guest_state::GuestState;
use super::recover::Watch;
use super::roster::Entry;
use super::{EPHEMERAL, PERSISTENT};
use crate::accounting::{Charge, Use};
use crate::key::{ObjectId, PoolId};
use crate::op::Refusal;
use crate::shard::recover::Alive;
use crate::shard::space::adopt::Remains;

/// Of a shard's memory, its index is about one part in this many: some 10 bytes for a page of 1.5
/// KiB. So much is paid for until the index is there.
const INDEX_PART: u64 = 128;

/// A guest's private pools.
pub(super) type Pools = BTreeMap<PoolId, Entry>;

/// What has come of looking.
pub(super) struct Journal {
    watch: Box<dyn Watch>,
    /// Records that were not taken over.
    dropped: AtomicU64,
}

impl Journal {
    pub(super) fn new(watch: Box<dyn Watch>) -> Self {
        Self { watch, dropped: AtomicU64::new(0) }
    }

    pub(super) fn watch(&self) -> &dyn Watch {
        &*self.watch
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// One shard's part of it.
pub(super) struct Pending {
    guest: u32,
    remains: Vec<Remains>,
    pools: Arc<Pools>,
    /// For the index.
    index: Charge,
    journal: Arc<Journal>,
}

/// Ends the process when it is dropped by a panic, also where panics are caught: a shard of which a
/// part was found would answer that there is nothing more.
struct AllOrNothing;

impl Drop for AllOrNothing {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}

impl Pending {
    pub(super) fn new(guest: &GuestState, remains: Vec<Remains>, pools: Arc<Pools>, journal: Arc<Journal>) -> Self {
        let bytes: u64 = remains.iter().map(|segment| segment.charge.bytes()).sum();
        let mut index = Charge::none(Arc::clone(&guest.account), Use::Kept);
        index.grow_regardless(bytes / INDEX_PART);
        Self { guest: guest.number, remains, pools, index, journal }
    }

    /// Makes the index of a shard, in which nothing is but pools without pages.
    pub(super) fn find(self, domain: &Domain, stripe: &mut Stripe) -> Result<(), Refusal> {
        let Self { guest, remains, pools, index, journal } = self;
        let _all = AllOrNothing;
        journal.watch.begins(guest);
        // It is paid for as it is made.
        drop(index);
        let mut alive = BTreeMap::new();
        for (id, Entry { life, purpose }) in pools.iter() {
            if let Some(pool) = stripe.names.own(*id) {
                let heap = if *purpose == Use::Kept { PERSISTENT } else { EPHEMERAL };
                alive.insert(id.0, Alive { pool, heap, life: *life });
            }
        }
        let hash = |pool, object: &ObjectId| domain.hash(pool, object);
        let dropped = stripe.shard.recover(remains, &hash, &alive);
        journal.watch.ends(guest);
        journal.dropped.fetch_add(dropped?, Relaxed);
        Ok(())
    }
}
