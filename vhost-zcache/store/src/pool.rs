// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kinds of pools and what can go wrong when one is created.

use thiserror::Error;

/// Most pools one guest may have at a time. The kernel's cleancache knows 32 file systems and
/// frontswap 32 swap devices; the rest is room for front-ends that keep one pool a device.
pub const MAX_POOLS_PER_GUEST: usize = 256;

/// What a pool promises, and to whom it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// Pages may be dropped at any time.
    Ephemeral,
    /// An accepted page is kept until it is flushed or overwritten.
    Persistent,
    /// An ephemeral pool shared by every guest that names the same UUID. There is no shared
    /// persistent pool: a page in it would have nobody to charge once its putter has left.
    SharedEphemeral([u8; 16]),
}

impl PoolKind {
    /// Whether other guests may be in the pool.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Self::SharedEphemeral(_))
    }

    /// Whether the store may drop this pool's pages.
    #[must_use]
    pub fn is_ephemeral(self) -> bool {
        !matches!(self, Self::Persistent)
    }
}

/// How a pool came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The pool is new to this guest (a shared one may already hold others' pages).
    Created,
    /// The guest had a pool of that number and kind; it keeps its pages.
    AlreadySame,
}

/// Why a pool was not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PoolError {
    /// The number is in use for a pool of another kind, or the guest is in that shared pool
    /// under another number.
    #[error("the pool exists with another kind or number")]
    Exists,
    /// The guest has [`MAX_POOLS_PER_GUEST`] pools.
    #[error("the guest has too many pools")]
    TooMany,
    /// The bookkeeping of a pool does not fit in the guest's or the store's limit.
    #[error("no memory is left for another pool")]
    NoMemory,
}

/// The guest has no pool of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the guest has no such pool")]
pub struct NoPool;
