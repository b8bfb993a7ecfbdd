// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The keeper: the process that VMMs talk to, and that stays when a worker dies.
//!
//! It has one thread, which never waits for a VMM nor for the worker. It listens ([`door`]), speaks
//! vhost-user with each VMM ([`guest`], [`dispatch`]), answers the configuration space from memory,
//! and keeps all that a VMM has set up ([`mirror`]) with the files that came along. It maps no
//! guest memory and has no store. What changes is carried out by the worker ([`process`]), which
//! gets everything by descriptor; when it dies the next one is told all of it again, as soon as the
//! old one does nothing any more; a [`report`] says why it did. A [`running`] process may be of
//! another program. [`state`] is about a guest that moves. [`events`] is what the thread waits for.

pub mod dispatch;
pub mod door;
pub mod events;
pub mod guest;
pub mod log;
pub mod mirror;
pub mod process;
pub mod report;
pub mod running;
pub mod state;

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

use self::dispatch::Facts;
use self::door::Door;
use self::events::{Keeper, Signals};
use self::guest::Guest;
use self::log::Log;
use self::process::{Recipe, Worker};
use self::report::Reports;
use crate::args::{Args, FdGuest, PathGuest, StatsPath};
use crate::error::Error;
use crate::frontend::budget::{DescriptorBudget, MemoryBudget, raise_descriptor_limit};
use crate::frontend::listener::{BoundSocket, Endpoint};
use crate::ledger::Ledger;
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
    let inherited = args
        .fd
        .iter()
        .map(|FdGuest { number, .. }| {
            // SAFETY: the numbers were checked to differ, and no file was opened yet.
            let endpoint = unsafe { Endpoint::inherit(*number) }?;
            Ok((format!("fd:{number}"), endpoint))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let signals = signals().map_err(Error::Signals)?;
    raise_descriptor_limit();
    sandbox::close_off()?;
    let spawner = Spawner::launch(arguments).map_err(Error::Spawner)?;

    // Sockets at a path are removed when this function returns.
    let mut bound = Vec::new();
    let mut endpoints = Vec::new();
    for PathGuest { path, access, .. } in &args.socket_path {
        let socket = BoundSocket::bind(path, access.or(args.socket_access()))?;
        let endpoint = Endpoint::Listening(socket.listener().map_err(Error::Descriptors)?);
        endpoints.push((path.display().to_string(), endpoint));
        bound.push(socket);
    }
    endpoints.extend(inherited);
    let mut stats = None;
    if let Some(StatsPath { path, access, .. }) = &args.stats_socket {
        let socket = BoundSocket::bind(path, *access)?;
        let listener = OwnedFd::from(socket.listener().map_err(Error::Descriptors)?);
        stats = Some(Rc::new(listener.into()));
        bound.push(socket);
    }
    info!("The store takes up to {} bytes", memory_limit(args));

    let (ledger, ledger_file) = Ledger::create(endpoints.len(), args.queues).map_err(Error::Descriptors)?;
    let recipe = Recipe {
        spawner,
        path: args.upgrade_path().map_err(Error::Worker)?,
        names: endpoints.iter().map(|(name, _)| name.clone()).collect(),
        ledger: Rc::new(ledger_file),
        stats,
    };
    let worker = Worker::new(recipe, ledger, Reports::new(args.crash_directory().is_some()));
    let reach = Reach::Remove(bound.iter().map(|socket| folder(socket.path())).collect());
    // All that stays open is open now.
    let descriptors = DescriptorBudget::plan(endpoints.len(), args.queues).map_err(Error::Descriptors)?;
    let memory_budget = MemoryBudget::share(endpoints.len(), descriptors.memory_files());
    let facts = Facts { num_queues: args.queues, memory_budget };

    let (mut guests, mut connected) = (Vec::new(), Vec::new());
    let options = args.socket_path.iter().map(|guest| &guest.options).chain(args.fd.iter().map(|guest| &guest.options));
    for (number, ((name, endpoint), options)) in endpoints.into_iter().zip(options).enumerate() {
        let peers = options.peers.clone();
        let log = Log::new(name);
        guests.push(match endpoint {
            Endpoint::Listening(listener) => Guest::new(number, log, Some(Door::new(listener)), peers),
            Endpoint::Connected(stream) => {
                connected.push((number, stream));
                Guest::new(number, log, None, peers)
            }
        });
    }
    Keeper::new(guests, connected, worker, descriptors, facts, signals).run(args.seccomp, &reach)
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
    for path in paths.chain(args.stats_socket.as_ref().map(|stats| stats.path.as_path())) {
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
