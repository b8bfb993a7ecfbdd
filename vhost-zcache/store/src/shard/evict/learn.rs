// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is learned from the puts, gets and flushes of a heap about which pages are worth keeping.

use std::sync::Arc;

use super::Policy;
use super::duel::Duel;
use super::ghost::Ghosts;
use crate::accounting::Account;
use crate::op::GetMode;

/// What one shard knows of an evictable heap's pages that are gone, and what all its shards do. Pages have
/// a [`name`]; `pages` is how many there are in the shard.
pub(crate) struct Learned {
    ghosts: Ghosts,
    duel: Arc<Duel>,
}

impl Learned {
    pub(crate) fn new(account: Arc<Account>, duel: Arc<Duel>) -> Self {
        Self { ghosts: Ghosts::new(account), duel }
    }

    pub(crate) fn policy(&self) -> Policy {
        self.duel.policy()
    }

    /// A page is put; returns whether it belongs into the main queue.
    pub(crate) fn put(&mut self, name: u64, pages: u64) -> bool {
        self.duel.put(name, pages);
        self.ghosts.recall(name, pages) || self.policy() == Policy::Clock
    }

    /// A page is asked for.
    pub(crate) fn get(&self, name: u64, mode: GetMode) {
        self.duel.get(name, mode == GetMode::Exclusive);
    }

    /// A page left that is worth more if it comes back.
    pub(crate) fn remember(&mut self, name: u64, pages: u64) {
        self.ghosts.remember(name, pages);
    }

    /// A page is about to be evicted.
    pub(crate) fn evict(&self) {
        self.duel.evict();
    }

    /// A page became invalid.
    pub(crate) fn flush(&self, name: u64) {
        self.duel.flush(name);
    }
}

/// What a page is known by: the part of its object's hash that the index keeps, and its index, mixed.
pub(crate) fn name(hash: u32, index: u64) -> u64 {
    let mixed = (u64::from(hash) << 32 ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ mixed >> 32
}
