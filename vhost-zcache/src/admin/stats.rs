// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Statistics of everything as one document. `docs/stats.md` describes it for its readers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;
use zcache_protocol::{Opcode, Status};
use zcache_store::{Contents, Counters, EvictionPolicy, PoolKind, PoolStats, Store, StoreStats};

use crate::device::counters::QueueCounters;
use crate::ledger::Ledger;
use crate::ledger::service::QueueLedger;
use crate::worker::guest::GuestPlace;
use crate::worker::places::Places;

/// Collects statistics.
pub struct Reporter {
    ledger: Ledger,
    /// Number of this worker.
    worker: u64,
    store: Store,
    guests: Places,
}

/// The document.
#[derive(Debug, Serialize)]
pub struct Report {
    version: &'static str,
    uptime_seconds: u64,
    worker_restarts: u64,
    store: StoreStats,
    guests: Vec<GuestReport>,
}

#[derive(Debug, Serialize)]
struct GuestReport {
    name: String,
    connected: bool,
    session: bool,
    lost_regions: usize,
    quarantined: bool,
    physical_bytes: u64,
    memory_limit: Option<u64>,
    reserved_bytes: u64,
    eviction: EvictionPolicy,
    #[serde(flatten)]
    contents: Contents,
    queues: Vec<QueueReport>,
    requests: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    pools: Vec<PoolReport>,
}

#[derive(Debug, Serialize)]
struct QueueReport {
    chains: u64,
    requests: u64,
    malformed_chains: u64,
    ring_errors: u64,
    stopped: bool,
}

#[derive(Debug, Serialize)]
struct PoolReport {
    id: u32,
    kind: &'static str,
    uuid: Option<Uuid>,
    #[serde(flatten)]
    contents: Contents,
    #[serde(flatten)]
    counters: Counters,
}

impl Reporter {
    /// A reporter on a store and its guests, in the worker of that number.
    #[must_use]
    pub fn new(ledger: Ledger, worker: u64, store: Store, guests: Places) -> Self {
        Self { ledger, worker, store, guests }
    }

    /// Everything as it is now.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: Duration::from_nanos(self.ledger.uptime_ns()).as_secs(),
            worker_restarts: self.worker.saturating_sub(1),
            store: self.store.stats(),
            guests: self.guests.all().iter().map(|guest| guest_report(guest)).collect(),
        }
    }
}

fn guest_report(guest: &GuestPlace) -> GuestReport {
    let session = guest.session();
    let stats = session.as_ref().map(|session| session.guest().stats());
    GuestReport {
        name: guest.name().into(),
        connected: session.is_some(),
        session: session.is_some_and(|session| session.is_open()),
        lost_regions: guest.lost_regions(),
        quarantined: guest.is_quarantined(),
        physical_bytes: stats.as_ref().map_or(0, |stats| stats.physical_bytes),
        memory_limit: guest.memory_limit(),
        reserved_bytes: guest.reserved_bytes(),
        eviction: stats.as_ref().map_or_else(EvictionPolicy::default, |stats| stats.eviction),
        contents: stats.as_ref().map_or_else(Contents::default, |stats| stats.contents),
        queues: guest.queues().iter().map(|queue| queue_report(&queue.counters)).collect(),
        requests: requests(guest.queues()),
        pools: stats.map_or_else(Vec::new, |stats| stats.pools.into_iter().map(pool_report).collect()),
    }
}

fn queue_report(queue: &QueueCounters) -> QueueReport {
    let mut requests = 0;
    for opcode in opcodes() {
        for status in Status::ALL {
            requests += queue.requests(opcode, status);
        }
    }
    QueueReport {
        chains: queue.chains(),
        requests,
        malformed_chains: queue.malformed_chains(),
        ring_errors: queue.ring_errors(),
        stopped: queue.stopped(),
    }
}

/// Answers by operation and status, of all queues, without those that never happened.
fn requests(queues: &[QueueLedger]) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
    let mut table = BTreeMap::new();
    for opcode in opcodes() {
        let mut row = BTreeMap::new();
        for status in Status::ALL {
            let answers: u64 = queues.iter().map(|queue| queue.counters.requests(opcode, status)).sum();
            if answers > 0 {
                row.insert(status_name(status), answers);
            }
        }
        if !row.is_empty() {
            table.insert(opcode_name(opcode), row);
        }
    }
    table
}

/// Every opcode, and `None` for the unknown ones.
fn opcodes() -> impl Iterator<Item = Option<Opcode>> {
    Opcode::ALL.into_iter().map(Some).chain([None])
}

fn opcode_name(opcode: Option<Opcode>) -> &'static str {
    match opcode {
        Some(Opcode::Hello) => "hello",
        Some(Opcode::PoolCreate) => "pool_create",
        Some(Opcode::PoolDestroy) => "pool_destroy",
        Some(Opcode::Put) => "put",
        Some(Opcode::Get) => "get",
        Some(Opcode::FlushPage) => "flush_page",
        Some(Opcode::FlushRange) => "flush_range",
        Some(Opcode::FlushObject) => "flush_object",
        Some(Opcode::FlushPool) => "flush_pool",
        None => "unknown",
    }
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Miss => "miss",
        Status::Refused => "refused",
        Status::NoPool => "no_pool",
        Status::Exists => "exists",
        Status::Denied => "denied",
        Status::Limit => "limit",
        Status::Invalid => "invalid",
        Status::Unsupported => "unsupported",
        Status::NoSession => "no_session",
        Status::Malformed => "malformed",
        Status::Corrupt => "corrupt",
    }
}

fn pool_report(pool: PoolStats) -> PoolReport {
    let (kind, uuid) = match pool.kind {
        PoolKind::Ephemeral => ("ephemeral", None),
        PoolKind::Persistent => ("persistent", None),
        PoolKind::SharedEphemeral(uuid) => ("shared", Some(Uuid::from_bytes(uuid))),
    };
    PoolReport { id: pool.id.0, kind, uuid, contents: pool.contents, counters: pool.counters }
}
