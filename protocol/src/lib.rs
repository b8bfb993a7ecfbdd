// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Wire format of the zcache transcendent-memory device.
//!
//! `SPEC.md` beside this crate is the specification. This crate and
//! `include/zcache.h` restate its layouts; `tests/abi.rs` compiles the header
//! and compares every size, offset and constant, so the two cannot drift.
//!
//! Nothing here interprets a request: the types are plain bytes with names, any
//! bit pattern is a valid value, and what a device accepts is the device's code.
#![no_std]
#![forbid(unsafe_code)]

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

mod opcode;
mod status;

pub use opcode::Opcode;
pub use status::Status;

/// The bytes "ZCCH" at offset 0 of the config space.
pub const MAGIC: u32 = u32::from_le_bytes(*b"ZCCH");
/// Version of this format; a driver refuses a device of any other.
pub const VERSION: u32 = 1;
/// Virtio device id used when the operator chooses none: it has no Linux driver
/// and every VMM with a generic vhost-user device accepts it.
pub const DEFAULT_VIRTIO_ID: u32 = 13;
/// Bytes of a page on the wire.
pub const PAGE_SIZE: usize = 4096;
/// Bytes of an object id, the size of Linux's `struct cleancache_filekey`.
pub const OBJECT_SIZE: usize = 24;
/// Bytes of an instance id or a pool's UUID.
pub const ID_SIZE: usize = 16;

/// POOL_CREATE flag: pages put here must come back.
pub const POOL_PERSISTENT: u16 = 0x1;
/// POOL_CREATE flag: the pool is shared with other guests by its UUID.
pub const POOL_SHARED: u16 = 0x2;
/// GET flag: a hit removes the page.
pub const GET_EXCLUSIVE: u16 = 0x1;
/// Feature: the driver asks how many persistent pages the guest is to take back.
pub const F_TAKE_BACK: u32 = 0x1;
/// Where in the value of WANTED the milliseconds begin; below are the pages.
pub const WANTED_MS_SHIFT: u32 = 32;
/// HELLO result flag: the persistent pools of this instance are still there.
pub const HELLO_RESUMED: u16 = 0x1;

/// Configuration space, read-only for the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Config {
    /// [`MAGIC`].
    pub magic: U32,
    /// [`VERSION`].
    pub version: U32,
    /// Offered feature bits, of which [`F_TAKE_BACK`] is one.
    pub features: U32,
    /// Request queues the device can serve.
    pub num_queues: U32,
    /// Most requests in one chain, at least 1.
    pub max_batch: U32,
    /// Most pools of one guest.
    pub max_pools: U32,
    /// [`PAGE_SIZE`].
    pub page_size: U32,
    /// Zero.
    pub reserved: U32,
}

/// First bytes of a chain's device-readable part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Batch {
    /// Requests in the chain, 1 to `max_batch`.
    pub count: U16,
    /// Zero.
    pub reserved16: U16,
    /// Zero.
    pub reserved32: U32,
}

/// The first eight bytes of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RequestHeader {
    /// An [`Opcode`].
    pub opcode: U16,
    /// Meaning depends on the opcode; undefined bits are zero.
    pub flags: U16,
    /// Pool id chosen by the driver; zero for HELLO and WANTED.
    pub pool: U32,
}

/// A request whose opcode has not been looked at yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Request {
    /// Opcode, flags and pool.
    pub header: RequestHeader,
    /// A [`HelloBody`], [`PoolBody`] or [`KeyBody`], by opcode; zeros in WANTED.
    pub body: [u8; 40],
}

/// Body of HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct HelloBody {
    /// Random, chosen once per load of the driver.
    pub instance: [u8; ID_SIZE],
    /// [`VERSION`].
    pub version: U32,
    /// Subset of the offered features.
    pub features: U32,
    /// Zero.
    pub reserved: [u8; 16],
}

/// Body of POOL_CREATE and POOL_DESTROY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PoolBody {
    /// UUID of a shared pool, otherwise zero.
    pub uuid: [u8; ID_SIZE],
    /// Zero.
    pub reserved: [u8; 24],
}

/// Body of PUT, GET and the flushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct KeyBody {
    /// Opaque object id.
    pub object: [u8; OBJECT_SIZE],
    /// Page within the object.
    pub index: U64,
    /// FLUSH_RANGE: number of pages from `index`; otherwise zero.
    pub count: U64,
}

/// Outcome of one request, in the chain's device-writable part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RequestResult {
    /// A [`Status`].
    pub status: U16,
    /// [`HELLO_RESUMED`], otherwise zero.
    pub flags: U16,
    /// Zero.
    pub reserved: U32,
    /// Flushes and POOL_DESTROY: pages removed; HELLO: epoch; WANTED: pages and, from
    /// [`WANTED_MS_SHIFT`] on, milliseconds; otherwise zero.
    pub value: U64,
}

const _: () = {
    assert!(size_of::<Config>() == 32);
    assert!(size_of::<Batch>() == 8);
    assert!(size_of::<RequestHeader>() == 8);
    assert!(size_of::<Request>() == 48);
    assert!(size_of::<HelloBody>() == 40);
    assert!(size_of::<PoolBody>() == 40);
    assert!(size_of::<KeyBody>() == 40);
    assert!(size_of::<RequestResult>() == 16);
};
