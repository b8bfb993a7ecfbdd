// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The store as a whole.

use serde::{Deserialize, Serialize};

use crate::pool::Contents;

/// Totals of the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoreReport {
    /// Memory charged to all guests.
    pub physical_bytes: u64,
    /// Limit of it.
    pub memory_limit: u64,
    /// Of the physical bytes, those of the index.
    pub index_bytes: u64,
    /// Of the limit, what guests can count on for their persistent pages.
    pub reserved_bytes: u64,
    /// Of the physical bytes, those of pools and guests that are gone.
    pub garbage_bytes: u64,
    /// Times the background failed by a defect, and was started again.
    pub background_failures: u64,
    /// Guests that are connected.
    pub guests: u64,
    /// Everything held.
    #[serde(flatten)]
    pub contents: Contents,
    /// Bytes of guest pages held per physical byte; 0 when empty.
    pub ratio: f64,
    /// What happened besides requests.
    pub background: BackgroundReport,
}

/// What the store's background has done since the worker began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackgroundReport {
    /// Segments of memory that were emptied into holes of others, and given back.
    pub compacted_segments: u64,
    /// Pages that had become cold, and were tried with the denser codec.
    pub cold_tried: u64,
    /// Of these, pages that it made smaller.
    pub cold_smaller: u64,
    /// Times that a host which was short of memory got some back.
    #[serde(default)]
    pub relief_steps: u64,
    /// Bytes that it got.
    #[serde(default)]
    pub relief_bytes: u64,
}
