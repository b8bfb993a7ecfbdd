// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of the host: a memory file cut into segments, which are handed out as exclusive tokens,
//! and private pages for the index. What is in a segment is the business of [`crate::shard`].
//!
//! All `unsafe` of the crate is in this folder.

#[cfg_attr(miri, path = "backing_miri.rs")]
mod backing;
pub(crate) mod header;
pub(crate) mod host;
pub(crate) mod memory;
pub(crate) mod page_run;
pub(crate) mod prefetch;
pub(crate) mod ready;
pub(crate) mod word;
