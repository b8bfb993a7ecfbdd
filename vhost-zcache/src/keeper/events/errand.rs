// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The keeper has the worker do something for the operator, and passes on what has come of it.

use super::Keeper;
use crate::link::message::{Errand, ToWorker};

impl Keeper {
    /// Has a guest's ephemeral pages dropped.
    pub(super) fn flush(&mut self, guest: &str, pool: Option<u32>) {
        match self.numbers.of(guest) {
            Some(guest) => self.run_errand(Errand::Flush { guest, pool }),
            None => self.answer_errand(&Err(format!("there is no guest {guest:?}"))),
        }
    }

    /// Has the worker do something.
    pub(super) fn run_errand(&mut self, errand: Errand) {
        if !self.worker.is_ready() {
            self.answer_errand(&Err("there is no worker at the moment: ask again".into()));
            return;
        }
        let ticket = self.errands.begin();
        self.worker.send(ToWorker::Errand { ticket, errand }, Vec::new());
    }

    /// The worker has done it.
    pub(super) fn errand_was_run(&mut self, ticket: u64, outcome: &Result<String, String>) {
        if self.errands.end(ticket) {
            self.answer_errand(outcome);
        }
    }

    /// The worker has ended. What it was to do is not asked of the next one: nobody knows how far
    /// it has come.
    pub(super) fn errand_is_lost(&mut self) {
        if self.errands.lose() {
            self.answer_errand(&Err("the worker has ended meanwhile: ask again".into()));
        }
    }

    /// A beat has passed.
    pub(super) fn beat_of_errand(&mut self) {
        if let Some(seconds) = self.errands.beat() {
            self.answer_errand(&Err(format!("the worker has not come to an end in {seconds} seconds")));
        }
    }

    fn answer_errand(&mut self, outcome: &Result<String, String>) {
        if let Some(control) = &mut self.control {
            control.answer_work(outcome);
        }
    }
}
