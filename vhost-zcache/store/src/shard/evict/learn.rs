// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is learned from the puts, gets and flushes of a heap about which pages are worth keeping.

use std::sync::Arc;

use super::duel::Duel;
use super::ghost::Ghosts;
use super::rules::{Departure, Rules};
use super::{Policy, s3_fifo::S3Fifo};
use crate::accounting::Account;
use crate::op::GetMode;
use crate::shard::space::queue::Queue;

/// What one shard knows of an evictable heap's pages that are gone, and what all its shards do.
/// Pages have a [`name`]; `pages` is how many there are in the shard.
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
        let remembered = self.ghosts.recall(name, pages);
        self.policy().admit(remembered) == Queue::Main
    }

    /// A page is asked for.
    pub(crate) fn get(&self, name: u64, mode: GetMode) {
        self.duel.get(name, mode == GetMode::Exclusive);
    }

    /// A page left. What S3-FIFO wants to know of it is remembered whatever the heap does now: it
    /// may be S3-FIFO's turn soon.
    pub(crate) fn leave(&mut self, name: u64, pages: u64, departure: Departure) {
        if S3Fifo.remembers(departure) {
            self.ghosts.remember(name, pages);
        }
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

/// What a page is known by: the part of its object's hash that the index keeps, and its index,
/// mixed.
pub(crate) fn name(hash: u32, index: u64) -> u64 {
    let mixed = (u64::from(hash) << 32 ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ mixed >> 32
}
