// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pools: what is in them, and what happened in them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One pool, as one guest sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolReport {
    /// The guest's number of the pool.
    pub id: u32,
    /// What it promises.
    pub kind: PoolKind,
    /// Of a shared pool.
    pub uuid: Option<Uuid>,
    /// Of a shared pool, all members' pages.
    #[serde(flatten)]
    pub contents: Contents,
    /// Of a shared pool, all members'.
    #[serde(flatten)]
    pub counters: Counters,
}

/// What a pool promises, and to whom it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PoolKind {
    /// Pages may be dropped at any time.
    Ephemeral,
    /// An accepted page is kept.
    Persistent,
    /// Ephemeral, and shared with other guests.
    Shared,
}

impl PoolKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ephemeral, Self::Persistent, Self::Shared];

    /// As in the document.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ephemeral => "ephemeral",
            Self::Persistent => "persistent",
            Self::Shared => "shared",
        }
    }
}

/// What is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Contents {
    /// Pages held.
    pub pages: u64,
    /// Of these, pages of one repeated word.
    pub same_filled: u64,
    /// Of these, pages that do not compress.
    pub raw: u64,
    /// Of these, pages in the denser, slower tier.
    pub cold: u64,
    /// Stored sizes, without overhead.
    pub compressed_bytes: u64,
}

impl Contents {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            pages: self.pages.saturating_add(other.pages),
            same_filled: self.same_filled.saturating_add(other.same_filled),
            raw: self.raw.saturating_add(other.raw),
            cold: self.cold.saturating_add(other.cold),
            compressed_bytes: self.compressed_bytes.saturating_add(other.compressed_bytes),
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Counters {
    /// Puts, refused ones included.
    pub puts: u64,
    /// Of these, refused ones.
    pub refused: Refusals,
    /// Gets.
    pub gets: u64,
    /// Of these, gets that found a page, damaged ones included.
    pub hits: u64,
    /// Of these, gets that found it damaged.
    pub corrupt: u64,
    /// Pages removed by flushes.
    pub flushed: u64,
    /// Pages dropped to make room.
    pub evicted: u64,
}

impl Counters {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            puts: self.puts.saturating_add(other.puts),
            refused: self.refused.plus(&other.refused),
            gets: self.gets.saturating_add(other.gets),
            hits: self.hits.saturating_add(other.hits),
            corrupt: self.corrupt.saturating_add(other.corrupt),
            flushed: self.flushed.saturating_add(other.flushed),
            evicted: self.evicted.saturating_add(other.evicted),
        }
    }
}

/// Refused puts by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Refusals {
    /// The guest's limit was reached.
    pub guest_limit: u64,
    /// What is left is reserved for other guests.
    pub share: u64,
    /// The store was full.
    pub store_full: u64,
    /// The host gave no memory.
    pub no_memory: u64,
    /// The guest was frozen.
    #[serde(default)]
    pub frozen: u64,
}

impl Refusals {
    /// Each reason as in the document, with its number.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u64); 5] {
        [
            ("guest_limit", self.guest_limit),
            ("share", self.share),
            ("store_full", self.store_full),
            ("no_memory", self.no_memory),
            ("frozen", self.frozen),
        ]
    }

    /// All refusals.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_reason().into_iter().fold(0, |total, (_, number)| total.saturating_add(number))
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            guest_limit: self.guest_limit.saturating_add(other.guest_limit),
            share: self.share.saturating_add(other.share),
            store_full: self.store_full.saturating_add(other.store_full),
            no_memory: self.no_memory.saturating_add(other.no_memory),
            frozen: self.frozen.saturating_add(other.frozen),
        }
    }
}

/// What happened in private pools of a guest that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndedPools {
    /// In ephemeral ones.
    pub ephemeral: Counters,
    /// In persistent ones.
    pub persistent: Counters,
}
