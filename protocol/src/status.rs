// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a request ended.

/// Status of a [`RequestResult`](crate::RequestResult).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// GET: the device does not hold the page.
    Miss = 1,
    /// PUT: no room; the key now holds nothing.
    Refused = 2,
    /// The guest has no pool of this id.
    NoPool = 3,
    /// POOL_CREATE: the id is in use with other attributes.
    Exists = 4,
    /// POOL_CREATE: the host does not allow it.
    Denied = 5,
    /// POOL_CREATE: too many pools, or no memory for one more.
    Limit = 6,
    /// A field of the request breaks the format.
    Invalid = 7,
    /// Unknown opcode, version or feature.
    Unsupported = 8,
    /// No HELLO since the last reset.
    NoSession = 9,
    /// The chain is not a batch; nothing was executed.
    Malformed = 10,
    /// GET: a persistent page failed its checksum.
    Corrupt = 11,
}

impl Status {
    /// Every status, in numeric order.
    pub const ALL: [Self; 12] = [
        Self::Ok,
        Self::Miss,
        Self::Refused,
        Self::NoPool,
        Self::Exists,
        Self::Denied,
        Self::Limit,
        Self::Invalid,
        Self::Unsupported,
        Self::NoSession,
        Self::Malformed,
        Self::Corrupt,
    ];

    /// The status of a wire value, `None` where the value has no meaning.
    #[must_use]
    pub fn from_wire(value: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u16 == value)
    }
}
