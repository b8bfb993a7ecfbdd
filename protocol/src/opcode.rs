// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a request asks for.

/// Operation of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Opcode {
    /// Opens a session.
    Hello = 1,
    /// Creates a pool, or joins a shared one.
    PoolCreate = 2,
    /// Destroys a pool, or leaves a shared one.
    PoolDestroy = 3,
    /// Stores a page.
    Put = 4,
    /// Reads a page back.
    Get = 5,
    /// Removes one page.
    FlushPage = 6,
    /// Removes a range of an object's pages.
    FlushRange = 7,
    /// Removes an object's pages.
    FlushObject = 8,
    /// Removes a pool's pages.
    FlushPool = 9,
    /// Asks how many persistent pages the host would like the guest to take back.
    Wanted = 10,
}

impl Opcode {
    /// Every opcode, in numeric order.
    pub const ALL: [Self; 10] = [
        Self::Hello,
        Self::PoolCreate,
        Self::PoolDestroy,
        Self::Put,
        Self::Get,
        Self::FlushPage,
        Self::FlushRange,
        Self::FlushObject,
        Self::FlushPool,
        Self::Wanted,
    ];

    /// The opcode of a wire value, `None` where the value has no meaning.
    #[must_use]
    pub fn from_wire(value: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|op| *op as u16 == value)
    }
}
