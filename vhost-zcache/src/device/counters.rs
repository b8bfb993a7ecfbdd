// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happened on one queue.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zcache_protocol::{Opcode, Status};
use zcache_report::Refusals;
use zcache_store::Refusal;

use super::latency::LatencyCounters;

/// Rows of the table of statuses: one for each opcode, and one for unknown opcodes.
const ROWS: usize = Opcode::ALL.len() + 1;

/// Counters of one queue. They live as long as the daemon, in the ledger, and are written by the
/// one thread that serves the queue; readers see each value at some recent moment.
#[derive(Debug, Default)]
#[repr(C)]
pub struct QueueCounters {
    chains: AtomicU64,
    malformed_chains: AtomicU64,
    ring_errors: AtomicU64,
    stopped: AtomicU64,
    statuses: [[AtomicU64; Status::ALL.len()]; ROWS],
    guest_limit: AtomicU64,
    share: AtomicU64,
    store_full: AtomicU64,
    no_memory: AtomicU64,
    frozen: AtomicU64,
    puts: LatencyCounters,
    gets: LatencyCounters,
}

impl QueueCounters {
    /// Bytes with the statuses of WANTED, which are in the last row of a known opcode.
    pub(crate) const OF_WANTED: Range<usize> = {
        const ROW: usize = Status::ALL.len() * size_of::<AtomicU64>();
        let end = offset_of!(Self, statuses) + (ROWS - 1) * ROW;
        assert!(matches!(Opcode::ALL[ROWS - 2], Opcode::Wanted));
        end - ROW..end
    };

    /// A chain was put on the used ring.
    pub fn count_chain(&self, well_formed: bool) {
        self.chains.fetch_add(1, Ordering::Relaxed);
        if !well_formed {
            self.malformed_chains.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request was answered.
    pub fn count_request(&self, opcode: u16, status: Status) {
        let row = Opcode::from_wire(opcode)
            .and_then(|opcode| Opcode::ALL.iter().position(|o| *o == opcode))
            .unwrap_or(Opcode::ALL.len());
        // Statuses are numbered from 0 without a gap, in the order of `ALL`.
        self.statuses[row][status as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A put was refused.
    pub fn count_refusal(&self, reason: Refusal) {
        let counter = match reason {
            Refusal::GuestLimit => &self.guest_limit,
            Refusal::Share => &self.share,
            Refusal::StoreFull => &self.store_full,
            Refusal::NoMemory => &self.no_memory,
            Refusal::Frozen => &self.frozen,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A chain with so many puts and gets was served, which took so long.
    pub fn count_latency(&self, took: Duration, puts: u64, gets: u64) {
        self.puts.count(took, puts);
        self.gets.count(took, gets);
    }

    /// The ring makes no sense and is served no longer.
    pub fn count_ring_error(&self) {
        self.ring_errors.fetch_add(1, Ordering::Relaxed);
        self.stopped.store(1, Ordering::Relaxed);
    }

    /// The ring was started (again).
    pub fn ring_started(&self) {
        self.stopped.store(0, Ordering::Relaxed);
    }

    /// Chains put on the used ring.
    #[must_use]
    pub fn chains(&self) -> u64 {
        self.chains.load(Ordering::Relaxed)
    }

    /// Of these, chains that were no batches.
    #[must_use]
    pub fn malformed_chains(&self) -> u64 {
        self.malformed_chains.load(Ordering::Relaxed)
    }

    /// Times the ring was found to make no sense.
    #[must_use]
    pub fn ring_errors(&self) -> u64 {
        self.ring_errors.load(Ordering::Relaxed)
    }

    /// Whether the ring is not served because of such an error.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) != 0
    }

    /// Puts that were refused.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        Refusals {
            guest_limit: self.guest_limit.load(Ordering::Relaxed),
            share: self.share.load(Ordering::Relaxed),
            store_full: self.store_full.load(Ordering::Relaxed),
            no_memory: self.no_memory.load(Ordering::Relaxed),
            frozen: self.frozen.load(Ordering::Relaxed),
        }
    }

    /// How long puts took.
    #[must_use]
    pub fn puts(&self) -> &LatencyCounters {
        &self.puts
    }

    /// How long gets took.
    #[must_use]
    pub fn gets(&self) -> &LatencyCounters {
        &self.gets
    }

    /// Requests of an opcode (`None`: of all unknown ones) that were answered with a status.
    #[must_use]
    pub fn requests(&self, opcode: Option<Opcode>, status: Status) -> u64 {
        let row = opcode.and_then(|opcode| Opcode::ALL.iter().position(|o| *o == opcode)).unwrap_or(Opcode::ALL.len());
        self.statuses[row][status as usize].load(Ordering::Relaxed)
    }
}
