// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pools that several guests share. Each has a domain of its own, in which each member's pages are
//! in the member's heap, so that who put a page pays for it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::domain::{Common, Domain};
use super::names::PoolRef;
use crate::accounting::{Account, Use};
use crate::key::PoolId;
use crate::shard::retire::Detached;
use crate::shard::space::record::Life;
use crate::stats::Contents;

/// The name of the pool within its domain.
pub(crate) const POOL: PoolId = PoolId(0);

/// What tells a shared pool from others: of one UUID there is one in each trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SharedName {
    pub(crate) trust_domain: Arc<str>,
    pub(crate) uuid: [u8; 16],
}

/// A shared pool.
pub(crate) struct Shared {
    pub(crate) domain: Arc<Domain>,
    pub(crate) name: SharedName,
    members: Mutex<Vec<Member>>,
}

struct Member {
    guest: u32,
    heap: usize,
}

impl Shared {
    pub(crate) fn new(common: &Common, name: SharedName) -> Self {
        let domain = Domain::new(common, false);
        for mut stripe in domain.each() {
            let pool = stripe.shard.add_pool(POOL.0, Life::default());
            // Whose heap it is does not matter: each member has its own.
            stripe.names.set(POOL, Life::default(), PoolRef::Own { pool, heap: 0 });
        }
        Self { domain: Arc::new(domain), name, members: Mutex::new(Vec::new()) }
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

    /// Lets a guest out, whose pages cannot be found from then on; returns how many there were, and
    /// whether nobody is left.
    pub(crate) fn leave(&self, guest: u32) -> (u64, bool) {
        let mut members = self.members();
        let Some(at) = members.iter().position(|member| member.guest == guest) else {
            return (0, members.is_empty());
        };
        let heap = members.swap_remove(at).heap;
        let last = members.is_empty();
        self.domain.ready.remove(|other| other == heap);
        let pages = self.domain.each().map(|mut stripe| stripe.shard.retire_heap(heap)).sum();
        drop(members);
        self.domain.touch();
        (pages, last)
    }

    /// Takes all pages of all members out of service; returns how many there were, and what can be
    /// given back.
    pub(crate) fn flush(&self) -> (u64, Vec<Detached>) {
        flush(&self.domain, POOL, Life::default(), Life::default())
    }
}

/// Takes all pages of a pool out of service that is in life `from`, and begins life `to`; returns
/// how many there were, and what can be given back.
pub(super) fn flush(domain: &Domain, id: PoolId, from: Life, to: Life) -> (u64, Vec<Detached>) {
    let (mut pages, mut detached) = (0, Vec::new());
    for mut stripe in domain.each() {
        let Some(PoolRef::Own { pool, heap }) = stripe.names.resolve_life(id, from) else { continue };
        let (pool, heap) = (*pool, *heap);
        let (removed, pool) = stripe.shard.flush_pool(pool, to);
        stripe.names.set(id, to, PoolRef::Own { pool, heap });
        pages += removed;
        detached.extend(stripe.shard.detach_idle());
    }
    domain.touch();
    (pages, detached)
}
