// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Serves one ring until told to stop.

use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use log::{Level, debug, error};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vm_memory::GuestMemoryLoadGuard;

use super::backoff::Backoff;
use super::event::{Kick, PeerEvent};
use super::stop::StopSignal;
use crate::crash::{self, Place};
use crate::device::batch::Batch;
use crate::device::chain::Chain;
use crate::device::execute::Executor;
use crate::device::guest_memory::Memory;
use crate::device::ring::{Ring, RingError, RingPosition};
use crate::frontend::log_limit::LogLimit;
use crate::ledger::service::{Attempt, QueueLedger};

/// What a service needs, whichever ring it serves.
pub struct ServiceContext {
    /// For the log: guest and queue.
    pub name: Arc<str>,
    /// Executes the requests.
    pub executor: Executor,
    /// Limits what the guest can write to the log.
    pub log_limit: Arc<LogLimit>,
}

/// A ring to be served, and all that stays as it is until the ring is given back.
pub struct Assignment {
    /// The ring.
    pub ring: Ring,
    /// The guest's memory.
    pub memory: GuestMemoryLoadGuard<Memory>,
    /// Becomes readable when the driver kicks.
    pub kick: Arc<PeerEvent>,
    /// Tells the driver of used chains; `None` if the VMM wants to poll.
    pub call: Option<Arc<PeerEvent>>,
}

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How far the ring was served; `None` if that is not known.
    pub position: Option<RingPosition>,
    /// Whether the ring makes no sense, and is to be left alone until it is stopped: ZC-DEV-43.
    pub quarantined: bool,
}

impl Outcome {
    /// The outcome of a service that has died.
    #[must_use]
    pub fn lost() -> Self {
        Self { position: None, quarantined: true }
    }
}

/// Serves rings, one after the other.
pub struct Service {
    context: ServiceContext,
    stop: Arc<StopSignal>,
    chain: Chain,
    batch: Batch,
}

impl Service {
    /// A service that gives its ring back when `stop` is raised.
    #[must_use]
    pub fn new(context: ServiceContext, stop: Arc<StopSignal>) -> Self {
        Self { context, stop, chain: Chain::default(), batch: Batch::default() }
    }

    /// Serves a ring until the stop signal is raised. A ring that turns out to make no sense is
    /// not touched any more from then on.
    pub fn serve(&mut self, assignment: Assignment) -> Outcome {
        let Assignment { mut ring, memory, kick, call } = assignment;
        debug!("{} is served from {:?} on", self.context.name, ring.position());
        // A defect of ours that a guest sets off costs it this queue and nothing else.
        let served = panic::catch_unwind(AssertUnwindSafe(|| {
            // What was used while there was no call event, or another one, needs its interrupt.
            self.notify(call.as_deref());
            self.serve_ring(&mut ring, memory.deref(), &kick, call.as_deref())
        }));
        let quarantined = match served {
            Ok(Ok(())) => false,
            Ok(Err(error)) => {
                self.report(error);
                true
            }
            Err(_) => {
                self.queue().counters.count_ring_error();
                error!("{} is not served until it is restarted: its thread has panicked", self.context.name);
                true
            }
        };
        if quarantined {
            self.queue().quarantine();
        }
        // Let go of before waiting, so that nothing can be done with it.
        drop(memory);
        self.wait_for_stop(None);
        Outcome { position: Some(ring.position()), quarantined }
    }

    fn serve_ring(
        &mut self,
        ring: &mut Ring,
        memory: &Memory,
        kick: &PeerEvent,
        call: Option<&PeerEvent>,
    ) -> Result<(), RingError> {
        let mut backoff = Backoff::default();
        loop {
            let found_work = self.serve_available(ring, memory, call)?;
            if found_work {
                backoff.found_work();
            } else if let Some(pause) = backoff.found_nothing() {
                self.wait_for_stop(Some(pause));
            }
            match self.wait_for_kick(kick) {
                Kick::Taken => {}
                Kick::Stopped => return Ok(()),
                Kick::Dead => {
                    self.warn("cannot be kicked any more, because its kick event is closed or none at all");
                    return Ok(());
                }
            }
        }
    }

    /// Serves chains until there is none, or the ring is to be stopped; whether there was any.
    fn serve_available(
        &mut self,
        ring: &mut Ring,
        memory: &Memory,
        call: Option<&PeerEvent>,
    ) -> Result<bool, RingError> {
        let mut found = false;
        loop {
            ring.disable_kicks(memory)?;
            loop {
                if self.stop.is_raised() {
                    return Ok(found);
                }
                let Some(taken) = ring.take(memory, &mut self.chain)? else { break };
                found = true;
                let Attempt::From(first) = self.queue().take(taken.index) else {
                    return Err(RingError::Deadly(taken.index));
                };
                crash::point(Place::ChainTaken);
                let served = self.batch.serve(memory, &self.chain, &mut self.context.executor, first)?;
                ring.complete(memory, taken, served.written)?;
                crash::point(Place::UsedPublished);
                self.queue().complete();
                self.queue().counters.count_chain(served.well_formed);
                if ring.needs_notification(memory)? {
                    self.notify(call);
                    crash::point(Place::Notified);
                }
            }
            if !ring.enable_kicks(memory)? {
                return Ok(found);
            }
        }
    }

    fn queue(&self) -> &'static QueueLedger {
        self.context.executor.queue()
    }

    fn notify(&self, call: Option<&PeerEvent>) {
        if let Some(call) = call {
            call.signal(&self.stop);
        }
    }

    /// Sleeps until the driver kicks or the ring is to be stopped.
    fn wait_for_kick(&self, kick: &PeerEvent) -> Kick {
        loop {
            let mut events = [PollFd::new(&*self.stop, PollFlags::IN), PollFd::new(kick, PollFlags::IN)];
            let polled = poll(&mut events, None);
            if self.stop.is_raised() {
                return Kick::Stopped;
            }
            let kicked = events[1].revents();
            match polled {
                Ok(_) if kicked.contains(PollFlags::IN) => return kick.take(&self.stop),
                Ok(_) if kicked.is_empty() => {}
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return Kick::Dead,
            }
        }
    }

    /// Sleeps until the ring is to be stopped, or for a time.
    fn wait_for_stop(&self, time: Option<Duration>) {
        // Too long a time for the kernel's type is for ever.
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        while !self.stop.is_raised() {
            match poll(&mut [PollFd::new(&*self.stop, PollFlags::IN)], time.as_ref()) {
                Err(Errno::INTR) => {}
                // Without memory for the call, a short time is as good as any.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
                Ok(_) if time.is_some() => return,
                Ok(_) => {}
            }
        }
    }

    fn report(&self, error: RingError) {
        self.queue().counters.count_ring_error();
        self.warn(format_args!("is not served until it is restarted: {error}"));
    }

    fn warn(&self, what: impl std::fmt::Display) {
        self.context.log_limit.log(Level::Warn, format_args!("{} {what}", self.context.name));
    }
}
