// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All reactors: who serves which ring, and how it comes back.

use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::interrupt::{self, PeerCall};
use super::mailbox::Mailbox;
use super::reactor::Reactor;
use super::service::{Assignment, Outcome, Service, Whereabouts};
use crate::sandbox;
use crate::sandbox::rule::Kind;

/// Time between two looks at a ring that was not given back yet. A turn takes a fraction of it, so
/// that mostly there is none.
const INTERVAL: Duration = Duration::from_millis(5);

/// A reactor, as others see it.
pub struct Seat {
    /// How it is told.
    pub mailbox: Mailbox,
    /// Its calls on VMMs' events.
    pub call: PeerCall,
    thread: OnceLock<JoinHandle<()>>,
}

/// The reactors, as they see one another. One more than for all guests serves those whose events
/// have blocked a reactor, so that they hold up nobody but each other.
pub struct Seats {
    usual: Box<[Seat]>,
    apart: Seat,
}

/// The reactors, which end when this is dropped.
pub struct Reactors(Arc<Seats>);

/// A ring that is served. When this is dropped it is not any more.
pub struct Served {
    seats: Arc<Seats>,
    whereabouts: Arc<Whereabouts>,
    outcome: Receiver<Outcome>,
    is_back: bool,
}

impl Seat {
    fn new() -> io::Result<Self> {
        Ok(Self { mailbox: Mailbox::new()?, call: PeerCall::default(), thread: OnceLock::new() })
    }

    /// Interrupts a call on a VMM's event.
    fn relieve(&self) {
        if let Some(thread) = self.thread.get() {
            self.call.interrupt(thread);
        }
    }
}

impl Seats {
    /// The seat of a number; any that is too high is the one apart.
    #[must_use]
    pub fn get(&self, number: usize) -> &Seat {
        self.usual.get(number).unwrap_or(&self.apart)
    }

    /// Whether the seat is the one apart.
    #[must_use]
    pub fn is_apart(&self, number: usize) -> bool {
        number >= self.usual.len()
    }

    /// Number of the seat apart.
    #[must_use]
    pub fn apart(&self) -> usize {
        self.usual.len()
    }

    /// A usual reactor that has nothing to do.
    #[must_use]
    pub fn idle(&self) -> Option<usize> {
        self.usual.iter().position(|seat| seat.mailbox.is_asleep())
    }

    /// The usual reactor that has fewest rings.
    fn emptiest(&self) -> usize {
        (0..self.usual.len()).min_by_key(|seat| self.get(*seat).mailbox.rings()).unwrap_or_default()
    }

    /// Gives a ring to the reactor of that number.
    pub fn send(&self, number: usize, service: Service) {
        service.whereabouts().seat.store(number, Ordering::Release);
        self.get(number).mailbox.send(service);
    }
}

impl Reactors {
    /// Starts reactors.
    ///
    /// # Errors
    ///
    /// When the process cannot have so many threads or file descriptors.
    pub fn start(number: NonZero<u8>) -> io::Result<Self> {
        interrupt::prepare()?;
        let usual = (0..number.get()).map(|_| Seat::new()).collect::<io::Result<_>>()?;
        let reactors = Self(Arc::new(Seats { usual, apart: Seat::new()? }));
        let seats = &reactors.0;
        for number in 0..=seats.apart() {
            let mut reactor = Reactor::new(Arc::clone(seats), number)?;
            let thread = thread::Builder::new().name("queue".into()).spawn(move || {
                sandbox::confine_thread(Kind::Queue);
                reactor.run();
            })?;
            let _ = seats.get(number).thread.set(thread);
        }
        Ok(reactors)
    }

    /// Serves a ring from now on.
    #[must_use]
    pub fn serve(&self, assignment: Assignment) -> Served {
        let seats = Arc::clone(&self.0);
        let seat = if assignment.conduct.blocks() { seats.apart() } else { seats.emptiest() };
        let whereabouts = Arc::new(Whereabouts { seat: AtomicUsize::new(seat), ..Whereabouts::default() });
        let (ended, outcome) = sync_channel(1);
        seats.send(seat, Service::new(assignment, Arc::clone(&whereabouts), ended));
        Served { seats, whereabouts, outcome, is_back: false }
    }

    /// Interrupts calls on VMMs' events. To be called now and then: a call that does not block is
    /// over long before.
    pub fn relieve(&self) {
        (0..=self.0.apart()).for_each(|number| self.0.get(number).relieve());
    }
}

impl Drop for Reactors {
    fn drop(&mut self) {
        (0..=self.0.apart()).for_each(|number| self.0.get(number).mailbox.end());
    }
}

impl Served {
    /// Stops serving the ring. When this returns the chain that was in service is completed, and
    /// nothing is read from or written to the guest's memory any more. That takes as long as one
    /// turn, and does not depend on what any VMM does with the events of rings.
    #[must_use]
    pub fn stop(mut self) -> Outcome {
        self.give_back()
    }

    fn give_back(&mut self) -> Outcome {
        self.is_back = true;
        self.whereabouts.wanted.store(true, Ordering::Relaxed);
        loop {
            let seat = self.seats.get(self.whereabouts.seat.load(Ordering::Acquire));
            seat.mailbox.wake();
            match self.outcome.recv_timeout(INTERVAL) {
                Ok(outcome) => return outcome,
                // It may be on its way to another reactor, which does not know that it is wanted.
                Err(RecvTimeoutError::Timeout) => seat.relieve(),
                // The reactor has panicked where no ring could have made it.
                Err(RecvTimeoutError::Disconnected) => return Outcome::lost(),
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !self.is_back {
            let _ = self.give_back();
        }
    }
}
