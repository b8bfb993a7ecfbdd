// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the keeper waits for, and what it does then; [`reload`] is about another configuration,
//! [`errand`] about what a worker does for the operator, [`saving`] about the end.

mod errand;
mod reload;
mod saving;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use log::{error, info};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use self::saving::Ending;
use super::control::Control;
use super::dispatch::Facts;
use super::errands::Errands;
use super::guest::{Guest, Interest, Left};
use super::handover::Handover;
use super::numbers::Numbers;
use super::process::{BEAT, Watched as WorkerFile, Who, Worker};
use super::reload::Reload;
use super::running::Sign;
use crate::admin::wish::{Alteration, Wish};
use crate::config::Config;
use crate::error::Error;
use crate::frontend::budget::DescriptorBudget;
use crate::link::message::{Errand, FromWorker};
use crate::sandbox;
use crate::sandbox::files::Reach;

/// What an event is about. Numbers of guests are in the lower bits.
const SIGNALS: u32 = 0;
const TIMER: u32 = 1;
const UPGRADE: u32 = 2;
const CONTROL: u32 = 3;
const READ_AGAIN: u32 = 4;
const RELOAD: u32 = 5;
const SAVER: u32 = 6;
const GUEST_SAVER: u32 = 1 << 28;
const WORKER: u32 = 1 << 29;
const DOOR: u32 = 1 << 30;
const VMM: u32 = 1 << 31;
const KINDS: u32 = GUEST_SAVER | DOOR | VMM;

/// What is being waited on for one guest.
#[derive(Debug, Clone, Copy, Default)]
struct Watched {
    door: Option<RawFd>,
    vmm: Option<(RawFd, EventSet)>,
    saver: Option<RawFd>,
}

/// A guest, and what is being waited on for it.
struct Attended {
    guest: Guest,
    watched: Watched,
}

/// Become readable at signals.
pub struct Signals {
    /// The daemon is to end.
    pub end: UnixStream,
    /// Another program is to be taken.
    pub upgrade: UnixStream,
    /// The configuration is to be read again, if it can be.
    pub reload: Option<UnixStream>,
}

/// By what the operator says something.
pub struct Operator {
    /// Signals.
    pub signals: Signals,
    /// The control socket, if there is one.
    pub control: Option<Control>,
}

/// What the daemon is at first.
pub struct Beginning {
    /// What the operator wants.
    pub config: Config,
    /// Which guest has which number.
    pub numbers: Numbers,
    /// The guests.
    pub guests: Vec<(usize, Guest)>,
    /// VMMs at the other ends of inherited sockets.
    pub connected: Vec<(usize, UnixStream)>,
    /// Guests of whom something is saved.
    pub saved: BTreeMap<String, Left>,
}

/// The keeper's state.
pub struct Keeper {
    config: Config,
    numbers: Numbers,
    guests: BTreeMap<usize, Attended>,
    /// Inherited connections, until there is a worker.
    connected: Vec<(usize, UnixStream)>,
    worker: Worker,
    /// Guests of whom something is saved, and who are not there.
    saved: BTreeMap<String, Left>,
    /// What is being waited on for the worker.
    worker_watched: Vec<WorkerFile>,
    descriptors: DescriptorBudget,
    facts: Facts,
    signals: Signals,
    control: Option<Control>,
    reload: Reload,
    errands: Errands,
    /// What is left to the next keeper, if a service manager keeps it.
    handover: Option<Handover>,
    /// What is being waited on for the operator.
    control_watched: Vec<RawFd>,
    /// What is being waited on for who reads the configuration again.
    reader_watched: Option<RawFd>,
    timer: Option<OwnedFd>,
    next_beat: Instant,
    /// Whether there was a worker that was ready, so that guests are let in.
    is_open: bool,
    /// The daemon is to end, and what guests have is being saved.
    ending: Option<Ending>,
    end: Option<Result<(), Error>>,
}

impl Keeper {
    /// A keeper that has not begun.
    #[must_use]
    pub fn new(
        beginning: Beginning,
        worker: Worker,
        descriptors: DescriptorBudget,
        facts: Facts,
        operator: Operator,
        handover: Option<Handover>,
    ) -> Self {
        let Operator { signals, control } = operator;
        let Beginning { config, numbers, guests, connected, mut saved } = beginning;
        let attend = |(number, mut guest): (usize, Guest)| {
            guest.find_saved(&mut saved);
            (number, Attended { guest, watched: Watched::default() })
        };
        let guests = guests.into_iter().map(attend).collect();
        let next_beat = Instant::now() + BEAT;
        Self {
            config,
            numbers,
            guests,
            connected,
            saved,
            worker,
            worker_watched: Vec::new(),
            descriptors,
            facts,
            reload: Reload::new(signals.reload.is_some()),
            errands: Errands::default(),
            signals,
            control,
            handover,
            control_watched: Vec::new(),
            reader_watched: None,
            timer: None,
            next_beat,
            is_open: false,
            ending: None,
            end: None,
        }
    }

    /// Serves until it is told to end, or nobody can come any more. Before, it gives up all but
    /// `reach`.
    ///
    /// # Errors
    ///
    /// [`Error`], one line for the user.
    pub fn run(mut self, reach: &Reach) -> Result<(), Error> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags);
        self.timer = Some(timer.map_err(|error| Error::Descriptors(error.into()))?);
        let mut events = EventManager::<Rc<RefCell<Self>>>::new().map_err(Error::Events)?;
        // All that is ever opened is open.
        sandbox::confine_keeper(self.config.seccomp, reach)?;
        self.worker.start(self.lives()).map_err(Error::Worker)?;
        self.introduce_all();
        let keeper = Rc::new(RefCell::new(self));
        events.add_subscriber(Rc::clone(&keeper));
        loop {
            let end = keeper.borrow_mut().end.take();
            if let Some(end) = end {
                let mut keeper = keeper.borrow_mut();
                // It would end with the keeper, but a moment later.
                keeper.worker.kill();
                if keeper.handover.is_some() {
                    // They are the next keeper's, or go with the service's folder.
                    keeper.guests.values_mut().for_each(|attended| attended.guest.leave_door());
                }
                return end;
            }
            events.run().map_err(Error::Events)?;
        }
    }

    /// The connection that each guest has, by the guests' numbers.
    fn lives(&self) -> Vec<u64> {
        let life = |number| self.guests.get(&number).map_or(0, |attended| attended.guest.life());
        (0..self.numbers.room()).map(life).collect()
    }

    fn introduce_all(&mut self) {
        self.guests.values_mut().for_each(|attended| attended.guest.introduce(&mut self.worker));
    }

    /// The guests' numbers.
    fn all(&self) -> Vec<usize> {
        self.guests.keys().copied().collect()
    }

    /// Does something with a guest, if it is there, and waits for what it is interested in then.
    fn attend(&mut self, number: usize, ops: &mut EventOps<'_>, work: impl FnOnce(&mut Guest, &mut Worker)) {
        self.touch(number);
        if let Some(attended) = self.guests.get_mut(&number) {
            work(&mut attended.guest, &mut self.worker);
            self.watch_guest(number, ops);
        }
    }

    fn timer_went_off(&mut self, ops: &mut EventOps<'_>) {
        if let Some(timer) = &self.timer {
            // It does not block, whether or not it went off.
            let _ = rustix::io::read(timer, &mut [0; 8]);
        }
        let now = Instant::now();
        if now >= self.next_beat {
            self.next_beat = now + BEAT;
            self.worker.beat();
            self.beat_of_reload();
            self.beat_of_errand();
            if let Some(handover) = self.handover.as_mut().filter(|_| self.worker.is_well()) {
                handover.are_well();
            }
            for number in self.all() {
                self.attend(number, ops, Guest::look_after);
            }
        }
        self.worker_may_have_ended(ops);
        if self.worker.is_wanted() {
            match self.worker.start(self.lives()) {
                Ok(()) => {
                    self.introduce_all();
                    for number in self.all() {
                        self.watch_guest(number, ops);
                    }
                }
                // Nobody will ever serve these guests again; a daemon that is started anew can.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.end = Some(Err(Error::Worker(error))),
                Err(error) => error!("{}", Error::Worker(error)),
            }
        }
        for number in self.all() {
            // A door that was shut may be open now.
            let Some(Attended { guest, watched }) = self.guests.get_mut(&number) else { continue };
            if watched.door.is_none() && guest.door_opens().is_none() {
                self.watch_guest(number, ops);
            }
        }
    }

    /// Does what the worker says.
    fn heed_worker(&mut self, ops: &mut EventOps<'_>) {
        self.worker.flush();
        while let Some(message) = self.worker.receive() {
            match message {
                FromWorker::Ready => {
                    self.worker_is_ready(ops);
                    self.worker_begins_with_reload();
                }
                FromWorker::Settled => self.reload_is_settled(),
                FromWorker::Run { ticket, outcome } => self.errand_was_run(ticket, &outcome),
                FromWorker::Done { guest: number, ticket, outcome } => {
                    self.worker_tells_of_state(number, ticket, &outcome);
                    self.attend(number, ops, |guest, worker| guest.done(ticket, outcome, worker));
                }
                FromWorker::Arena
                | FromWorker::Build(_)
                | FromWorker::Left
                | FromWorker::Panicked(_)
                | FromWorker::Pong => {}
            }
        }
    }

    fn worker_is_ready(&mut self, ops: &mut EventOps<'_>) {
        if std::mem::replace(&mut self.is_open, true) {
            return;
        }
        for (number, stream) in std::mem::take(&mut self.connected) {
            self.touch(number);
            if let Some(Attended { guest, .. }) = self.guests.get_mut(&number) {
                guest.connect(stream, &mut self.worker, &self.descriptors, self.facts);
            }
        }
        for number in self.all() {
            info!("{}: ready", self.guests[&number].guest.log().name());
            self.watch_guest(number, ops);
        }
        if self.guests.is_empty() {
            info!("ready, without guests");
        }
        if let Some(handover) = &mut self.handover {
            handover.ready();
        }
    }

    /// The worker's process may have ended.
    fn worker_may_have_ended(&mut self, ops: &mut EventOps<'_>) {
        if !self.worker.is_done() {
            return;
        }
        // What it has said before it died is as true as ever.
        self.heed_worker(ops);
        self.errand_is_lost();
        let never_lived = !self.is_open;
        let status = self.worker.ended();
        if never_lived && status.is_some_and(|status| status.code().is_some()) {
            // It has said why, and the next one would say the same.
            self.end = Some(Err(Error::NoStart));
        }
        for number in self.all() {
            if let Some(Attended { guest, .. }) = self.guests.get_mut(&number) {
                guest.worker_ended(&mut self.worker);
            }
            self.watch_guest(number, ops);
        }
    }

    /// Something of a guest's begins to change, until it is waited for again.
    fn touch(&self, number: usize) {
        if let Some(handover) = self.handover.as_ref().filter(|_| self.guests.contains_key(&number)) {
            handover.touch(number);
        }
    }

    /// Leaves what there is of the worker to the next keeper.
    fn note_worker(&mut self) {
        if let Some(handover) = &mut self.handover {
            handover.note_worker(self.worker.number(), self.worker.arena());
        }
    }

    /// Waits for what a guest is interested in from now on, and leaves what is known of it to the
    /// next keeper.
    fn watch_guest(&mut self, number: usize, ops: &mut EventOps<'_>) {
        let Some(Attended { guest, watched }) = self.guests.get_mut(&number) else { return };
        let Interest { door, reads, writes } = if self.is_open && self.ending.is_none() {
            guest.interest()
        } else {
            Interest { door: false, ..guest.interest() }
        };
        let token = u32::try_from(number).unwrap_or(u32::MAX) & !KINDS;

        let wanted = guest.door_socket().filter(|_| door);
        if wanted != watched.door {
            if let Some(fd) = watched.door.take() {
                unwatch(fd, ops);
            }
            if let Some(fd) = wanted {
                watch(Events::with_data_raw(fd, DOOR | token, EventSet::IN), ops);
            }
            watched.door = wanted;
        }

        let set = match (writes, reads) {
            (true, _) => Some(EventSet::OUT),
            (false, true) => Some(EventSet::IN | EventSet::READ_HANG_UP),
            (false, false) => None,
        };
        let wanted = guest.vmm_socket().zip(set);
        if wanted != watched.vmm {
            if let Some((fd, _)) = watched.vmm.take() {
                unwatch(fd, ops);
            }
            if let Some((fd, set)) = wanted {
                watch(Events::with_data_raw(fd, VMM | token, set), ops);
            }
            watched.vmm = wanted;
        }
        let wanted = guest.saver_socket();
        if wanted != watched.saver {
            if let Some(fd) = watched.saver.take() {
                unwatch(fd, ops);
            }
            if let Some(fd) = wanted {
                watch(Events::with_data_raw(fd, GUEST_SAVER | token, EventSet::IN), ops);
            }
            watched.saver = wanted;
        }
        if let Some(handover) = &mut self.handover {
            handover.note_guest(number, |number_of| guest.snapshot(number_of));
        }
        guest.close();
        let are_over = self.guests.values().all(|attended| attended.guest.is_over());
        if are_over && !self.guests.is_empty() && self.connected.is_empty() && self.is_open {
            info!("Ending because of the end of the last inherited connection");
            self.end = Some(Ok(()));
        }
    }

    /// Waits for what the worker's processes have.
    fn watch_worker(&mut self, ops: &mut EventOps<'_>) {
        let wanted = self.worker.watched();
        for old in self.worker_watched.iter().filter(|old| !wanted.contains(old)) {
            unwatch(old.fd, ops);
        }
        for new in wanted.iter().filter(|new| !self.worker_watched.contains(new)) {
            let set = if new.choked { EventSet::IN | EventSet::OUT } else { EventSet::IN };
            watch(Events::with_data_raw(new.fd, token(new), set), ops);
        }
        self.worker_watched = wanted;
        self.worker.bury();
    }

    /// Waits for what the operator wants, who is told what has come of it.
    fn watch_control(&mut self, ops: &mut EventOps<'_>) {
        let Some(control) = &mut self.control else { return };
        if let Some(outcome) = self.worker.upgraded() {
            control.answer_upgrade(&outcome);
        }
        let wanted: Vec<RawFd> = control.watched().collect();
        for old in self.control_watched.iter().filter(|old| !wanted.contains(old)) {
            unwatch(*old, ops);
        }
        control.close();
        for new in wanted.iter().filter(|new| !self.control_watched.contains(new)) {
            watch(Events::with_data_raw(*new, CONTROL, EventSet::IN), ops);
        }
        self.control_watched = wanted;
    }

    /// Does what the operator asks for.
    fn heed_operator(&mut self) {
        if let Some(control) = &mut self.control {
            control.knocked();
        }
        while let Some(wish) = self.control.as_mut().and_then(Control::wish) {
            match wish {
                Wish::Upgrade => {
                    if let (Err(why), Some(control)) = (self.worker.upgrade(), &mut self.control) {
                        control.answer_upgrade(&Err(why));
                    }
                }
                Wish::Reload { disconnect } => self.reload(disconnect),
                Wish::Alter(alteration) => self.alter(alteration),
                Wish::GiveBack { bytes } => self.run_errand(Errand::GiveBack { bytes }),
                Wish::Flush { guest, pool } => self.flush(&guest, pool),
                Wish::Freeze { guest } => self.alter(Alteration::frozen(&guest, true)),
                Wish::Thaw { guest } => self.alter(Alteration::frozen(&guest, false)),
            }
        }
    }

    /// A file of one of the worker's processes is ready.
    fn worker_gives_a_sign(&mut self, token: u32, ops: &mut EventOps<'_>) {
        match token & 0xf {
            WORKER_LINK => self.heed_worker(ops),
            WORKER_SENTINEL => self.worker.look_at_sentinels(),
            WORKER_EXIT => {}
            NEXT => self.worker.look_at_next(),
            _ => self.worker.look_at_gone(),
        }
        self.worker_may_have_ended(ops);
    }

    /// Sets the timer to what is due next.
    fn set_timer(&mut self) {
        let doors = self.guests.values_mut().filter_map(|attended| attended.guest.door_opens());
        let end = self.ending.as_ref().map(|ending| ending.until);
        let due = doors.chain(end).chain(self.worker.due()).chain([self.next_beat]).min();
        let left = due.map_or(BEAT, |due| due.saturating_duration_since(Instant::now()));
        // A timer of 0 never goes off.
        let left = left.max(Duration::from_micros(1));
        let Ok(value) = rustix::time::Timespec::try_from(left) else { return };
        let once = Itimerspec { it_interval: rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        if let Some(timer) = &self.timer
            && let Err(error) = timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)
        {
            error!("The timer cannot be set: {error}");
        }
    }
}

/// What a file of the worker's processes is about, in the lower bits of its token.
const WORKER_LINK: u32 = 0;
const WORKER_SENTINEL: u32 = 1;
const WORKER_EXIT: u32 = 2;
const NEXT: u32 = 3;
const GONE: u32 = 4;

fn token(file: &WorkerFile) -> u32 {
    WORKER
        | match (file.who, file.sign) {
            (Who::Worker, Sign::Link) => WORKER_LINK,
            (Who::Worker, Sign::Sentinel) => WORKER_SENTINEL,
            (Who::Worker, Sign::Exit) => WORKER_EXIT,
            (Who::Next, _) => NEXT,
            (Who::Gone, _) => GONE,
        }
}

fn watch(events: Events, ops: &mut EventOps<'_>) {
    if let Err(error) = ops.add(events) {
        error!("A file cannot be waited on: {error}");
    }
}

fn unwatch(fd: RawFd, ops: &mut EventOps<'_>) {
    if let Err(error) = ops.remove(Events::empty_raw(fd)) {
        error!("A file cannot be left: {error}");
    }
}

impl MutEventSubscriber for Keeper {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            SIGNALS => self.told_to_end(),
            TIMER => self.timer_went_off(ops),
            UPGRADE => {
                // A signal more is no other wish.
                let _ = (&self.signals.upgrade).read(&mut [0; 64]);
                let _ = self.worker.upgrade();
            }
            CONTROL => self.heed_operator(),
            READ_AGAIN => {
                if let Some(mut signals) = self.signals.reload.as_ref() {
                    let _ = signals.read(&mut [0; 64]);
                }
                self.reload_by_signal();
            }
            RELOAD => self.heed_reader(ops),
            // What it says is heard below.
            SAVER => {}
            token if token & WORKER != 0 => self.worker_gives_a_sign(token, ops),
            token => {
                let number = (token & !KINDS) as usize;
                self.touch(number);
                if let Some(Attended { guest, .. }) = self.guests.get_mut(&number) {
                    if token & GUEST_SAVER != 0 {
                        guest.saver_says(&mut self.worker);
                    } else if token & DOOR != 0 {
                        guest.knocked(&mut self.worker, &self.descriptors, self.facts);
                    } else {
                        guest.go_on(&mut self.worker);
                    }
                }
                self.watch_guest(number, ops);
            }
        }
        self.watch_worker(ops);
        self.watch_reader(ops);
        self.watch_control(ops);
        self.go_on_ending(ops);
        self.note_worker();
        self.set_timer();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(Events::with_data(&self.signals.end, SIGNALS, EventSet::IN), ops);
        watch(Events::with_data(&self.signals.upgrade, UPGRADE, EventSet::IN), ops);
        if let Some(signals) = &self.signals.reload {
            watch(Events::with_data(signals, READ_AGAIN, EventSet::IN), ops);
        }
        if let Some(timer) = &self.timer {
            watch(Events::with_data_raw(timer.as_raw_fd(), TIMER, EventSet::IN), ops);
        }
        self.watch_worker(ops);
        self.watch_control(ops);
        for number in self.all() {
            self.watch_guest(number, ops);
        }
        self.note_worker();
        if let Some(handover) = &mut self.handover {
            handover.sweep();
        }
        self.set_timer();
    }
}
