// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The statistics of a daemon as one document: what it writes, and what tools read.
//! `docs/stats.md` says what each field means.
//!
//! A reader leaves fields alone that it does not know, so a newer daemon's document can be read.

mod guest;
mod latency;
mod pool;
#[cfg(feature = "sample")]
pub mod sample;
mod store;

use serde::{Deserialize, Serialize};

pub use guest::{EvictionPolicy, GuestReport, Latencies, QueueReport, Requests};
pub use latency::{BOUNDS, BUCKETS, Bucket, Histogram, Quantile, bucket_of};
pub use pool::{Contents, Counters, EndedPools, PoolKind, PoolReport, Refusals};
pub use store::{BackgroundReport, StoreReport};

/// The document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    /// Version of the daemon.
    pub version: String,
    /// Since the daemon's start.
    pub uptime_seconds: u64,
    /// Workers that were started in place of one before.
    pub worker_restarts: u64,
    /// Totals.
    pub store: StoreReport,
    /// One entry for each guest, connected or not.
    pub guests: Vec<GuestReport>,
}
