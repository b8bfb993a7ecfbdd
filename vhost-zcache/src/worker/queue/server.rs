// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A thread that serves one ring at a time, and can be made to give it back.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::interrupt;
use super::service::{Assignment, Outcome, Service, ServiceContext};
use super::stop::StopSignal;
use crate::sandbox;
use crate::sandbox::rule::Kind;

/// Time between two interrupts of a thread that has not stopped yet. A batch takes a fraction of
/// it, so that mostly none is sent.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(5);

/// A thread without a ring.
pub struct IdleServer(Server);

/// A thread that has a ring.
pub struct BusyServer(Server);

/// The thread of both. It ends when this is dropped, busy or not.
struct Server {
    assignments: Option<Sender<Assignment>>,
    outcomes: Receiver<Outcome>,
    stop: Arc<StopSignal>,
    thread: JoinHandle<()>,
}

impl IdleServer {
    /// Starts a thread.
    ///
    /// # Errors
    ///
    /// When the process cannot have another thread or file descriptor.
    pub fn start(context: ServiceContext) -> io::Result<Self> {
        interrupt::prepare()?;
        let stop = Arc::new(StopSignal::new()?);
        let (assignments, assigned) = channel::<Assignment>();
        let (done, outcomes) = channel();
        let mut service = Service::new(context, Arc::clone(&stop));
        let thread = thread::Builder::new().name("queue".into()).spawn(move || {
            sandbox::confine_thread(Kind::Queue);
            for assignment in assigned {
                if done.send(service.serve(assignment)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self(Server { assignments: Some(assignments), outcomes, stop, thread }))
    }

    /// Serves a ring from now on.
    #[must_use]
    pub fn serve(self, assignment: Assignment) -> BusyServer {
        if let Some(assignments) = &self.0.assignments {
            // The thread takes assignments as long as there is a sender.
            let _ = assignments.send(assignment);
        }
        BusyServer(self.0)
    }
}

impl BusyServer {
    /// Stops serving the ring. When this returns the chain that was in progress is completed, and
    /// nothing is read from or written to the guest's memory any more. That takes as long as one
    /// batch, and does not depend on what the VMM does with the ring's events.
    #[must_use]
    pub fn stop(self) -> (IdleServer, Outcome) {
        let server = self.0;
        server.stop.raise();
        let outcome = loop {
            match server.outcomes.recv_timeout(INTERRUPT_INTERVAL) {
                Ok(outcome) => break outcome,
                Err(RecvTimeoutError::Timeout) => interrupt::interrupt(&server.thread),
                // The thread has panicked where no ring could have made it.
                Err(RecvTimeoutError::Disconnected) => break Outcome::lost(),
            }
        };
        server.stop.lower();
        (IdleServer(server), outcome)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.assignments = None;
        self.stop.raise();
        while !self.thread.is_finished() {
            match self.outcomes.recv_timeout(INTERRUPT_INTERVAL) {
                Err(RecvTimeoutError::Timeout) => interrupt::interrupt(&self.thread),
                // The thread ends in a moment.
                Ok(_) | Err(RecvTimeoutError::Disconnected) => thread::yield_now(),
            }
        }
    }
}
