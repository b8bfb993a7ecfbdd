// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The worker as the keeper sees it: a process that is started, talked to, watched, and started
//! again.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use libc::SIGSYS;
use log::{error, warn};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::WaitIdStatus;

use super::mirror::Carried;
use crate::ledger::Ledger;
use crate::ledger::service::QueueLedger;
use crate::link::message::{FromWorker, ToWorker};
use crate::link::socket::Socket;
use crate::spawner::{Child, Spawner};

/// Time between two looks at whether the worker is alive.
pub const BEAT: Duration = Duration::from_millis(500);

/// Beats that a worker may leave unanswered. They are counted, and not the time, because the keeper
/// may stand still together with it.
const PATIENCE: u32 = 10;

/// Beats that a worker may take to be ready: it goes through all that is stored.
const START_PATIENCE: u32 = 600;

/// Beats that a chain may be in service. Host memory that has to be swapped in can take long.
const CHAIN_PATIENCE: u32 = 120;

/// A worker that dies sooner after it was ready counts as one that cannot live.
const SHORT_LIFE: Duration = Duration::from_millis(200);

/// Workers that cannot live which are replaced at once.
const FREE_DEATHS: u32 = 3;

/// The first pause, which doubles up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How workers are started.
pub struct Recipe {
    /// Who starts them.
    pub spawner: Spawner,
    /// The ledger's file.
    pub ledger: Rc<File>,
    /// The socket of the statistics, if there is one.
    pub stats: Option<Rc<File>>,
}

/// The worker there is, if there is one.
pub struct Worker {
    recipe: Recipe,
    ledger: Ledger,
    /// The store's memory, once there is a store.
    arena: Option<Rc<File>>,
    /// Workers that were started.
    number: u64,
    /// In a row.
    short_lives: u32,
    state: State,
}

enum State {
    Down { until: Instant },
    Up(Box<Running>),
}

struct Running {
    child: Child,
    link: Socket,
    /// It will say nothing any more, and its process ends.
    hung_up: bool,
    /// It was killed because it did not answer, which says nothing about the chains in service.
    was_silent: bool,
    outgoing: VecDeque<(ToWorker, Vec<Rc<File>>)>,
    ready: Option<Instant>,
    /// Beats since it has answered.
    unanswered: u32,
    asked: bool,
    /// The chains that are in service, and for how many beats.
    chains: Vec<(Option<u64>, u32)>,
}

impl Worker {
    /// A worker that is to be started.
    #[must_use]
    pub fn new(recipe: Recipe, ledger: Ledger) -> Self {
        let state = State::Down { until: Instant::now() };
        Self { recipe, ledger, arena: None, number: 0, short_lives: 0, state }
    }

    /// When the next worker may be started; `None` while there is one.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Down { until } => Some(*until),
            State::Up(_) => None,
        }
    }

    /// Whether there is a worker that has all that the one before had.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(&self.state, State::Up(running) if running.ready.is_some())
    }

    /// Whether there is a worker, ready or not.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// What to wait on: the link, as long as there is somebody at the other end, and the end of the
    /// process.
    #[must_use]
    pub fn watched(&self) -> Option<(Option<BorrowedFd<'_>>, BorrowedFd<'_>)> {
        match &self.state {
            State::Down { .. } => None,
            State::Up(running) => Some(((!running.hung_up).then(|| running.link.as_fd()), running.child.as_fd())),
        }
    }

    /// Whether there is something to send that the link has no room for.
    #[must_use]
    pub fn is_choked(&self) -> bool {
        matches!(&self.state, State::Up(running) if !running.outgoing.is_empty())
    }

    /// Starts a worker, which is told of the connections that there are.
    ///
    /// # Errors
    ///
    /// When the host has no process for it; it may be tried again when it is due.
    pub fn start(&mut self, lives: Vec<u64>) -> io::Result<()> {
        self.number += 1;
        match self.spawn() {
            Ok(running) => self.state = State::Up(Box::new(running)),
            Err(error) => {
                self.short_lives = self.short_lives.saturating_add(FREE_DEATHS);
                self.state = State::Down { until: Instant::now() + self.pause() };
                return Err(error);
            }
        }
        let (stats, arena) = (self.recipe.stats.is_some(), self.arena.is_some());
        let files = [Some(self.recipe.ledger.clone()), self.recipe.stats.clone(), self.arena.clone()];
        let files = files.into_iter().flatten().collect();
        self.send(ToWorker::Start { worker: self.number, lives, stats, arena }, files);
        Ok(())
    }

    fn spawn(&self) -> io::Result<Running> {
        let (link, theirs) = Socket::pair()?;
        let child = self.recipe.spawner.start(self.number, &theirs)?;
        Ok(Running {
            child,
            link,
            hung_up: false,
            was_silent: false,
            outgoing: VecDeque::new(),
            ready: None,
            unanswered: 0,
            asked: false,
            chains: self.ledger.all_queues().iter().map(|_| (None, 0)).collect(),
        })
    }

    /// Sends a message, or leaves it to be sent when there is room.
    pub fn send(&mut self, message: ToWorker, files: Vec<Rc<File>>) {
        if let State::Up(running) = &mut self.state {
            running.outgoing.push_back((message, files));
            running.flush();
        }
    }

    /// Tells the worker of a change of a guest.
    pub fn change(&mut self, guest: usize, (change, files): Carried, ticket: Option<u64>) {
        self.send(ToWorker::Change { guest, change, ticket }, files);
    }

    /// Sends what is left to be sent.
    pub fn flush(&mut self) {
        if let State::Up(running) = &mut self.state {
            running.flush();
        }
    }

    /// What the worker says next, if anything.
    pub fn receive(&mut self) -> Option<FromWorker> {
        let State::Up(running) = &mut self.state else { return None };
        let (message, files) = match running.link.receive::<FromWorker>(RecvFlags::DONTWAIT) {
            Ok(Some(received)) => received,
            Ok(None) => {
                running.hung_up = true;
                running.kill();
                return None;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => {
                error!("The worker does not make sense, and is replaced: {error}");
                running.kill();
                return None;
            }
        };
        match message {
            FromWorker::Arena => self.arena = files.into_iter().next().map(Rc::new),
            FromWorker::Ready => running.ready = Some(Instant::now()),
            FromWorker::Pong => {
                running.asked = false;
                running.unanswered = 0;
            }
            FromWorker::Done { .. } => {}
        }
        Some(message)
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        match &mut self.state {
            State::Up(running) => running.child.status().is_ok_and(|status| status.is_some()),
            State::Down { .. } => false,
        }
    }

    /// Takes note that the process has ended; how. What it has said last was received before.
    pub fn ended(&mut self) -> Option<WaitIdStatus> {
        let State::Up(running) = &mut self.state else { return None };
        let status = match running.child.status() {
            Ok(status) => status?,
            Err(error) => {
                error!("The worker's end cannot be seen: {error}");
                return None;
            }
        };
        let lived = running.ready.is_some_and(|ready| ready.elapsed() >= SHORT_LIFE);
        self.short_lives = if lived { 0 } else { self.short_lives.saturating_add(1) };
        let in_service = self.ledger.all_queues().iter().filter(|queue| queue.progress().is_some()).count();
        if running.was_silent {
            self.ledger.all_queues().iter().for_each(QueueLedger::forgive);
        }
        let pause = self.pause();
        let how = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exited with {code}"),
            (_, Some(SIGSYS)) => "was killed because it made a system call for which there is no rule".to_owned(),
            (_, Some(signal)) => format!("was killed by signal {signal}"),
            _ => "ended".to_owned(),
        };
        warn!(
            "Worker {} {how} with {in_service} chains in service; the next one starts in {} ms",
            self.number,
            pause.as_millis()
        );
        self.state = State::Down { until: Instant::now() + pause };
        Some(status)
    }

    fn pause(&self) -> Duration {
        match self.short_lives.checked_sub(FREE_DEATHS + 1) {
            None => Duration::ZERO,
            Some(doublings) => SHORTEST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE),
        }
    }

    /// Asks the worker whether it is alive, and kills one that has not answered for long, or in
    /// which a chain does not come to an end.
    pub fn beat(&mut self) {
        let State::Up(running) = &mut self.state else { return };
        let patience = if running.ready.is_some() { PATIENCE } else { START_PATIENCE };
        running.unanswered += 1;
        if running.unanswered > patience {
            error!("Worker {} does not answer, and is replaced", self.number);
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
                error!("Worker {} does not come to the end of a chain, and is replaced", self.number);
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

    /// Ends the worker, if there is one.
    pub fn kill(&mut self) {
        if let State::Up(running) = &mut self.state {
            running.kill();
        }
    }
}

impl Running {
    fn flush(&mut self) {
        while let Some((message, files)) = self.outgoing.front() {
            let files: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
            match self.link.send(message, &files, SendFlags::DONTWAIT) {
                Ok(()) => drop(self.outgoing.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It is dead, as will be seen, or has to be.
                Err(_) => {
                    self.outgoing.clear();
                    self.kill();
                }
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill();
    }
}
