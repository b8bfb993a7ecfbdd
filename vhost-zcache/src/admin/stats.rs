// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Collects statistics of everything as one document, which `docs/stats.md` describes.

use std::time::Duration;

use zcache_protocol::{Opcode, Status};
use zcache_report::{BUCKETS, GuestReport, Histogram, Latencies, QueueReport, Refusals, Report, Requests};
use zcache_store::Store;

use super::figures;
use crate::device::counters::QueueCounters;
use crate::device::latency::LatencyCounters;
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
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: Duration::from_nanos(self.ledger.uptime_ns()).as_secs(),
            worker_restarts: self.worker.saturating_sub(1),
            store: figures::store(&self.store.stats()),
            guests: self.guests.all().iter().map(|guest| guest_report(guest)).collect(),
        }
    }
}

fn guest_report(guest: &GuestPlace) -> GuestReport {
    let session = guest.session();
    let stats = session.as_ref().map(|session| session.guest().stats());
    let queues = guest.queues();
    GuestReport {
        name: guest.name().into(),
        connected: session.is_some(),
        session: session.is_some_and(|session| session.is_open()),
        lost_regions: guest.lost_regions() as u64,
        quarantined: guest.is_quarantined(),
        memory_limit: guest.memory_limit(),
        reserved_bytes: guest.reserved_bytes(),
        weight: guest.weight().into(),
        trust_domain: guest.trust_domain().to_string(),
        frozen: guest.is_frozen(),
        queues: queues.iter().map(|queue| queue_report(&queue.counters)).collect(),
        requests: requests(queues),
        refused: queues.iter().fold(Refusals::default(), |sum, queue| sum.plus(&queue.counters.refusals())),
        latency: Latencies {
            put: histogram(queues.iter().map(|queue| queue.counters.puts())),
            get: histogram(queues.iter().map(|queue| queue.counters.gets())),
        },
        ..stats.as_ref().map(figures::guest).unwrap_or_default()
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
fn requests(queues: &[QueueLedger]) -> Requests {
    let mut table = Requests::new();
    for opcode in opcodes() {
        for status in Status::ALL {
            let answers: u64 = queues.iter().map(|queue| queue.counters.requests(opcode, status)).sum();
            if answers > 0 {
                table.entry(opcode_name(opcode).into()).or_default().insert(status_name(status).into(), answers);
            }
        }
    }
    table
}

/// Times of all queues.
fn histogram<'a>(queues: impl Iterator<Item = &'a LatencyCounters>) -> Histogram {
    let mut counts = [0_u64; BUCKETS];
    let mut sum_ns = 0_u64;
    for queue in queues {
        sum_ns = sum_ns.wrapping_add(queue.sum_ns());
        counts.iter_mut().zip(queue.buckets()).for_each(|(sum, count)| *sum = sum.wrapping_add(count));
    }
    Histogram::new(&counts, sum_ns)
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
        Some(Opcode::Wanted) => "wanted",
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
