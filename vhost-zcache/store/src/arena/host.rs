// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the store assumes of the host's memory.

/// Size of a host page in bytes: the unit in which memory becomes resident and is charged.
pub(crate) const HOST_PAGE: usize = 4096;
/// Words of a host page.
pub(crate) const PAGE_WORDS: usize = HOST_PAGE / 8;
/// Size of a huge page in bytes, as x86-64 and arm64 with pages of 4 KiB have them.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// The host did not give memory.
#[derive(Debug)]
pub(crate) struct NoMemory;
