// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the worker is alive, and gets on.

use std::time::Duration;

use log::error;

use super::{FREE_DEATHS, SHORT_LIFE, State, Worker};
use crate::keeper::running::Running;
use crate::link::message::ToWorker;

/// Time between two looks at whether the worker is alive.
pub const BEAT: Duration = Duration::from_millis(500);

/// Beats that a worker may leave unanswered. They are counted, and not the time, because the keeper
/// may stand still together with it.
const PATIENCE: u32 = 10;

/// Beats that a worker may take to be ready: it goes through all that is stored.
const START_PATIENCE: u32 = 600;

/// How long that is. A service manager has to wait for longer: `TimeoutStartSec=` of the units.
pub const LONGEST_START: Duration = BEAT.saturating_mul(START_PATIENCE);

/// Beats that a chain may be in service. Host memory that has to be swapped in can take long.
const CHAIN_PATIENCE: u32 = 120;

impl Worker {
    /// Whether there is a worker that answers, or there will be in a moment. Not so while worker
    /// after worker dies, or one that was killed does not end.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let (answers, lives) = match &self.state {
            State::Up(running) => (running.unanswered <= patience(running), running.has_lived(SHORT_LIFE)),
            State::Down { .. } => (true, false),
        };
        answers && (lives || self.short_lives <= FREE_DEATHS)
    }

    /// Asks the worker whether it is alive, and kills one that has not answered for long, or in
    /// which a chain does not come to an end.
    pub fn beat(&mut self) {
        self.reports.go_on(&self.recipe.spawner);
        self.beat_of_next();
        self.savers.retain(|saver| !saver.has_ended());
        let number = self.number;
        let State::Up(running) = &mut self.state else { return };
        running.unanswered += 1;
        if running.unanswered > patience(running) {
            error!("Worker {number} does not answer, and is replaced");
            running.was_silent = true;
            running.kill();
            return;
        }
        for (queue, (chain, beats)) in self.ledger.all_queues().iter().zip(&mut running.chains) {
            let now = queue.progress();
            *beats = if now.is_some() && now == *chain { *beats + 1 } else { 0 };
            *chain = now;
            if *beats > CHAIN_PATIENCE {
                *beats = 0;
                error!("Worker {number} does not come to the end of a chain, and is replaced");
                running.kill();
                return;
            }
        }
        // It is asked nothing before it is ready: the answer would come when it is.
        if running.ready.is_some() && !running.asked {
            running.asked = true;
            self.send(ToWorker::Ping, Vec::new());
        }
    }
}

fn patience(running: &Running) -> u32 {
    if running.ready.is_some() { PATIENCE } else { START_PATIENCE }
}
