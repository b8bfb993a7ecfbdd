// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A thread that serves many rings.
//!
//! A ring is *active* while it has chains: it gets turns, behind the others that are; one that was
//! not before gets its first turn ahead of them, so that a guest with little to do waits for one
//! turn of a busy one, and not for all. A ring that has become empty is *watched*, without kicks,
//! until the reactor's [`Patience`] is over. Then it is *armed*: its driver kicks, which wakes the
//! reactor by epoll. A ring that was kicked for nothing many times *rests*.
//!
//! When a reactor has more than one active ring for a while and another one sleeps, it gives one
//! away.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::error;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::event::Kick;
use super::interrupt::Blocked;
use super::patience::Patience;
use super::reactors::{Seat, Seats};
use super::service::{Service, Tools, Turn};

/// While there is work, kicks are looked for so often.
const KICKS: Duration = Duration::from_micros(20);

/// While there is work, an empty ring is watched for so long.
const WATCH: Duration = Duration::from_millis(1);

/// A ring is given away when there was more than one active for so long.
const CROWDED: Duration = Duration::from_micros(500);

/// Of the mailbox's event; no ring has this number.
const MAILBOX: u64 = u64::MAX;

/// Most events taken at a time.
const EVENTS: usize = 64;

/// Number of a ring at this reactor.
type Token = usize;

/// A ring, and how it stands.
struct Place {
    service: Service,
    stand: Stand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// It is in one of the two lines. If it was kicked, there should be chains.
    Active { kicked: bool },
    /// It is empty since then, and its driver does not kick.
    Watched { since: Instant },
    /// Its driver kicks.
    Armed,
    /// Nobody looks at it until then.
    Resting { until: Instant },
}

/// See the module.
pub struct Reactor {
    seats: Arc<Seats>,
    number: usize,
    epoll: OwnedFd,
    places: Vec<Option<Place>>,
    /// Active rings that have had a turn.
    line: VecDeque<Token>,
    /// Active rings that have not.
    front: VecDeque<Token>,
    /// Whose turn the last one was: they alternate while there are both, so that rings that become
    /// active again and again keep nobody waiting.
    was_of_front: bool,
    watched: Vec<Token>,
    resting: Vec<Token>,
    tools: Tools,
    patience: Patience,
    looked_for_kicks: Instant,
    crowded_since: Option<Instant>,
}

impl Reactor {
    /// A reactor without rings.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn new(seats: Arc<Seats>, number: usize) -> io::Result<Self> {
        let now = Instant::now();
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &seats.get(number).mailbox, EventData::new_u64(MAILBOX), EventFlags::IN)?;
        Ok(Self {
            seats,
            number,
            epoll,
            places: Vec::new(),
            line: VecDeque::new(),
            front: VecDeque::new(),
            was_of_front: false,
            watched: Vec::new(),
            resting: Vec::new(),
            tools: Tools::default(),
            patience: Patience::new(now),
            looked_for_kicks: now,
            crowded_since: None,
        })
    }

    /// Serves rings until told to end.
    pub fn run(&mut self) {
        loop {
            if let Some(letters) = self.seat().mailbox.take() {
                if letters.end {
                    return;
                }
                letters.rings.into_iter().for_each(|service| self.adopt(service));
                self.give_back_wanted();
            }
            let now = Instant::now();
            self.end_rests(now);
            let is_active = !(self.front.is_empty() && self.line.is_empty());
            if is_active {
                self.next_turn();
                self.look_at_watched(Some(now));
                self.share(now);
            } else if !self.watched.is_empty() && self.patience.looks_on(now) {
                std::hint::spin_loop();
                self.look_at_watched(None);
            } else {
                self.arm_watched();
                if self.front.is_empty() {
                    self.sleep(now);
                }
                continue;
            }
            if now.saturating_duration_since(self.looked_for_kicks) > KICKS {
                self.looked_for_kicks = now;
                self.take_events(Some(Duration::ZERO));
            }
        }
    }

    fn seat(&self) -> &Seat {
        self.seats.get(self.number)
    }

    fn adopt(&mut self, mut service: Service) {
        if service.is_wanted() {
            self.seat().mailbox.ring_left();
            service.end(false);
            return;
        }
        let token = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        if epoll::add(&self.epoll, service.kick(), EventData::new_u64(token as u64), service.kick().kicks()).is_err() {
            self.seat().mailbox.ring_left();
            service.is_dead();
            return;
        }
        let greeted = service.greet(&self.seat().call);
        if token == self.places.len() {
            self.places.push(None);
        }
        self.places[token] = Some(Place { service, stand: Stand::Active { kicked: false } });
        self.front.push_back(token);
        self.judge(token, greeted);
    }

    /// Takes a ring out, which is nobody's then.
    fn remove(&mut self, token: Token) -> Option<Service> {
        let Place { service, stand } = self.places.get_mut(token)?.take()?;
        let is_other = |other: &Token| *other != token;
        match stand {
            Stand::Active { .. } => {
                self.front.retain(is_other);
                self.line.retain(is_other);
            }
            Stand::Watched { .. } => self.watched.retain(is_other),
            Stand::Resting { .. } => self.resting.retain(is_other),
            Stand::Armed => {}
        }
        // The VMM has the same open file, which would stay in the set.
        let _ = epoll::delete(&self.epoll, service.kick());
        self.seat().mailbox.ring_left();
        Some(service)
    }

    fn give_back_wanted(&mut self) {
        for token in 0..self.places.len() {
            if self.places[token].as_ref().is_some_and(|place| place.service.is_wanted())
                && let Some(service) = self.remove(token)
            {
                service.end(false);
            }
        }
    }

    /// A turn for the ring whose it is.
    fn next_turn(&mut self) {
        self.was_of_front = !self.front.is_empty() && (self.line.is_empty() || !self.was_of_front);
        let line = if self.was_of_front { &mut self.front } else { &mut self.line };
        let Some(token) = line.pop_front() else { return };
        let call = &self.seats.get(self.number).call;
        let Some(place) = &mut self.places[token] else { return };
        let Stand::Active { kicked } = place.stand else { return };
        // A defect of ours that a guest sets off costs it this queue and nothing else.
        let turn = panic::catch_unwind(AssertUnwindSafe(|| place.service.turn(&mut self.tools, call)));
        match turn {
            Ok(Ok(Turn::More)) => {
                place.stand = Stand::Active { kicked: false };
                place.service.backoff.found_work();
                self.line.push_back(token);
            }
            Ok(Ok(Turn::Empty { found })) => {
                let now = Instant::now();
                if found {
                    place.service.backoff.found_work();
                    self.patience.worked(now);
                } else if kicked && let Some(pause) = place.service.backoff.found_nothing() {
                    self.rest(token, now + pause);
                    return;
                }
                place.stand = Stand::Watched { since: now };
                self.watched.push(token);
            }
            Ok(Ok(Turn::Wanted)) => self.take_out(token, |service| service.end(false)),
            Ok(Ok(Turn::Error(error))) => self.take_out(token, |service| service.fail(error)),
            Ok(Err(blocked)) => self.judge(token, Err(blocked)),
            Err(_) => {
                self.tools = Tools::default();
                self.take_out(token, |service| {
                    service.queue().counters.count_ring_error();
                    error!("{} is not served until it is restarted: its thread has panicked", service.name());
                    service.end(true);
                });
            }
        }
    }

    fn take_out(&mut self, token: Token, end: impl FnOnce(Service)) {
        if let Some(service) = self.remove(token) {
            end(service);
        }
    }

    /// A guest that has blocked this reactor does not do it again, unless others like it are here.
    fn judge(&mut self, token: Token, called: Result<(), Blocked>) {
        if called == Err(Blocked)
            && let Some(service) = self.remove(token)
        {
            service.has_blocked();
            self.seats.send(self.seats.apart(), service);
        }
    }

    /// Rings that are not empty any more become active. While there is work, those that have been
    /// empty for long are armed.
    fn look_at_watched(&mut self, busy: Option<Instant>) {
        for at in (0..self.watched.len()).rev() {
            let token = self.watched[at];
            let Some(place) = &self.places[token] else { continue };
            let is_stale = |now: Instant| match place.stand {
                Stand::Watched { since } => now.saturating_duration_since(since) > WATCH,
                _ => false,
            };
            match place.service.has_chains() {
                Ok(true) => self.activate_watched(at),
                Ok(false) if busy.is_some_and(is_stale) => self.arm(at),
                Ok(false) => {}
                Err(error) => self.take_out(token, |service| service.fail(error)),
            }
        }
    }

    fn arm_watched(&mut self) {
        for at in (0..self.watched.len()).rev() {
            self.arm(at);
        }
    }

    fn activate_watched(&mut self, at: usize) {
        let token = self.watched.swap_remove(at);
        if let Some(place) = &mut self.places[token] {
            place.stand = Stand::Active { kicked: false };
            self.front.push_back(token);
        }
    }

    /// Asks the driver of a watched ring to kick again.
    fn arm(&mut self, at: usize) {
        let token = self.watched[at];
        let Some(place) = &mut self.places[token] else { return };
        match place.service.enable_kicks() {
            Ok(false) => {
                place.stand = Stand::Armed;
                self.watched.swap_remove(at);
            }
            Ok(true) => self.activate_watched(at),
            Err(error) => self.take_out(token, |service| service.fail(error)),
        }
    }

    fn rest(&mut self, token: Token, until: Instant) {
        let Some(place) = &mut self.places[token] else { return };
        place.stand = Stand::Resting { until };
        let _ = epoll::modify(&self.epoll, place.service.kick(), EventData::new_u64(token as u64), EventFlags::empty());
        self.resting.push(token);
    }

    fn end_rests(&mut self, now: Instant) {
        for at in (0..self.resting.len()).rev() {
            let token = self.resting[at];
            let Some(place) = &mut self.places[token] else { continue };
            if matches!(place.stand, Stand::Resting { until } if now < until) {
                continue;
            }
            self.resting.swap_remove(at);
            place.stand = Stand::Active { kicked: false };
            self.front.push_back(token);
            let kick = place.service.kick();
            // Kicks that came meanwhile are not to tell of anything.
            let drained = kick.drain(&self.seats.get(self.number).call);
            let _ = epoll::modify(&self.epoll, kick, EventData::new_u64(token as u64), kick.kicks());
            self.judge(token, drained);
        }
    }

    /// Sleeps until a kick, a letter, or the end of a rest.
    fn sleep(&mut self, now: Instant) {
        let rests = self.resting.iter().filter_map(|token| match self.places[*token].as_ref()?.stand {
            Stand::Resting { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        });
        let timeout = rests.min();
        self.seat().mailbox.set_asleep(true);
        let kicked = self.take_events(timeout);
        self.seat().mailbox.set_asleep(false);
        let woken = Instant::now();
        self.looked_for_kicks = woken;
        if kicked {
            self.patience.woken(now, woken);
        }
    }

    /// Waits for events, for ever if there is no timeout; whether any was a kick of an armed ring.
    fn take_events(&mut self, timeout: Option<Duration>) -> bool {
        // In whole milliseconds, so that it takes the older of the two system calls.
        let timeout = timeout.map(|timeout| {
            let millis = timeout.as_nanos().div_ceil(1_000_000);
            Timespec { tv_sec: 0, tv_nsec: i64::try_from(millis.min(999)).unwrap_or(999) * 1_000_000 }
        });
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        // A call that was interrupted is made again by whoever asked.
        let number = epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()).unwrap_or(0);
        let mut kicked = false;
        for event in &events[..number] {
            let token = event.data.u64();
            if token != MAILBOX {
                kicked |= usize::try_from(token).is_ok_and(|token| self.kicked(token, event.flags));
            }
        }
        kicked
    }

    /// A kick event has become ready; whether the ring was armed.
    fn kicked(&mut self, token: Token, flags: EventFlags) -> bool {
        let call = &self.seats.get(self.number).call;
        let Some(Some(place)) = self.places.get_mut(token) else { return false };
        match place.service.kick().take(flags, call) {
            Ok(Kick::Taken) if place.stand == Stand::Armed => {
                place.stand = Stand::Active { kicked: true };
                self.front.push_back(token);
                return true;
            }
            Ok(Kick::Taken) => {}
            Ok(Kick::Dead) => self.take_out(token, Service::is_dead),
            Err(blocked) => self.judge(token, Err(blocked)),
        }
        false
    }

    /// Gives a ring to a reactor that has nothing to do, if there are several here that have.
    fn share(&mut self, now: Instant) {
        if self.front.len() + self.line.len() < 2 || self.seats.is_apart(self.number) {
            self.crowded_since = None;
            return;
        }
        let since = *self.crowded_since.get_or_insert(now);
        if now.saturating_duration_since(since) > CROWDED
            && let Some(idle) = self.seats.idle()
            && let Some(token) = self.line.back().copied()
            && let Some(service) = self.remove(token)
        {
            self.seats.send(idle, service);
            self.crowded_since = None;
        }
    }
}
