// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::latency::Histogram;
use crate::pool::{Contents, Counters, EndedPools, PoolKind, PoolReport, Refusals};

/// Answers by operation and status, both by their names; those that never happened are left out.
pub type Requests = BTreeMap<String, BTreeMap<String, u64>>;

/// One guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestReport {
    /// Path or descriptor of its socket, or what the configuration calls it.
    pub name: String,
    /// A VMM is connected.
    pub connected: bool,
    /// Its driver has said HELLO.
    pub session: bool,
    /// Regions of its memory that have gone away under the daemon.
    pub lost_regions: u64,
    /// Workers have died of taking it over.
    pub quarantined: bool,
    /// Memory charged to it.
    pub physical_bytes: u64,
    /// Limit of it, if it has one of its own.
    pub memory_limit: Option<u64>,
    /// What it can count on for its persistent pages.
    pub reserved_bytes: u64,
    /// How much ephemeral memory it is to have beside others.
    #[serde(default)]
    pub weight: u16,
    /// Nothing new is stored for it.
    #[serde(default)]
    pub frozen: bool,
    /// With whom it shares pools, from its next connection on.
    #[serde(default)]
    pub trust_domain: String,
    /// Persistent pages that it is asked to take back.
    #[serde(default)]
    pub wanted_pages: u64,
    /// Persistent pages that it let go of while it was asked to.
    #[serde(default)]
    pub taken_back_pages: u64,
    /// How its ephemeral pages make room for others.
    pub eviction: EvictionPolicy,
    /// Pages charged to it.
    #[serde(flatten)]
    pub contents: Contents,
    /// One entry for each queue.
    pub queues: Vec<QueueReport>,
    /// Answers.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, BTreeMap<String, u64>>))]
    pub requests: Requests,
    /// Puts that were answered REFUSED.
    pub refused: Refusals,
    /// How long answers took.
    pub latency: Latencies,
    /// Its pools.
    pub pools: Vec<PoolReport>,
    /// Pools it had.
    pub ended_pools: EndedPools,
}

impl GuestReport {
    /// Answers of an operation with a status.
    #[must_use]
    pub fn answers(&self, operation: &str, status: &str) -> u64 {
        self.requests.get(operation).and_then(|row| row.get(status)).copied().unwrap_or(0)
    }

    /// Answers of an operation.
    #[must_use]
    pub fn answered(&self, operation: &str) -> u64 {
        let row = self.requests.get(operation).into_iter().flat_map(BTreeMap::values);
        row.fold(0, |total, number| total.saturating_add(*number))
    }

    /// Its pools of a kind.
    pub fn pools_of(&self, kind: PoolKind) -> impl Iterator<Item = &PoolReport> {
        self.pools.iter().filter(move |pool| pool.kind == kind)
    }

    /// What is in its pools of a kind.
    #[must_use]
    pub fn contents_of(&self, kind: PoolKind) -> Contents {
        self.pools_of(kind).fold(Contents::default(), |sum, pool| sum.plus(&pool.contents))
    }

    /// What happened in its pools of a kind, those that have ended included.
    #[must_use]
    pub fn counters_of(&self, kind: PoolKind) -> Counters {
        let ended = match kind {
            PoolKind::Ephemeral => self.ended_pools.ephemeral,
            PoolKind::Persistent => self.ended_pools.persistent,
            PoolKind::Shared => Counters::default(),
        };
        self.pools_of(kind).fold(ended, |sum, pool| sum.plus(&pool.counters))
    }
}

/// How ephemeral pages are chosen that make room for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EvictionPolicy {
    /// Keeps what was used before against what is new.
    #[default]
    #[serde(rename = "s3-fifo")]
    S3Fifo,
    /// Does not.
    #[serde(rename = "clock")]
    Clock,
}

impl EvictionPolicy {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::S3Fifo, Self::Clock];

    /// As in the document.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::S3Fifo => "s3-fifo",
            Self::Clock => "clock",
        }
    }
}

/// One queue of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueueReport {
    /// Chains put on the used ring.
    pub chains: u64,
    /// Requests answered.
    pub requests: u64,
    /// Chains that were no batch.
    pub malformed_chains: u64,
    /// Times the ring made no sense.
    pub ring_errors: u64,
    /// It is not served because of that.
    pub stopped: bool,
}

/// How long answers took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Latencies {
    /// To puts.
    pub put: Histogram,
    /// To gets.
    pub get: Histogram,
}

impl Latencies {
    /// Each operation as in the document, with its histogram.
    #[must_use]
    pub fn by_operation(&self) -> [(&'static str, &Histogram); 2] {
        [("put", &self.put), ("get", &self.get)]
    }
}
