// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The keeper: the process that VMMs talk to, and that stays when a worker dies.
//!
//! It has one thread, which never waits for a VMM nor for the worker. It listens ([`door`]), speaks
//! vhost-user with each VMM ([`guest`], [`dispatch`]), answers the configuration space from memory,
//! and keeps all that a VMM has set up ([`mirror`]) with the files that came along. It maps no
//! guest memory and has no store. What changes is carried out by the worker ([`process`]), which
//! gets everything by descriptor; when it dies the next one is told all of it again, as soon as the
//! old one does nothing any more; a [`report`] says why it did. What another keeper needs to go on
//! is left to it by a service manager ([`handover`], [`takeover`]). A [`running`] process may be of
//! another program. The operator asks for that by a signal, or at the [`control`] socket.
//! What a worker does for the operator is one of its [`errands`]. [`state`] is about a guest that
//! moves; a [`saver`] has what guests have saved. [`events`] is what the thread waits for.

pub mod control;
pub mod control_group;
pub mod dispatch;
pub mod door;
pub mod errands;
pub mod events;
pub mod guest;
pub mod handover;
pub mod log;
pub mod mirror;
pub mod numbers;
pub mod pressure;
pub mod process;
pub mod reload;
pub mod report;
pub mod residence;
pub mod running;
pub mod saver;
pub mod state;
pub mod takeover;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ::log::{error, info};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::low_level::pipe;

use self::control::Control;
use self::dispatch::Facts;
use self::events::{Beginning, Keeper, Operator, Signals};
use self::guest::{Guest, Left};
use self::handover::found::Found;
use self::handover::manager::{Manager, handed};
use self::handover::note::DaemonNote;
use self::log::Log;
use self::numbers::Numbers;
use self::process::{Recipe, Worker};
use self::report::Reports;
use self::takeover::Sockets;
use crate::args::{Handed, HostPressure};
use crate::config::common::{Common, folder};
use crate::config::fault::Faults;
use crate::config::settings::Settings;
use crate::config::{AdminSocket, Config, GuestConfig, Place};
use crate::error::Error;
use crate::frontend::budget::{DescriptorBudget, MemoryBudget, raise_descriptor_limit};
use crate::frontend::listener::{BoundSocket, Endpoint, SocketError};
use crate::ledger::Ledger;
use crate::sandbox::{self, files::Reach};
use crate::spawner::Spawner;

/// How long operators' sockets may still be those of the worker of a daemon that has just ended.
const OF_THE_LAST_WORKER: Duration = Duration::from_secs(1);

/// Serves the guests until a signal says to end, or until no guest can come back. To be called
/// before anything is opened that stays so: descriptors given by number must not be taken for
/// something else. `read` is what came of `arguments`, and of a file if there is one.
///
/// # Errors
///
/// [`Error`], one line for the user, or one for each fault of the configuration.
pub fn run(read: Result<Config, Faults>, has_file: bool, arguments: &[OsString]) -> Result<(), Error> {
    let kept = handover::manager::inherited();
    let names_of_kept = kept.keys().cloned().collect();
    let mut found = Found::look(kept)?;
    let config = match (read, &found) {
        (Ok(config), Some(found)) => with_changes(config, &found.daemon.config),
        (Ok(config), None) => config,
        // A file may be wrong for a moment, and guests are not to lose what they have by it.
        (Err(faults), Some(found)) if has_file => {
            faults.lines().iter().for_each(|line| error!("{line}"));
            error!("Going on by the configuration that there was");
            found.daemon.config.clone()
        }
        (Err(faults), _) => return Err(Error::Config(faults)),
    };
    ::log::set_max_level(config.log_level);
    let inherited = match &found {
        Some(_) => BTreeMap::new(),
        None => inherited(&config)?,
    };
    let signals = signals(has_file).map_err(Error::Signals)?;
    raise_descriptor_limit();
    let manager = Manager::from_environment(names_of_kept).map_err(Error::Manager)?;
    sandbox::close_off()?;
    let common = Common::of(&config, has_file || config.control_socket.is_some()).map_err(Error::Spawner)?;
    let spawner = Spawner::launch(arguments, &common).map_err(Error::Spawner)?;

    let numbers = takeover::numbers(found.as_ref(), &config);
    let books = takeover::books(found.as_ref(), &numbers, config.queues)?;
    let saved = saved(found.as_ref(), &config, &numbers, &books.ledger)?;
    let worker = found.as_ref().map_or(0, |found| found.daemon.worker);
    let ledger = Rc::new(books.file.try_clone().map_err(Error::Descriptors)?);
    let mut handover = match manager {
        Some(manager) => {
            let daemon = DaemonNote { numbers: numbers.clone(), config: config.clone(), worker };
            Some(takeover::handover(manager, &books, daemon, found.as_ref(), Rc::clone(&ledger))?)
        }
        None => None,
    };
    let sockets = Sockets::new(&config, &numbers, inherited, found.as_mut())?;
    if let Some(handover) = &mut handover {
        sockets.keep(&numbers, handover);
    }
    let Sockets { mut doors, connected } = sockets;
    // Removed when this function returns.
    let mut bound = Vec::new();
    let mut stats = None;
    if let Some(AdminSocket { path, access, .. }) = &config.stats_socket {
        let socket = BoundSocket::bind_after(path, *access, OF_THE_LAST_WORKER)?;
        let listener = OwnedFd::from(socket.listener().try_clone().map_err(Error::Descriptors)?);
        stats = Some(Rc::new(listener.into()));
        bound.push(socket);
    }
    let mut control = None;
    if let Some(AdminSocket { path, access, peers }) = &config.control_socket {
        let socket = BoundSocket::bind_after(path, *access, OF_THE_LAST_WORKER)?;
        control = Some(Control::new(socket.listener(), peers.clone()));
        bound.push(socket);
    }
    info!("The store takes up to {} bytes", config.memory_limit);
    let most = control_group::room_for(config.memory_limit);
    let settings = Settings::new(&config, |name| numbers.of(name), most);
    let pressure = match config.host_pressure {
        HostPressure::GiveBack => pressure::open().map(Rc::new),
        HostPressure::Ignore => None,
    };
    let recipe = Recipe { spawner, path: common.upgrade_path, settings, ledger, stats, pressure };
    let worker_there_was = worker;
    let worker = Worker::new(recipe, books.ledger, Reports::new(config.crash_directory.is_some()));
    let worker = worker.after(worker_there_was, found.as_mut().and_then(|found| found.arena.take()));
    let folders: BTreeSet<PathBuf> = config.sockets().map(folder).collect();
    let reach = Reach::Remove(folders.into_iter().collect());
    // All that stays open is open now.
    let of_connections = found.as_ref().map_or(0, Found::of_connections);
    let (guests, room) = (config.guests.len(), numbers.room());
    let descriptors =
        DescriptorBudget::plan(guests, room, config.queues, of_connections).map_err(Error::Descriptors)?;
    let memory_budget = MemoryBudget::share(room, descriptors.memory_files());
    let facts = Facts { num_queues: config.queues, memory_budget };

    let mut guests = Vec::new();
    for GuestConfig { name, peers, .. } in &config.guests {
        let Some(number) = numbers.of(name) else { continue };
        let left = found.as_mut().and_then(|found| found.guest(name));
        let door = doors.remove(&number).map(|(door, _)| door);
        let mut guest = Guest::new(number, Log::new(name.clone()), door, peers.clone());
        if let (Some(left), Some(found)) = (left, &found) {
            guest.resume(left, &found.passed, &descriptors, facts);
        }
        guests.push((number, guest));
    }
    drop(found);
    let beginning = Beginning { config, numbers, guests, connected, saved };
    let keeper = Keeper::new(beginning, worker, descriptors, facts, Operator { signals, control }, handover);
    residence::settle();
    keeper.run(&reach)
}

/// Guests of whom something is saved, or may be. Who has gone on meanwhile may not take it back.
fn saved(
    found: Option<&Found>,
    config: &Config,
    numbers: &Numbers,
    ledger: &Ledger,
) -> Result<BTreeMap<String, Left>, Error> {
    let has_session = |number| ledger.session(number).read().is_some_and(|session| session.holds != 0);
    let (gone_on, others): (Vec<_>, Vec<_>) =
        numbers.iter().partition(|(number, _)| found.is_some() && has_session(*number));
    if let Some(before) = found.and_then(|found| found.daemon.config.saving.as_ref())
        && config.saving.as_ref().is_none_or(|saving| saving.directory != before.directory)
    {
        gone_on.iter().try_for_each(|(_, name)| before.forget(name))?;
    }
    let Some(saving) = &config.saving else { return Ok(BTreeMap::new()) };
    let mut saved = BTreeMap::new();
    for (_, name) in &gone_on {
        if let Err(fault) = saving.forget(name) {
            error!("{fault}");
            saved.insert((*name).to_owned(), Left::Outdated);
        }
    }
    match saving.look() {
        Ok(there) => {
            for name in there {
                saved.entry(name).or_insert(Left::There);
            }
        }
        // Guests are not to lose what they have, nor VMMs to wait for a keeper. Of each of the
        // others there may be a file.
        Err(fault) if found.is_some() => {
            error!("{fault}");
            saved.extend(others.iter().map(|(_, name)| ((*name).to_owned(), Left::There)));
        }
        Err(fault) => return Err(fault.into()),
    }
    Ok(saved)
}

/// What was read, with what the operator has had the keeper before go by since that had read it.
fn with_changes(read: Config, before: &Config) -> Config {
    if before.source.is_unaltered() {
        return read;
    }
    match before.source.clone().read_by(&read.source).settle() {
        Ok(config) => {
            info!("What was changed while the daemon ran is kept");
            config
        }
        // Guests are not to lose what they have.
        Err(faults) => {
            Faults::new(None, faults).lines().iter().for_each(|line| error!("{line}"));
            error!("Going on by the configuration that there was");
            before.clone()
        }
    }
}

/// Sockets that were given by number or name.
fn inherited(config: &Config) -> Result<BTreeMap<Handed, Endpoint>, Error> {
    let (mut seen, mut sockets) = (BTreeSet::new(), BTreeMap::new());
    for guest in &config.guests {
        let Place::Inherited(socket) = &guest.place else { continue };
        let number = match socket {
            Handed::Number(number) => *number,
            Handed::Name(name) => handed(name).ok_or_else(|| SocketError::NotGiven(name.clone()))?,
        };
        if !seen.insert(number) {
            return Err(SocketError::GivenTwice(number).into());
        }
        // SAFETY: no two guests have the same number, and what was opened before was closed again,
        // or has another number, as these were taken.
        sockets.insert(socket.clone(), unsafe { Endpoint::inherit(number) }?);
    }
    Ok(sockets)
}

/// Signals that are for the keeper. The one to read the configuration again ends a daemon that has
/// none to read, as it does any program.
fn signals(has_file: bool) -> io::Result<Signals> {
    let (end, sender) = UnixStream::pair()?;
    pipe::register(SIGINT, sender.try_clone()?)?;
    pipe::register(SIGTERM, sender)?;
    let (upgrade, sender) = UnixStream::pair()?;
    pipe::register(SIGUSR2, sender)?;
    let mut reload = None;
    if has_file {
        let (receiver, sender) = UnixStream::pair()?;
        pipe::register(SIGHUP, sender)?;
        reload = Some(receiver);
    }
    Ok(Signals { end, upgrade, reload })
}
