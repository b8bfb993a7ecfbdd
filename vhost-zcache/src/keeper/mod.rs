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
//! [`state`] is about a guest that moves. [`events`] is what the thread waits for.

pub mod control;
pub mod control_group;
pub mod dispatch;
pub mod door;
pub mod events;
pub mod guest;
pub mod handover;
pub mod log;
pub mod mirror;
pub mod process;
pub mod report;
pub mod residence;
pub mod running;
pub mod state;
pub mod takeover;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ::log::info;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
use signal_hook::low_level::pipe;

use self::control::Control;
use self::dispatch::Facts;
use self::door::Door;
use self::events::{Keeper, Operator, Signals};
use self::guest::Guest;
use self::handover::found::Found;
use self::handover::manager::Manager;
use self::handover::note::DaemonNote;
use self::log::Log;
use self::process::{Recipe, Worker};
use self::report::Reports;
use self::takeover::Sockets;
use crate::args::{AdminPath, Args};
use crate::error::Error;
use crate::frontend::budget::{DescriptorBudget, MemoryBudget, raise_descriptor_limit};
use crate::frontend::listener::{BoundSocket, Endpoint};
use crate::sandbox::{self, files::Reach};
use crate::spawner::Spawner;
use crate::worker::start::memory_limit;

/// Serves the guests until a signal says to end, or until no guest can come back. To be called
/// first of all: descriptors given by number must not be taken for something else. `arguments` are
/// those that `args` was made of.
///
/// # Errors
///
/// [`Error`], one line for the user.
pub fn run(args: &Args, arguments: &[OsString]) -> Result<(), Error> {
    check_unique(args)?;
    let kept = handover::manager::inherited();
    let names_of_kept = kept.keys().cloned().collect();
    let mut found = Found::look(kept)?;
    let inherited = match &found {
        Some(_) => Vec::new(),
        None => inherited(args)?,
    };
    let signals = signals().map_err(Error::Signals)?;
    raise_descriptor_limit();
    let manager = Manager::from_environment(names_of_kept).map_err(Error::Manager)?;
    sandbox::close_off()?;
    let spawner = Spawner::launch(arguments).map_err(Error::Spawner)?;

    let names = names(args);
    let books = takeover::books(found.as_ref(), &names, args.queues)?;
    let daemon = DaemonNote {
        names: names.clone(),
        queues: args.queues,
        worker: found.as_ref().map_or(0, |found| found.daemon.worker),
    };
    let ledger = Rc::new(books.file.try_clone().map_err(Error::Descriptors)?);
    let mut handover = match manager {
        Some(manager) => {
            let (daemon, ledger) = (daemon.clone(), Rc::clone(&ledger));
            Some(takeover::handover(manager, &books, daemon, found.as_ref(), ledger)?)
        }
        None => None,
    };
    let sockets = Sockets::new(args, inherited, found.as_mut())?;
    if let Some(handover) = &mut handover {
        sockets.keep(&names, handover)?;
    }
    let Sockets { endpoints, bound: doors, .. } = sockets;
    // Sockets at a path are removed when this function returns.
    let mut bound = Vec::new();
    let mut stats = None;
    if let Some(AdminPath { path, access, .. }) = &args.stats_socket {
        let socket = BoundSocket::bind(path, *access)?;
        let listener = OwnedFd::from(socket.listener().map_err(Error::Descriptors)?);
        stats = Some(Rc::new(listener.into()));
        bound.push(socket);
    }
    let mut control = None;
    if let Some(AdminPath { path, access, peers }) = &args.control_socket {
        let socket = BoundSocket::bind(path, *access)?;
        control = Some(Control::new(socket.listener().map_err(Error::Descriptors)?, peers.clone()));
        bound.push(socket);
    }
    info!("The store takes up to {} bytes", memory_limit(args));
    control_group::compare(memory_limit(args));

    let path = args.upgrade_path().map_err(Error::Worker)?;
    let recipe = Recipe { spawner, path, names: names.clone(), ledger, stats };
    let worker = Worker::new(recipe, books.ledger, Reports::new(args.crash_directory().is_some()));
    let worker = worker.after(daemon.worker, found.as_mut().and_then(|found| found.arena.take()));
    let sockets = doors.iter().chain(&bound);
    let reach = Reach::Remove(sockets.map(|socket| folder(socket.path())).collect());
    // All that stays open is open now.
    let connected = found.as_ref().map_or(0, Found::of_connections);
    let descriptors = DescriptorBudget::plan(names.len(), args.queues, connected).map_err(Error::Descriptors)?;
    let memory_budget = MemoryBudget::share(names.len(), descriptors.memory_files());
    let facts = Facts { num_queues: args.queues, memory_budget };

    let (mut guests, mut connected) = (Vec::new(), Vec::new());
    let options = args.socket_path.iter().map(|guest| &guest.options).chain(args.fd.iter().map(|guest| &guest.options));
    for (number, ((name, endpoint), options)) in names.into_iter().zip(endpoints).zip(options).enumerate() {
        let left = found.as_mut().and_then(|found| found.guest(&name));
        let door = match endpoint {
            Some(Endpoint::Listening(listener)) => Some(Door::new(listener)),
            Some(Endpoint::Connected(stream)) => {
                connected.push((number, stream));
                None
            }
            None => None,
        };
        let mut guest = Guest::new(number, Log::new(name), door, options.peers.clone());
        if let (Some(left), Some(found)) = (left, &found) {
            guest.resume(left, &found.passed, &descriptors, facts);
        }
        guests.push(guest);
    }
    drop(found);
    let is_kept = handover.is_some();
    let keeper = Keeper::new(guests, connected, worker, descriptors, facts, Operator { signals, control }, handover);
    residence::settle();
    let end = keeper.run(args.seccomp, &reach);
    if is_kept {
        // They are the next keeper's, or go with the service's folder.
        doors.into_iter().for_each(BoundSocket::leave);
    }
    end
}

/// Sockets that were given by number.
fn inherited(args: &Args) -> Result<Vec<Endpoint>, Error> {
    let numbers = args.fd.iter().map(|guest| guest.number);
    // SAFETY: the numbers were checked to differ, and no file was opened yet.
    numbers.map(|number| Ok(unsafe { Endpoint::inherit(number) }?)).collect()
}

/// Names of the guests, in the order of their numbers.
fn names(args: &Args) -> Vec<String> {
    let paths = args.socket_path.iter().map(|guest| guest.path.display().to_string());
    paths.chain(args.fd.iter().map(takeover::name_of)).collect()
}

/// The folder that a path is in.
fn folder(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).into()
}

/// Signals that are for the keeper.
fn signals() -> io::Result<Signals> {
    let (end, sender) = UnixStream::pair()?;
    pipe::register(SIGINT, sender.try_clone()?)?;
    pipe::register(SIGTERM, sender)?;
    let (upgrade, sender) = UnixStream::pair()?;
    pipe::register(SIGUSR2, sender)?;
    Ok(Signals { end, upgrade })
}

fn check_unique(args: &Args) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    let paths = args.socket_path.iter().map(|guest| guest.path.as_path());
    let admin = [&args.stats_socket, &args.control_socket].into_iter().flatten();
    for path in paths.chain(admin.map(|socket| socket.path.as_path())) {
        if !seen.insert(path) {
            return Err(Error::Twice(path.display().to_string()));
        }
    }
    let mut seen = BTreeSet::new();
    for number in args.fd.iter().map(|guest| guest.number) {
        if !seen.insert(number) {
            return Err(Error::Twice(format!("File descriptor {number}")));
        }
    }
    Ok(())
}
