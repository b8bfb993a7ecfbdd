// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the bytes are: a memory file cut into segments, records within segments, and the space
//! between records. All `unsafe` of the crate is in
//! [`memory`] and the system calls under it.

#[cfg_attr(miri, path = "backing_miri.rs")]
mod backing;
pub(crate) mod bins;
pub(crate) mod memory;
pub(crate) mod queue;
pub(crate) mod ready;
pub(crate) mod record;
pub(crate) mod space;
