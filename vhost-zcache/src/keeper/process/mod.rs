// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The worker as the keeper sees it: a process that is started, talked to, [`watched`], and started
//! again when it has ended or does not get on ([`beat`]); and another one that is to take its place
//! ([`upgrade`]).

mod beat;
mod upgrade;
mod watched;

use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libc::SIGSYS;
use log::error;
use rustix::process::Signal;

pub use self::beat::{BEAT, LONGEST_START};
use self::upgrade::Next;
pub use self::watched::{Watched, Who};
use super::mirror::Carried;
use super::report::{Obituary, Reports};
use super::running::Running;
use super::saver::Saver;
use crate::config::settings::Settings;
use crate::ledger::Ledger;
use crate::ledger::restore::RestoreLedger;
use crate::ledger::service::QueueLedger;
use crate::link::message::{FromWorker, ToWorker};
use crate::link::parcel;
use crate::spawner::{Program, Spawner};

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
    /// Where the spawner looks for a newer program.
    pub path: PathBuf,
    /// What they go by.
    pub settings: Settings,
    /// The ledger's file.
    pub ledger: Rc<File>,
    /// The socket of the statistics, if there is one.
    pub stats: Option<Rc<File>>,
    /// What tells when memory is short, if anything does.
    pub pressure: Option<Rc<File>>,
}

/// The worker there is, if there is one.
pub struct Worker {
    recipe: Recipe,
    ledger: Ledger,
    reports: Reports,
    /// The store's memory, once there is a store.
    arena: Option<Rc<File>>,
    /// Workers that were started.
    number: u64,
    /// In a row.
    short_lives: u32,
    state: State,
    next: Option<Next>,
    /// Release of the worker there is, if it is of another program than the one that is kept.
    on_trial: Option<String>,
    /// What has come of the last upgrade.
    upgraded: Option<Result<String, String>>,
    /// Processes that do nothing any more; those that were workers are reported when they have
    /// ended.
    gone: Vec<(Running, Option<Obituary>)>,
    /// Processes that have ended, until nobody waits for their files any more.
    ended: Vec<Running>,
    /// Savers that have nothing more to do, until they have ended.
    savers: Vec<Saver>,
}

enum State {
    Down { until: Instant },
    Up(Box<Running>),
}

impl Worker {
    /// A worker that is to be started.
    #[must_use]
    pub fn new(recipe: Recipe, ledger: Ledger, reports: Reports) -> Self {
        Self {
            recipe,
            ledger,
            reports,
            arena: None,
            number: 0,
            short_lives: 0,
            state: State::Down { until: Instant::now() },
            next: None,
            on_trial: None,
            upgraded: None,
            gone: Vec::new(),
            ended: Vec::new(),
            savers: Vec::new(),
        }
    }

    /// Goes on after so many workers, with the memory that they have left.
    #[must_use]
    pub fn after(self, number: u64, arena: Option<Rc<File>>) -> Self {
        Self { number, arena, ..self }
    }

    /// Workers that were started.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The store's memory, once there is a store.
    #[must_use]
    pub fn arena(&self) -> Option<&Rc<File>> {
        self.arena.as_ref()
    }

    fn running(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Up(running) => Some(running),
            State::Down { .. } => None,
        }
    }

    /// When the next worker may be started, or it is to be looked whether this one has ended.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Down { until } => Some(*until),
            State::Up(running) if self.has_to_end(running) => None,
            State::Up(running) => running.next_look(),
        }
    }

    /// Whether a worker has to end before it counts as done: of the first one it is to be known why
    /// it did not become ready, and of any one why it died while it took a guest over.
    fn has_to_end(&self, running: &Running) -> bool {
        let first = self.number == 1 && running.ready.is_none();
        first || self.ledger.all_restores().iter().any(RestoreLedger::is_under_way)
    }

    /// Whether workers die when they take a guest over, so that none is asked to any more.
    #[must_use]
    pub fn is_quarantined(&self, guest: usize) -> bool {
        self.ledger.restore(guest).is_quarantined()
    }

    /// Whether a driver may have said HELLO on a connection of a guest. (A record that a worker
    /// writes to at that moment may not be readable.)
    #[must_use]
    pub fn may_hold(&self, guest: usize, life: u64) -> bool {
        self.ledger.session(guest).read().is_none_or(|session| session.life == life && session.holds != 0)
    }

    /// A guest has nothing any more that could be taken over.
    pub fn forget(&self, guest: usize) {
        self.ledger.restore(guest).forget();
    }

    /// Whether there is none, and the next one may be started.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        matches!(&self.state, State::Down { until } if Instant::now() >= *until)
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

    /// Lets go of the files of processes that have ended, which nobody waits for any more.
    pub fn bury(&mut self) {
        self.ended.clear();
    }

    /// Starts a worker, which is told of the connections that there are.
    ///
    /// # Errors
    ///
    /// When the host has no process for it; it may be tried again when it is due.
    pub fn start(&mut self, lives: Vec<u64>) -> io::Result<()> {
        self.number += 1;
        let spawned = parcel::pack(&self.recipe.settings).and_then(|settings| match self.take_next() {
            Some(running) => Ok((settings, running)),
            None => Ok((settings, self.spawn(Program::Kept)?)),
        });
        let (settings, running) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                self.short_lives = self.short_lives.saturating_add(FREE_DEATHS);
                self.state = State::Down { until: Instant::now() + self.pause() };
                return Err(error);
            }
        };
        self.state = State::Up(Box::new(running));
        let Recipe { ledger, stats, pressure, .. } = &self.recipe;
        let files = [Some(ledger), Some(&Rc::new(settings)), stats.as_ref(), self.arena.as_ref(), pressure.as_ref()];
        let files = files.into_iter().flatten().cloned().collect();
        let (stats, arena, pressure) = (stats.is_some(), self.arena.is_some(), pressure.is_some());
        self.send(ToWorker::Start { worker: self.number, lives, stats, arena, pressure }, files);
        Ok(())
    }

    fn spawn(&self, program: Program) -> io::Result<Running> {
        Running::spawn(&self.recipe.spawner, program, self.ledger.all_queues().len())
    }

    /// Sends a message, or leaves it to be sent when there is room.
    pub fn send(&mut self, message: ToWorker, files: Vec<Rc<File>>) {
        if let Some(running) = self.running() {
            running.send(message, files);
        }
    }

    /// Lets go of a saver, whatever it does.
    pub fn let_go(&mut self, saver: Saver) {
        saver.kill();
        self.savers.push(saver);
    }

    /// What workers go by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.recipe.settings
    }

    /// Who starts processes.
    #[must_use]
    pub fn spawner(&self) -> &Spawner {
        &self.recipe.spawner
    }

    /// Has this worker, and all that follow, go by other settings, which are in a parcel as well.
    /// It says when they hold, or the next one that it is ready. Nothing is left to guests that are
    /// `new` of those who had their numbers.
    pub fn settle(&mut self, settings: Settings, parcel: File, new: &[usize]) {
        self.recipe.settings = settings;
        new.iter().for_each(|number| self.ledger.clear(*number));
        self.send(ToWorker::Settings, vec![Rc::new(parcel)]);
    }

    /// Tells the worker of a change of a guest.
    pub fn change(&mut self, guest: usize, (change, files): Carried, ticket: Option<u64>) {
        self.send(ToWorker::Change { guest, change, ticket }, files);
    }

    /// Sends what is left to be sent.
    pub fn flush(&mut self) {
        if let Some(running) = self.running() {
            running.flush();
        }
    }

    /// What the worker says next, if anything.
    pub fn receive(&mut self) -> Option<FromWorker> {
        let (message, files) = self.running()?.receive()?;
        match &message {
            FromWorker::Arena => self.arena = files.into_iter().next().map(Rc::new),
            FromWorker::Ready => {
                if let Some(running) = self.running() {
                    running.ready = Some(Instant::now());
                }
                self.trial_is_passed();
            }
            FromWorker::Pong => {
                // It was asked after all that it has to take over.
                self.ledger.all_restores().iter().for_each(RestoreLedger::absolve);
                if let Some(running) = self.running() {
                    running.asked = false;
                    running.unanswered = 0;
                }
            }
            FromWorker::Left => {
                if let Some(running) = self.running() {
                    running.left = true;
                    running.kill();
                }
            }
            FromWorker::Build(_)
            | FromWorker::Panicked(_)
            | FromWorker::Done { .. }
            | FromWorker::Settled
            | FromWorker::Run { .. } => {}
        }
        Some(message)
    }

    /// Takes note that a sentinel of the worker may have ended.
    pub fn look_at_sentinels(&mut self) {
        if let Some(running) = self.running() {
            running.look_at_sentinels();
        }
    }

    /// Whether there was a worker that does nothing any more.
    pub fn is_done(&mut self) -> bool {
        let has_to_end = matches!(&self.state, State::Up(running) if self.has_to_end(running));
        let Self { state: State::Up(running), recipe, .. } = self else { return false };
        if has_to_end { running.exit_status().is_some() } else { running.is_done(&recipe.spawner) }
    }

    /// Takes note that the worker does nothing any more; how it has ended, if it has. What it has
    /// said last was received before.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let State::Up(running) = mem::replace(&mut self.state, State::Down { until: Instant::now() }) else {
            return None;
        };
        let running = *running;
        let lived = running.has_lived(SHORT_LIFE);
        let pause = if running.left {
            Duration::ZERO
        } else {
            self.short_lives = if lived { 0 } else { self.short_lives.saturating_add(1) };
            self.pause()
        };
        self.state = State::Down { until: Instant::now() + pause };
        self.trial_is_over();
        let obituary = Obituary::of(self.number, &running, &self.ledger, &self.recipe.settings, pause);
        if running.was_silent {
            self.ledger.all_queues().iter().for_each(QueueLedger::forgive);
        }
        let status = running.exit_status();
        // Who is killed has not died of what it has found.
        let of_itself = status.is_some_and(|status| status.signal() != Some(Signal::KILL.as_raw()));
        for (number, guest) in &self.recipe.settings.guests {
            if self.ledger.restore(*number).worker_died(of_itself) {
                error!(
                    "{}: quarantined, because two workers have died when they took over what the guest had: its \
                     queues are not served, and its pages are lost, until its VMM connects anew",
                    guest.name
                );
            }
        }
        self.gone.push((running, Some(obituary)));
        self.look_at_gone();
        status
    }

    /// Takes note of processes that have ended after they did nothing any more.
    pub fn look_at_gone(&mut self) {
        for (running, obituary) in mem::take(&mut self.gone) {
            match running.exit_status() {
                Some(status) => {
                    if let Some(obituary) = obituary {
                        self.reports.file(obituary, status);
                    }
                    self.ended.push(running);
                }
                None => self.gone.push((running, obituary)),
            }
        }
    }

    fn pause(&self) -> Duration {
        match self.short_lives.checked_sub(FREE_DEATHS + 1) {
            None => Duration::ZERO,
            Some(doublings) => SHORTEST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE),
        }
    }

    /// Ends the worker, if there is one.
    pub fn kill(&mut self) {
        if let Some(running) = self.running() {
            running.kill();
        }
    }
}

/// How a process has ended, in words.
#[must_use]
pub fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (_, Some(SIGSYS)) => "was killed because it made a system call for which there is no rule".to_owned(),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    }
}
