// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a page is called: pool, object and index, all three chosen by the guest.

/// Size of a page in bytes. The guest kernel's page size on every supported architecture.
pub const PAGE_SIZE: usize = 4096;

/// The content of one page.
pub type Page = [u8; PAGE_SIZE];

/// A pool's number, chosen by the guest and unique within that guest only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

/// An object (file, swap device) within a pool: 192 bits the store gives no meaning to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 24]);

/// The full name of a page within one guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Pool the page is in.
    pub pool: PoolId,
    /// Object within the pool.
    pub object: ObjectId,
    /// Page number within the object.
    pub index: u64,
}
