// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which keys the pages of a benchmark have.

use zcache_store::{Key, ObjectId, PoolId};

/// The benchmarks' only pool.
pub(super) const POOL: PoolId = PoolId(1);
/// Pages of a file: a typical mean of a page cache that holds more than tiny files.
const FILE_PAGES: u64 = 48;

/// A way to name the n-th page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One object, pages one after the other: a swap device.
    Swap,
    /// Objects of 48 pages.
    Files,
    /// One object, one page in eight, at random.
    Scattered,
    /// One page an object.
    Tiny,
}

impl Shape {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Swap => "swap",
            Self::Files => "files",
            Self::Scattered => "scattered",
            Self::Tiny => "tiny",
        }
    }

    pub(super) fn key(self, page: u64) -> Key {
        let (object, index) = match self {
            Self::Swap => (0, page),
            Self::Files => (page / FILE_PAGES, page % FILE_PAGES),
            // The high bits of a multiplicative hash choose the page within its eight.
            Self::Scattered => (0, page * 8 + (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61)),
            Self::Tiny => (page, 0),
        };
        let mut id = [0; 24];
        id[..8].copy_from_slice(&object.to_le_bytes());
        Key { pool: POOL, object: ObjectId(id), index }
    }
}
