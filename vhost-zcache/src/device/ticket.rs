// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! By which a request is known that is carried out a second time, because the process died in it.

use crate::ledger::service::QueueLedger;

/// A request of the chain that a queue has in service.
#[derive(Debug, Clone, Copy)]
pub struct Ticket<'a> {
    queue: &'a QueueLedger,
    number: usize,
}

impl<'a> Ticket<'a> {
    /// The request of that number, counted from 0.
    #[must_use]
    pub fn new(queue: &'a QueueLedger, number: usize) -> Self {
        Self { queue, number }
    }

    /// What was planned to be answered, if it was carried out before.
    #[must_use]
    pub fn planned(self) -> Option<[u64; 2]> {
        self.queue.planned(self.number)
    }

    /// Notes what will be answered, before anything is done.
    pub fn plan(self, answer: [u64; 2]) {
        self.queue.plan(self.number, answer);
    }
}
