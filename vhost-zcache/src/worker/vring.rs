// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One ring as the VMM sets it up: whether it is to be served, and by whom it is.

use std::fmt;
use std::sync::Arc;

use log::Level;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic};

use super::guest::{Connection, GuestPlace};
use super::queue::conduct::Conduct;
use super::queue::event::PeerEvent;
use super::queue::reactors::{Reactors, Served};
use super::queue::service::{Assignment, Outcome};
use crate::crash::{self, Place};
use crate::device::comeback::{Comeback, QueueIndex};
use crate::device::dirty_log::DirtyLog;
use crate::device::execute::Executor;
use crate::device::guest_memory::Memory;
use crate::device::ring::{MAX_QUEUE_SIZE, Ring, RingError, RingPlace};
use crate::device::session::Session;
use crate::frontend::features::Acknowledged;
use crate::frontend::log_limit::LogLimit;
use crate::ledger::service::QueueLedger;
use crate::link::message::Addresses;

/// What the VMM says about a ring. All of it but the events stays over a stop.
#[derive(Debug)]
pub struct Settings {
    /// Where it is; `None` until the VMM has said so.
    pub addresses: Option<Addresses>,
    /// Number of entries.
    pub size: u16,
    /// Index of the next chain, for the VMM to keep while the ring is not served. One that is
    /// served starts at its used index instead.
    pub base: u16,
    /// Event by which the driver kicks. The ring is *started* while it has one.
    pub kick: Option<Arc<PeerEvent>>,
    /// Event that tells the driver of used chains.
    pub call: Option<Arc<PeerEvent>>,
    /// Whether the VMM lets the ring run.
    pub enabled: bool,
}

/// A ring. It is *served* while it is started, enabled and placed in memory, and paused for as
/// long as anything about that changes.
pub struct Vring {
    queue: QueueIndex,
    name: Arc<str>,
    session: Arc<Session>,
    log: DirtyLog,
    ledger: &'static QueueLedger,
    conduct: Arc<Conduct>,
    reactors: Arc<Reactors>,
    /// Limits what is logged of drivers that take over.
    comebacks: LogLimit,
    settings: Settings,
    state: State,
}

enum State {
    /// Nobody serves it.
    Idle,
    /// A reactor has it.
    Served(Served),
    /// It made no sense, and is left alone until the VMM stops and starts it: ZC-DEV-43.
    Quarantined,
}

impl Vring {
    /// A ring of a guest's device that the VMM has not set up.
    #[must_use]
    pub fn unset(queue: QueueIndex, ledger: &'static QueueLedger, guest: &GuestPlace, connection: &Connection) -> Self {
        Self {
            queue,
            name: format!("Queue {queue} of {}", guest.name()).into(),
            session: Arc::clone(&connection.session),
            log: connection.log.clone(),
            ledger,
            conduct: Arc::clone(guest.conduct()),
            reactors: Arc::clone(guest.reactors()),
            comebacks: LogLimit::default(),
            settings: Settings {
                addresses: None,
                size: MAX_QUEUE_SIZE,
                base: 0,
                kick: None,
                call: None,
                enabled: false,
            },
            state: State::Idle,
        }
    }

    /// Stops serving the ring for now, and gives its settings to be changed. When this returns
    /// guest memory is not read or written on behalf of the ring any more.
    pub fn pause(&mut self) -> &mut Settings {
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Served(served) => {
                let Outcome { position, quarantined } = served.stop();
                crash::point(Place::RingPaused);
                if let Some(position) = position {
                    self.settings.base = position.index;
                    self.session.ring_stops(self.queue, position);
                    crash::point(Place::StopNoted);
                }
                if quarantined {
                    self.ledger.quarantine();
                    State::Quarantined
                } else {
                    State::Idle
                }
            }
            other => other,
        };
        &mut self.settings
    }

    /// Stops the ring until it gets another kick event; the index of the first chain that is not
    /// completed.
    pub fn stop(&mut self) -> u16 {
        let settings = self.pause();
        let was_started = settings.kick.take().is_some();
        settings.call = None;
        let mut base = settings.base;
        if was_started && let Some(position) = self.session.stopped_at(self.queue) {
            // Maybe it was another worker that has paused it, and it could not go on since.
            base = position.index;
        }
        self.state = State::Idle;
        self.ledger.forget();
        base
    }

    /// The VMM sets it up for a driver that begins anew. User-mode Linux has not stopped it before,
    /// and its memory may have been anything in between.
    pub fn begins_anew(&mut self) {
        if matches!(self.state, State::Quarantined) {
            self.state = State::Idle;
            self.ledger.forget();
        }
    }

    /// Whether it is started: it has a kick event.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.settings.kick.is_some()
    }

    /// Serves the ring if it is to be served and is not.
    pub fn resume(&mut self, features: Option<Acknowledged>, memory: &GuestMemoryAtomic<Memory>) {
        if !matches!(self.state, State::Idle) {
            return;
        }
        let Some((features, place, kick)) = self.settings.wanted(features) else { return };
        if !features.version_1() {
            self.warn("is not served: the driver does not know virtio 1 (VIRTIO_F_VERSION_1)");
            return;
        }
        let memory = memory.memory();
        let ring = match Ring::start(place, features.of_rings(), &memory) {
            Ok(ring) => ring,
            Err(error) => {
                // The VMM's fault, who may place it elsewhere, or put memory where it is.
                self.misplaced(error);
                return;
            }
        };
        if self.ledger.is_quarantined() {
            // By the worker before, which cannot say any more where it has left the ring.
            let position = ring.position();
            self.settings.base = position.index;
            self.session.ring_stops(self.queue, position);
            self.state = State::Quarantined;
            return;
        }
        if self.session.ring_starts(self.queue, ring.position()) == Comeback::Another {
            let text = format_args!("{} is another driver's now, and the session is over", self.name);
            self.comebacks.log(Level::Info, text);
        }
        ring.mark_used(&self.log);
        self.ledger.counters.ring_started();
        crash::point(Place::RingStarted);
        let call = self.settings.call.clone();
        self.state = State::Served(self.reactors.serve(Assignment {
            name: Arc::clone(&self.name),
            conduct: Arc::clone(&self.conduct),
            executor: Executor::new(Arc::clone(&self.session), self.ledger),
            ring,
            memory,
            kick,
            call,
        }));
    }

    fn misplaced(&self, error: RingError) {
        self.ledger.counters.count_ring_error();
        self.warn(format_args!("is not served until it is placed elsewhere: {error}"));
    }

    fn warn(&self, what: impl fmt::Display) {
        self.conduct.log(Level::Warn, format_args!("{} {what}", self.name));
    }
}

impl Settings {
    /// How to serve the ring, if the VMM wants it to be served.
    fn wanted(&self, features: Option<Acknowledged>) -> Option<(Acknowledged, RingPlace, Arc<PeerEvent>)> {
        let features = features?;
        let Addresses { descriptors, available, used } = self.addresses?;
        let kick = self.kick.as_ref()?;
        let place = RingPlace { size: self.size, descriptors, available, used };
        (self.enabled || features.rings_always_enabled()).then(|| (features, place, Arc::clone(kick)))
    }
}
