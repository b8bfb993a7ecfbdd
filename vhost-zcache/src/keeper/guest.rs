// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest's socket: VMMs come and go, one at a time.
//!
//! Nothing here waits. Of a VMM that does not read, or sends half a message, the rest is left for
//! when it does; a message that takes the worker is left until the worker has carried it out, and
//! only questions that do not take it are answered meanwhile. So what is held for one guest is
//! bounded: one change that is under way and one message.

mod kept;
mod saved;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{Error, Result};
use zerocopy::IntoBytes;

pub use self::saved::Left;
use self::saved::Saved;
use super::dispatch::{Answer, Dispatcher, Facts, Step, is_question};
use super::door::Door;
use super::log::Log;
use super::mirror::{Carried, Mirror};
use super::process::Worker;
use super::saver::Saver;
use super::state::{self, Loading};
use crate::access::Peers;
use crate::frontend::budget::{Admission, DescriptorBudget};
use crate::frontend::log_limit::Occasion;
use crate::frontend::message::{Channel, End, Message};
use crate::link::message::{Change, Direction, RingChange};

/// How long a message waits for a worker when there is none. Then it is carried out without: no
/// worker means that nobody serves a ring or touches memory.
const PATIENCE: Duration = Duration::from_secs(20);

/// Workers that may die while they carry out one change. The next one is not asked.
const MOST_ATTEMPTS: u32 = 4;

/// What of a guest's is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Somebody who connects.
    pub door: bool,
    /// The VMM sends something or is gone.
    pub reads: bool,
    /// The VMM takes what is left to send.
    pub writes: bool,
}

/// One socket, and the guest that connects to it.
pub struct Guest {
    number: usize,
    log: Log,
    door: Option<Door>,
    peers: Peers,
    state: State,
    /// The socket of a VMM that is gone, as long as it is waited on.
    closed: Option<Channel>,
    /// Connections there were.
    lives: u64,
    /// Changes that were asked of a worker.
    tickets: u64,
    saved: Saved,
    /// The daemon ends: what the VMM says that takes the worker is left.
    is_left: bool,
    /// And no ring is served any more.
    is_held: bool,
}

enum State {
    Vacant,
    Connected(Box<Connection>),
    /// The worker drops what the guest had.
    Leaving {
        ticket: u64,
        _admission: Admission,
    },
}

struct Connection {
    channel: Channel,
    dispatcher: Dispatcher,
    mirror: Mirror,
    /// The change that is under way.
    pending: Option<Pending>,
    /// What the VMM said next.
    waiting: Option<Message>,
    loading: Loading,
    // Given back when all above is closed.
    admission: Admission,
}

struct Pending {
    carried: Carried,
    request: u32,
    answer: Answer,
    ticket: u64,
    since: Instant,
    /// Workers that were asked.
    attempts: u32,
}

impl Guest {
    /// A guest that is not connected, and comes to a door.
    #[must_use]
    pub fn new(number: usize, log: Log, door: Option<Door>, peers: Peers) -> Self {
        Self {
            number,
            log,
            door,
            peers,
            state: State::Vacant,
            closed: None,
            lives: 0,
            tickets: 0,
            saved: Saved::default(),
            is_left: false,
            is_held: false,
        }
    }

    /// The log of its socket.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Whether a VMM is connected, and not gone.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(&self.state, State::Connected(connection) if !connection.is_gone())
    }

    /// Lets processes of other users be at the other end from now on.
    pub fn set_peers(&mut self, peers: Peers) {
        self.peers = peers;
    }

    /// Nobody is to connect any more, and who is connected is sent away. Nothing of it is waited
    /// for any more.
    pub fn dismiss(&mut self, worker: &mut Worker) {
        self.door = None;
        if matches!(self.state, State::Connected(_)) {
            self.end(End::Removed, worker);
        }
    }

    /// Leaves the socket where it is, for the next keeper.
    pub fn leave_door(&mut self) {
        if let Some(door) = self.door.take() {
            door.leave();
        }
    }

    /// Which connection it has; 0 for none.
    #[must_use]
    pub fn life(&self) -> u64 {
        if matches!(self.state, State::Connected(_)) { self.lives } else { 0 }
    }

    /// Whether nobody is connected, nor can be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.door.is_none() && matches!(self.state, State::Vacant)
    }

    /// What is to be waited for.
    #[must_use]
    pub fn interest(&self) -> Interest {
        let open = self.door.as_ref().is_some_and(Door::is_open);
        match &self.state {
            State::Vacant => Interest { door: open, ..Interest::default() },
            State::Leaving { .. } => Interest::default(),
            State::Connected(connection) => Interest {
                // Who comes after a VMM that is gone is served next.
                door: open && !connection.is_gone(),
                reads: connection.can_go_on(),
                writes: connection.channel.events() == PollFlags::OUT,
            },
        }
    }

    /// The listening socket.
    #[must_use]
    pub fn door_socket(&self) -> Option<RawFd> {
        self.door.as_ref().map(|door| door.listener().as_raw_fd())
    }

    /// The socket of the VMM that is connected.
    #[must_use]
    pub fn vmm_socket(&self) -> Option<RawFd> {
        match &self.state {
            State::Connected(connection) => Some(connection.channel.as_fd().as_raw_fd()),
            _ => None,
        }
    }

    /// Closes the socket of a VMM that is gone, which nobody waits on any more.
    pub fn close(&mut self) {
        self.closed = None;
    }

    /// When a door that was shut because nobody could be let in is opened again.
    pub fn door_opens(&mut self) -> Option<Instant> {
        self.door.as_mut().and_then(Door::opens)
    }

    /// Somebody may be at the door.
    pub fn knocked(&mut self, worker: &mut Worker, budget: &DescriptorBudget, facts: Facts) {
        let Some(door) = &mut self.door else { return };
        match &self.state {
            State::Leaving { .. } => {}
            State::Connected(connection) if connection.is_gone() => {}
            State::Connected(_) => {
                if let Some(second) = door.accept(&self.log) {
                    drop(second);
                    let text = format_args!("a second VMM was turned away: one is connected");
                    self.log.say(Occasion::Refused, text);
                }
            }
            State::Vacant => {
                if let Some(stream) = door.accept(&self.log) {
                    self.connect(stream, worker, budget, facts);
                }
            }
        }
    }

    /// Somebody has connected.
    pub fn connect(&mut self, stream: UnixStream, worker: &mut Worker, budget: &DescriptorBudget, facts: Facts) {
        if let Err(stranger) = self.peers.admit(&stream) {
            self.log.say(Occasion::Refused, format_args!("a connection was turned away: {stranger}"));
            return;
        }
        let Some(admission) = budget.admit() else {
            let why = "a VMM was turned away: with one more the process could run out of files (RLIMIT_NOFILE)";
            self.log.say(Occasion::Refused, format_args!("{why}"));
            return;
        };
        self.log.say(Occasion::Connected, format_args!("connected"));
        self.lives += 1;
        self.state = State::Connected(Box::new(Connection {
            channel: Channel::new(stream),
            dispatcher: Dispatcher::new(facts),
            mirror: Mirror::new(facts.num_queues),
            pending: None,
            waiting: None,
            loading: Loading::default(),
            admission,
        }));
        self.submit((Change::Connect(self.lives), Vec::new()), 0, Answer::None, worker);
        if self.is_held() {
            self.hold(true, worker);
        }
    }

    /// The VMM has sent something, takes an answer, or is gone.
    pub fn go_on(&mut self, worker: &mut Worker) {
        if let Err(end) = self.converse(worker) {
            self.end(end, worker);
        }
    }

    /// Sends what is left of an answer, and answers the messages that can be.
    fn converse(&mut self, worker: &mut Worker) -> std::result::Result<(), End> {
        while let State::Connected(connection) = &mut self.state {
            if !connection.channel.flush()? || !connection.can_go_on() && connection.waiting.is_none() {
                return Ok(());
            }
            let message = match connection.waiting.take() {
                Some(message) => message,
                None => match connection.channel.receive()? {
                    Some(message) => message,
                    None => return Ok(()),
                },
            };
            if (connection.pending.is_some() || self.is_left) && !is_question(message.request) {
                connection.waiting = Some(message);
                return Ok(());
            }
            let request = message.request;
            match connection.dispatcher.step(message, &connection.mirror, &self.log) {
                Step::Answer(reply, outcome) => {
                    report(&self.log, request, outcome);
                    if let Some(body) = reply {
                        connection.channel.reply(request, &body)?;
                    }
                }
                Step::Change(change, files, answer) => {
                    let carried = (change, files);
                    if worker.is_quarantined(self.number) {
                        // Nobody serves a ring or touches memory.
                        let outcome = connection.mirror.without_worker(&carried.0);
                        connection.settle(carried, request, answer, outcome, &self.log)?;
                    } else if carried.0.is_of_state() && self.saved.is_under_way() {
                        let outcome = Err("what was saved is being taken back".into());
                        connection.settle(carried, request, answer, outcome, &self.log)?;
                    } else {
                        self.take_back_before(&carried.0, worker);
                        self.submit(carried, request, answer, worker);
                    }
                }
            }
        }
        Ok(())
    }

    /// Has the worker carry out a change.
    fn submit(&mut self, carried: Carried, request: u32, answer: Answer, worker: &mut Worker) {
        let State::Connected(connection) = &mut self.state else { return };
        self.tickets += 1;
        let (ticket, since) = (self.tickets, Instant::now());
        let attempts = u32::from(worker.is_up());
        worker.change(self.number, carried.clone(), Some(ticket));
        connection.pending = Some(Pending { carried, request, answer, ticket, since, attempts });
    }

    /// Has a worker carry out a change that no VMM waits for; its ticket.
    fn ask(&mut self, change: Change, files: Vec<Rc<File>>, worker: &mut Worker) -> u64 {
        self.tickets += 1;
        worker.change(self.number, (change, files), Some(self.tickets));
        self.tickets
    }

    /// A worker has carried out a change, or has not.
    pub fn done(&mut self, ticket: u64, outcome: std::result::Result<u16, String>, worker: &mut Worker) {
        if self.saved_is_done(ticket, &outcome, worker) {
            return;
        }
        match &mut self.state {
            State::Leaving { ticket: leaving, .. } if *leaving == ticket => self.state = State::Vacant,
            State::Connected(connection) if connection.pending.as_ref().is_some_and(|p| p.ticket == ticket) => {
                self.resolve(outcome, worker);
            }
            _ => {}
        }
    }

    /// Ends the change that is under way, and goes on.
    fn resolve(&mut self, outcome: std::result::Result<u16, String>, worker: &mut Worker) {
        let State::Connected(connection) = &mut self.state else { return };
        let Some(Pending { carried, request, answer, .. }) = connection.pending.take() else { return };
        let replied = connection.settle(carried, request, answer, outcome, &self.log);
        match replied.and_then(|()| self.converse(worker)) {
            Ok(()) => {}
            Err(end) => self.end(end, worker),
        }
    }

    /// The VMM is gone, or has to go. All the guest had is dropped.
    fn end(&mut self, end: End, worker: &mut Worker) {
        let State::Connected(connection) = std::mem::replace(&mut self.state, State::Vacant) else { return };
        let Connection { channel, mirror, pending, waiting, admission, .. } = *connection;
        drop((mirror, pending, waiting));
        self.closed = Some(channel);
        self.loses_saved(false, worker);
        worker.forget(self.number);
        if worker.is_up() {
            self.tickets += 1;
            worker.change(self.number, (Change::Disconnect, Vec::new()), Some(self.tickets));
            self.state = State::Leaving { ticket: self.tickets, _admission: admission };
        }
        match end {
            // The way in which a VMM that exits or dies appears.
            End::Disconnected => self.log.say(Occasion::Ended, format_args!("disconnected")),
            end => self.log.say(Occasion::Ended, format_args!("connection ended: {end}")),
        }
    }

    /// The worker is dead. It does nothing any more to what guests had.
    pub fn worker_ended(&mut self, worker: &mut Worker) {
        self.loses_saved(true, worker);
        match &mut self.state {
            State::Leaving { .. } => self.state = State::Vacant,
            State::Vacant => {}
            State::Connected(connection) => {
                if connection.loading.worker_ended() {
                    // The next one is told of another connection, of which it knows nothing.
                    self.lives += 1;
                }
                let asked = |pending: &Pending| pending.attempts > 0 && pending.carried.0.is_of_state();
                if connection.pending.as_ref().is_some_and(asked) {
                    self.resolve(Err("the worker has died".into()), worker);
                }
            }
        }
    }

    /// Tells a new worker all that is set up, and what is under way.
    pub fn introduce(&mut self, worker: &mut Worker) {
        let State::Connected(connection) = &mut self.state else { return };
        if worker.is_quarantined(self.number) {
            return;
        }
        let pending = connection.pending.as_ref().map(|pending| &pending.carried.0);
        let connects = matches!(pending, Some(Change::Connect(_)));
        let starts = connection.mirror.is_started() || matches!(pending, Some(Change::Ring(_, RingChange::Kick(true))));
        if !connects {
            worker.change(self.number, (Change::Connect(self.lives), Vec::new()), None);
            if self.is_held() {
                self.hold(true, worker);
            } else if starts {
                self.take_back(worker);
            }
        }
        let State::Connected(connection) = &mut self.state else { return };
        if !connects {
            for carried in connection.mirror.changes() {
                worker.change(self.number, carried, None);
            }
        }
        if let Some(pending) = &mut connection.pending {
            pending.attempts += 1;
            if pending.attempts > MOST_ATTEMPTS && !connects {
                // The worker is not asked, and the VMM is told when it is ready.
                return;
            }
            worker.change(self.number, pending.carried.clone(), Some(pending.ticket));
        }
        if connects && self.is_held() {
            self.hold(true, worker);
        }
    }

    /// The daemon ends, and the VMM is not to change anything any more.
    pub fn leave(&mut self) {
        self.is_left = true;
    }

    /// Whether it can be saved: its VMM waits for nothing, and what was saved before is there.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let waits = matches!(&self.state, State::Connected(connection) if connection.pending.is_some());
        !waits && !self.is_taking_back()
    }

    /// Has a worker serve no ring any more, and give a saver what the guest has.
    ///
    /// # Errors
    ///
    /// When the saver has ended.
    pub fn save(&mut self, saver: &Saver, worker: &mut Worker) -> std::io::Result<()> {
        self.is_held = true;
        self.hold(true, worker);
        let file = saver.save(self.log.name().to_owned())?;
        self.ask(Change::MoveState(Direction::Save), vec![file], worker);
        Ok(())
    }

    /// Has a worker say what has become of the state that it gives; by which ticket.
    pub fn ask_for_state(&mut self, worker: &mut Worker) -> u64 {
        self.ask(Change::CheckState, Vec::new(), worker)
    }

    /// Looks whether what is under way has waited for too long, or has killed too many workers.
    pub fn look_after(&mut self, worker: &mut Worker) {
        self.retry_saved(worker);
        let State::Connected(connection) = &self.state else { return };
        let Some(pending) = &connection.pending else { return };
        if worker.is_quarantined(self.number) {
            let outcome = connection.mirror.without_worker(&pending.carried.0);
            self.resolve(outcome, worker);
            return;
        }
        if matches!(pending.carried.0, Change::Connect(_)) {
            return;
        }
        if worker.is_ready() && pending.attempts > MOST_ATTEMPTS {
            self.resolve(Err("it was under way when the worker died, again and again".into()), worker);
        } else if !worker.is_up() && pending.since.elapsed() >= PATIENCE {
            let outcome = connection.mirror.without_worker(&pending.carried.0);
            self.resolve(outcome, worker);
        }
    }
}

impl Connection {
    /// Notes how a change came out, and answers it.
    fn settle(
        &mut self,
        carried: Carried,
        request: u32,
        answer: Answer,
        outcome: std::result::Result<u16, String>,
        log: &Log,
    ) -> std::result::Result<(), End> {
        let outcome = outcome.map_err(|error| Error::ReqHandlerError(std::io::Error::other(error)));
        let reply = match answer {
            Answer::None => None,
            Answer::Acknowledgement => Some(u64::from(outcome.is_err()).as_bytes().to_vec()),
            Answer::Base(ring) => {
                let base = outcome.as_ref().map_or(0, |base| *base);
                Some([ring, base.into()].as_bytes().to_vec())
            }
            Answer::Transfer => Some(state::started(outcome.is_ok())),
            Answer::Log(area) => Some(state::log_taken(outcome.is_ok().then_some(area))),
            Answer::Verdict => Some(state::verdict(outcome.is_ok())),
        };
        self.loading.settle(&carried.0, outcome.is_ok());
        if let Ok(base) = outcome {
            self.mirror.commit(carried, base);
        }
        report(log, request, outcome.map(|_| ()));
        match reply {
            Some(body) => self.channel.reply(request, &body),
            None => Ok(()),
        }
    }

    /// Whether another message can be looked at.
    fn can_go_on(&self) -> bool {
        let answers = self.pending.as_ref().is_some_and(|pending| pending.answer != Answer::None);
        !answers && self.waiting.is_none()
    }

    /// Whether the VMM has closed its end. One that did so before another connected is gone when
    /// the other is seen.
    fn is_gone(&self) -> bool {
        let mut events = [PollFd::new(&self.channel, PollFlags::RDHUP)];
        // With no time to wait it fails for want of memory at most, and then nobody is gone.
        let polled = poll(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && !events[0].revents().is_empty()
    }
}

fn report(log: &Log, request: u32, outcome: Result<()>) {
    let Err(error) = outcome else { return };
    match FrontendReq::try_from(request) {
        Ok(name) => log.say(Occasion::Message, format_args!("{name:?} failed: {error}")),
        Err(_) => log.say(Occasion::Message, format_args!("message {request} failed: {error}")),
    }
}
