// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Does what the keeper says, one thing after the other.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::{mem, process, thread};

use log::{debug, info};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::set_name;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use zcache_store::Store;

use super::device::{ChangeError, Device};
use super::guest::GuestPlace;
use super::places::Places;
use super::queue::reactors::Reactors;
use super::start::{self, Started};
use super::{errand, last_words, pressure, sentinel};
use crate::admin::stats::Reporter;
use crate::admin::stats_socket::StatsServer;
use crate::config::common::Common;
use crate::config::settings::Settings;
use crate::crash::{self, Place};
use crate::device::memory_fault;
use crate::device_state::transfer::Outcome;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::link::message::{Build, Change, Errand, FromWorker, ToWorker};
use crate::link::parcel;
use crate::link::socket::{Socket, inherit};
use crate::sandbox;
use crate::sandbox::rule::Kind;

/// Serves as a worker until the keeper ends.
///
/// # Errors
///
/// [`Error`] when it cannot do what it is for.
pub fn run(common: &Common, link: i32, sentinels: &[i32]) -> Result<(), Error> {
    // It was executed by a name that says nothing. This one is for whoever looks at processes.
    let _ = set_name(c"zcache-worker");
    // Without a keeper there is nobody who knows what VMMs want.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| Error::Signals(error.into()))?;
    // A signal for all of the daemon's processes means the keeper, who ends this one.
    for signal in [SIGHUP, SIGINT, SIGTERM, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map_err(Error::Signals)?;
    }
    memory_fault::install().map_err(Error::Signals)?;
    let link = Socket::inherit(link).map_err(Error::Link)?;
    let sentinels = sentinels.iter().map(|number| inherit(*number)).collect::<io::Result<Vec<_>>>();
    let sentinels = sentinels.map_err(Error::Link)?;
    if common.crash_directory.is_some() {
        last_words::prepare();
    }
    // All that it needs comes over the link. What the one before has left is no less strange than
    // what guests say.
    sandbox::confine_worker(common.seccomp)?;
    for file in sentinels {
        // Without them the keeper waits for longer when this process is killed.
        if let Err(error) = sentinel::post(file) {
            debug!("There is no sentinel: {error}");
        }
    }
    last_words::install(&link).map_err(Error::Link)?;
    link.send(&FromWorker::Build(Build::this()), &[], SendFlags::empty()).map_err(Error::Link)?;
    let Some((first, files)) = link.receive::<ToWorker>(RecvFlags::empty()).map_err(Error::Link)? else {
        return Ok(());
    };
    let ToWorker::Start { worker, lives, stats, arena, pressure } = first else {
        return Err(Error::Link(io::ErrorKind::InvalidData.into()));
    };
    crash::arm(worker);
    let mut files = files.into_iter();
    let missing = || Error::Link(io::ErrorKind::InvalidData.into());
    let ledger_file = files.next().ok_or_else(missing)?;
    // By this the next keeper sees that this process does nothing any more. Closed, it would be
    // unlocked.
    fcntl_lock(&ledger_file, FlockOperation::NonBlockingLockShared).map_err(|error| Error::Link(error.into()))?;
    let ledger = Ledger::open(&ledger_file).map_err(Error::Link)?;
    mem::forget(ledger_file);
    let settings: Settings = parcel::unpack(files.next()).map_err(Error::Link)?;
    log::set_max_level(settings.log_level);
    let stats = if stats { Some(UnixListener::from(OwnedFd::from(files.next().ok_or_else(missing)?))) } else { None };
    let arena = if arena { Some(files.next().ok_or_else(missing)?) } else { None };
    let pressure = if pressure { Some(files.next().ok_or_else(missing)?) } else { None };
    let is_first = arena.is_none();

    let Started { store, guests, reactors } = start::start(&settings, ledger, &lives, arena)?;
    let guests = Places::new(guests);
    // However this process ends, what is there is the next one's. Dropped, it would be gone.
    mem::forget((store.clone(), guests.clone()));
    let control =
        Control { ledger, link, devices: BTreeMap::new(), guests, store: store.clone(), reactors, settling: None };
    if is_first {
        crash::point(Place::ArenaMade);
        let file = store.memory_file().map_err(Error::Descriptors)?;
        control.say(&FromWorker::Arena, &[file.as_fd()])?;
        crash::point(Place::ArenaGiven);
    }
    if let Some(file) = pressure {
        pressure::start(file, store.clone()).map_err(Error::Thread)?;
    }
    let reporter = Reporter::new(ledger, worker, store, control.guests.clone());
    if let Some(listener) = stats {
        let server = StatsServer::new(listener, reporter, settings.stats_peers.clone());
        thread::Builder::new()
            .name("statistics".into())
            .spawn(|| {
                sandbox::confine_thread(Kind::Statistics);
                server.run();
            })
            .map_err(Error::Thread)?;
    }
    control.say(&FromWorker::Ready, &[])?;
    crash::point(Place::Ready);
    if !is_first {
        info!("Worker {worker} goes on");
    }
    control.run()
}

struct Control {
    ledger: Ledger,
    link: Socket,
    // Dropped before the guests they belong to.
    devices: BTreeMap<usize, Device>,
    guests: Places,
    store: Store,
    reactors: Arc<Reactors>,
    /// Has the limits hold that were changed last.
    settling: Option<JoinHandle<()>>,
}

impl Control {
    fn run(mut self) -> Result<(), Error> {
        while let Some((message, files)) = self.link.receive(RecvFlags::empty()).map_err(Error::Link)? {
            match message {
                ToWorker::Start { .. } => return Err(Error::Link(io::ErrorKind::InvalidData.into())),
                ToWorker::Ping => {
                    self.reactors.relieve();
                    self.say(&FromWorker::Pong, &[])?;
                }
                ToWorker::Errand { ticket, errand } => self.run_errand(ticket, errand)?,
                ToWorker::Settings => self.settle(&parcel::unpack(files).map_err(Error::Link)?)?,
                ToWorker::Leave => match self.leave()? {},
                ToWorker::Change { guest, change: Change::CheckState, ticket } => self.check_state(guest, ticket)?,
                ToWorker::Change { guest, change, ticket } => {
                    // What nobody waits for was asked of the worker before.
                    let again = ticket.is_none() || matches!(change, Change::Connect(_));
                    let restore = again.then(|| self.ledger.all_restores().get(guest)).flatten();
                    restore.inspect(|restore| restore.begin());
                    let outcome = self.change(guest, change, files).map_err(|error| error.to_string());
                    crash::point(Place::Changed);
                    restore.inspect(|restore| restore.end());
                    if let Some(ticket) = ticket {
                        self.say(&FromWorker::Done { guest, ticket, outcome }, &[])?;
                        crash::point(Place::Acknowledged);
                    } else if let Err(error) = outcome {
                        debug!("What the worker before had set up cannot be set up again: {error}");
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes by other settings, and says when limits hold that are lower now. Pages that have to go
    /// may be many, and guests are not to wait for it.
    fn settle(&mut self, settings: &Settings) -> Result<(), Error> {
        log::set_max_level(settings.log_level);
        self.devices.retain(|number, _| settings.guests.contains_key(number));
        self.guests.retain(|number| settings.guests.contains_key(&number));
        let mut all = Vec::new();
        for (number, guest) in &settings.guests {
            let policy = start::policy(guest, |bytes| self.store.reserve(bytes));
            let place = match self.guests.get(*number) {
                Some(place) => {
                    place.set_policy(policy);
                    place
                }
                None => {
                    let (store, reactors) = (self.store.clone(), Arc::clone(&self.reactors));
                    let place = GuestPlace::new(guest.name.clone(), *number, store, self.ledger, policy, reactors);
                    let place = Arc::new(place);
                    self.guests.insert(*number, Arc::clone(&place));
                    place
                }
            };
            all.push(place);
        }
        let (store, limit, before) = (self.store.clone(), settings.memory_limit, self.settling.take());
        let link = self.link.try_clone().map_err(Error::Link)?;
        let shrink = move || {
            sandbox::confine_thread(Kind::Store);
            // The last settings are to be the last.
            let _ = before.map(JoinHandle::join);
            store.set_memory_limit(limit);
            all.iter().for_each(|place| place.shrink());
            // Without a keeper this process ends.
            let _ = link.send(&FromWorker::Settled, &[], SendFlags::empty());
        };
        let thread = thread::Builder::new().name("limits".into()).spawn(shrink).map_err(Error::Thread)?;
        self.settling = Some(thread);
        Ok(())
    }

    /// Does something besides all else, and says what has come of it.
    fn run_errand(&self, ticket: u64, errand: Errand) -> Result<(), Error> {
        let (store, guests) = (self.store.clone(), self.guests.clone());
        let link = self.link.try_clone().map_err(Error::Link)?;
        let run = move || {
            sandbox::confine_thread(Kind::Store);
            let outcome = errand::run(&errand, &store, &guests);
            // Without a keeper this process ends.
            let _ = link.send(&FromWorker::Run { ticket, outcome }, &[], SendFlags::empty());
        };
        thread::Builder::new().name("errand".into()).spawn(run).map_err(Error::Thread)?;
        Ok(())
    }

    /// Makes room for the next worker: each ring stops behind the chain that it is in.
    fn leave(&mut self) -> Result<Infallible, Error> {
        self.devices.clear();
        self.say(&FromWorker::Left, &[])?;
        // Nothing is dropped, as it is all the next worker's now.
        process::exit(0)
    }

    /// Says how the transfer of a guest's state came out, now or later.
    fn check_state(&self, guest: usize, ticket: Option<u64>) -> Result<(), Error> {
        let (Some(ticket), Some(device)) = (ticket, self.devices.get(&guest)) else {
            return Ok(());
        };
        let done = move |outcome: Outcome| FromWorker::Done { guest, ticket, outcome: outcome.map(|()| 0) };
        match self.link.try_clone() {
            Ok(link) => device.check_state(Box::new(move |outcome| {
                // Without a keeper this process ends.
                let _ = link.send(&done(outcome), &[], SendFlags::empty());
            })),
            Err(error) => self.say(&done(Err(error.to_string())), &[])?,
        }
        Ok(())
    }

    fn change(&mut self, number: usize, change: Change, files: Vec<File>) -> Result<u16, ChangeError> {
        let guest = self.guests.get(number).ok_or(ChangeError::Nonsense)?;
        match change {
            Change::Connect(life) => {
                let connection = guest.connect(life);
                self.devices.insert(number, Device::new(guest, connection));
                crash::point(Place::Connected);
                Ok(0)
            }
            Change::Disconnect => {
                self.devices.remove(&number);
                guest.disconnect();
                crash::point(Place::Dropped);
                Ok(0)
            }
            change => self.devices.get_mut(&number).ok_or(ChangeError::Nonsense)?.change(change, files),
        }
    }

    fn say(&self, message: &FromWorker, files: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.link.send(message, files, SendFlags::empty()).map_err(Error::Link)
    }
}
