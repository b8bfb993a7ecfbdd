// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Modes and errors of put and get.

use thiserror::Error;

use crate::pool::NoPool;

/// What a get leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetMode {
    /// The page stays in the store.
    Plain,
    /// A hit removes the page. Only for ephemeral pools.
    Exclusive,
}

/// Why a page was not taken, counted one by one in the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// The guest's own limit of physical bytes is reached.
    #[error("the guest's memory limit is reached")]
    GuestLimit,
    /// What is left of the store is reserved for other guests' persistent pages.
    #[error("the guest has its share of the store, and the rest is reserved for others")]
    Share,
    /// The store's limit is reached and nothing more can be evicted.
    #[error("the store is full")]
    StoreFull,
    /// The host did not give memory although the limits allow it, or a table of the store
    /// cannot address more.
    #[error("the host has no memory for the page")]
    NoMemory,
    /// The guest is frozen: nothing new is stored for it.
    #[error("the guest is frozen")]
    Frozen,
}

/// A put that did not store the page. Whatever the reason, an older page of that key is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PutError {
    /// The guest has no pool of that number.
    #[error(transparent)]
    NoPool(#[from] NoPool),
    /// There was no room.
    #[error("the page was refused: {0}")]
    Refused(Refusal),
}

/// A get that did not deliver a page. The caller's page then holds nothing of use, and never
/// another guest's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GetError {
    /// The guest has no pool of that number.
    #[error(transparent)]
    NoPool(#[from] NoPool),
    /// The store does not hold the page.
    #[error("no such page")]
    Miss,
    /// A persistent page is damaged. (A damaged ephemeral page is a miss.)
    #[error("the stored page is damaged")]
    Corrupt,
    /// An exclusive get on a persistent pool, where a lost reply would lose the page.
    #[error("a persistent pool has no exclusive gets")]
    ExclusivePersistent,
}
