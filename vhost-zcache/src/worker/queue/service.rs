// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Serves one ring, a turn at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use log::{Level, debug};
use vm_memory::GuestMemoryLoadGuard;

use super::backoff::Backoff;
use super::conduct::Conduct;
use super::event::PeerEvent;
use super::interrupt::{Blocked, PeerCall};
use crate::crash::{self, Place};
use crate::device::batch::Batch;
use crate::device::chain::Chain;
use crate::device::execute::Executor;
use crate::device::guest_memory::Memory;
use crate::device::ring::{Ring, RingError, RingPosition};
use crate::ledger::service::{Attempt, QueueLedger};

/// How long a ring is served while others wait; the chain that is in service then is completed.
const TURN: Duration = Duration::from_micros(50);

/// A ring to be served, and all that stays as it is until the ring is given back.
pub struct Assignment {
    /// For the log: guest and queue.
    pub name: Arc<str>,
    /// How the guest behaves.
    pub conduct: Arc<Conduct>,
    /// Executes the requests.
    pub executor: Executor,
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

/// What a reactor needs to serve a ring, whichever it is.
#[derive(Default)]
pub struct Tools {
    chain: Chain,
    batch: Batch,
}

/// What is known of a ring that is served, by its reactor and by whoever wants it back.
#[derive(Debug, Default)]
pub struct Whereabouts {
    /// Number of its reactor's seat.
    pub seat: AtomicUsize,
    /// It is to be given back.
    pub wanted: AtomicBool,
}

/// What a turn has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Its time is over, and there may be more to do.
    More,
    /// There is nothing to do, after some was done or none.
    Empty {
        /// Whether any chain was there.
        found: bool,
    },
    /// The ring is to be given back.
    Wanted,
    /// The ring makes no sense.
    Error(RingError),
}

/// A ring, and how it is served. Whichever reactor has it serves it.
pub struct Service {
    assignment: Assignment,
    whereabouts: Arc<Whereabouts>,
    outcome: SyncSender<Outcome>,
    is_greeted: bool,
    /// Kicks that announced nothing.
    pub backoff: Backoff,
}

impl Service {
    /// A service that gives its ring back when it is wanted, and says then how far it has come.
    #[must_use]
    pub fn new(assignment: Assignment, whereabouts: Arc<Whereabouts>, outcome: SyncSender<Outcome>) -> Self {
        debug!("{} is served from {:?} on", assignment.name, assignment.ring.position());
        Self { assignment, whereabouts, outcome, is_greeted: false, backoff: Backoff::default() }
    }

    /// Notifies the driver once: what was used while there was no call event, or another one, or
    /// another worker, needs its interrupt.
    ///
    /// # Errors
    ///
    /// [`Blocked`].
    pub fn greet(&mut self, call: &PeerCall) -> Result<(), Blocked> {
        if std::mem::replace(&mut self.is_greeted, true) { Ok(()) } else { self.notify(call) }
    }

    /// Where it is, and whether it is to be given back.
    #[must_use]
    pub fn whereabouts(&self) -> &Whereabouts {
        &self.whereabouts
    }

    /// The event by which the driver kicks.
    #[must_use]
    pub fn kick(&self) -> &PeerEvent {
        &self.assignment.kick
    }

    /// Whether the ring is to be given back.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.whereabouts.wanted.load(Ordering::Relaxed)
    }

    /// Serves chains until there is none, the turn is over, or the ring is to be given back.
    ///
    /// # Errors
    ///
    /// [`Blocked`] when the driver's event has held up the thread; there may be more to do.
    pub fn turn(&mut self, tools: &mut Tools, call: &PeerCall) -> Result<Turn, Blocked> {
        let mut used = false;
        let turn = self.serve(tools, &mut used);
        // Once for all chains, and for those before an error, too.
        let wants = if used { self.wants_notification() } else { Ok(false) };
        if matches!(wants, Ok(true)) {
            self.notify(call)?;
            crash::point(Place::Notified);
        }
        Ok(match (turn, wants) {
            (Ok(turn), Ok(_)) => turn,
            (Err(error), _) | (_, Err(error)) => Turn::Error(error),
        })
    }

    fn serve(&mut self, tools: &mut Tools, used: &mut bool) -> Result<Turn, RingError> {
        let Assignment { executor, ring, memory, .. } = &mut self.assignment;
        let memory: &Memory = memory;
        let wanted = &self.whereabouts.wanted;
        ring.disable_kicks(memory)?;
        // The chain that is taken next is in service from then on.
        let mut since = Instant::now();
        let end = since + TURN;
        loop {
            if wanted.load(Ordering::Relaxed) {
                return Ok(Turn::Wanted);
            }
            let Some(taken) = ring.take(memory, &mut tools.chain)? else {
                return Ok(Turn::Empty { found: *used });
            };
            let queue = executor.queue();
            let Attempt::From(first) = queue.take(taken.index) else {
                return Err(RingError::Deadly(taken.index));
            };
            crash::point(Place::ChainTaken);
            let served = tools.batch.serve(memory, &tools.chain, executor, first)?;
            ring.complete(memory, taken, served.written)?;
            *used = true;
            let answered = Instant::now();
            crash::point(Place::UsedPublished);
            queue.complete();
            queue.counters.count_chain(served.well_formed);
            queue.counters.count_latency(answered - since, served.puts, served.gets);
            since = answered;
            if answered >= end {
                return Ok(Turn::More);
            }
        }
    }

    fn wants_notification(&mut self) -> Result<bool, RingError> {
        let Assignment { ring, memory, .. } = &mut self.assignment;
        ring.needs_notification(memory)
    }

    fn notify(&self, call: &PeerCall) -> Result<(), Blocked> {
        self.assignment.call.as_ref().map_or(Ok(()), |event| event.signal(call))
    }

    /// An event of the ring has held up the thread that serves it.
    pub fn has_blocked(&self) {
        self.assignment.conduct.has_blocked();
        self.warn("is served apart from other guests' from now on: an event of it has held up a thread");
    }

    /// Whether the driver has made chains available.
    ///
    /// # Errors
    ///
    /// As [`Ring::has_chains`].
    pub fn has_chains(&self) -> Result<bool, RingError> {
        self.assignment.ring.has_chains(&self.assignment.memory)
    }

    /// Asks the driver to kick again; true when chains are there already.
    ///
    /// # Errors
    ///
    /// As [`Ring::enable_kicks`].
    pub fn enable_kicks(&mut self) -> Result<bool, RingError> {
        let Assignment { ring, memory, .. } = &mut self.assignment;
        ring.enable_kicks(memory)
    }

    /// The driver cannot kick any more.
    pub fn is_dead(self) {
        self.warn("cannot be kicked any more, because its kick event is closed or none at all");
        self.end(false);
    }

    /// The ring makes no sense.
    pub fn fail(self, error: RingError) {
        self.queue().counters.count_ring_error();
        self.warn(format_args!("is not served until it is restarted: {error}"));
        self.end(true);
    }

    /// Gives the ring back; nothing is read from or written to guest memory any more.
    pub fn end(self, quarantined: bool) {
        let Self { assignment: Assignment { ring, memory, executor, .. }, outcome, .. } = self;
        if quarantined {
            executor.queue().quarantine();
        }
        drop(memory);
        // Nobody may want to know.
        let _ = outcome.send(Outcome { position: Some(ring.position()), quarantined });
    }

    /// What is known of the queue.
    #[must_use]
    pub fn queue(&self) -> &'static QueueLedger {
        self.assignment.executor.queue()
    }

    /// For the log: guest and queue.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.assignment.name
    }

    fn warn(&self, what: impl std::fmt::Display) {
        self.assignment.conduct.log(Level::Warn, format_args!("{} {what}", self.name()));
    }
}
