// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The atomic integers that a ledger consists of: the processor's, or those of loom, which shows
//! each reader in turn all that the processor may show it (`super::interleavings`).

#[cfg(feature = "loom")]
pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(feature = "loom"))]
pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
