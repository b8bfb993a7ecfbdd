// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process that reads a configuration file again, for the keeper, or what the operator wants to
//! be another of it; and makes the sockets of guests that come. It reads the file that the command
//! line names, and can make sockets nowhere but in the folders that had one at the daemon's start.
//!
//! Looking a user up may take as long as it likes, which neither the keeper nor the spawner can
//! wait for.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::set_name;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};

use super::common::{Common, folder};
use super::fault::Faults;
use super::source::Source;
use super::{Config, Place, change, load};
use crate::admin::wish::Alteration;
use crate::args::Args;
use crate::error::Error;
use crate::frontend::listener::{BoundSocket, SocketError};
use crate::link::parcel;
use crate::link::socket::Socket;
use crate::sandbox;

/// What the keeper tells the reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToReader {
    /// What it wants: the [`Order`] in the parcel that comes along.
    Order,
    /// It has taken everything.
    Taken,
}

/// What the keeper wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// By what it goes now.
    pub current: Config,
    /// What is to be another; otherwise the file is to be read.
    pub alteration: Option<Alteration>,
}

/// What the reader tells the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromReader {
    /// The socket of a guest that comes, and its lock.
    Socket {
        /// Which guest's.
        guest: String,
    },
    /// The configuration, in the parcel that comes along. It is the last.
    Config,
    /// Why there is none, in lines.
    Refused(Vec<String>),
}

/// Reads the file, and has what it says taken or not.
///
/// # Errors
///
/// [`Error`] when it cannot do what it is for.
pub fn run(args: &Args, common: &Common, link: i32) -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| Error::Signals(error.into()))?;
    // A signal for all of the daemon's processes means the keeper.
    for signal in [SIGHUP, SIGINT, SIGTERM, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map_err(Error::Signals)?;
    }
    let _ = set_name(c"zcache-reader");
    let link = Socket::inherit(link).map_err(Error::Link)?;
    sandbox::confine_reader(common)?;
    let Some((ToReader::Order, files)) = link.receive(RecvFlags::empty()).map_err(Error::Link)? else {
        return Ok(());
    };
    let order: Order = parcel::unpack(files).map_err(Error::Link)?;
    let say = |message: &FromReader, files: &[_]| link.send(message, files, SendFlags::empty()).map_err(Error::Link);
    let (config, sockets) = match read(args, common, order) {
        Ok(read) => read,
        Err(lines) => return say(&FromReader::Refused(lines), &[]),
    };
    for (guest, socket) in &sockets {
        say(&FromReader::Socket { guest: guest.clone() }, &socket.files())?;
    }
    say(&FromReader::Config, &[parcel::pack(&config).map_err(Error::Link)?.as_fd()])?;
    if let Ok(Some((ToReader::Taken, _))) = link.receive(RecvFlags::empty()) {
        sockets.into_iter().for_each(|(_, socket)| socket.leave());
    }
    // If it was not, they are removed.
    Ok(())
}

type Read = (Config, Vec<(String, BoundSocket)>);

/// Reads the file, or what is to be another, and makes the sockets that are missing.
fn read(args: &Args, common: &Common, order: Order) -> Result<Read, Vec<String>> {
    let Order { current, alteration } = order;
    let config = match alteration {
        None => load(args).map(|(config, _)| config),
        Some(alteration) => altered(args, current.source.clone(), &alteration),
    };
    let config = config.map_err(|faults| faults.lines())?;
    let plan = change::between(&current, &config)?;
    let mut sockets = Vec::new();
    for guest in plan.added {
        let Place::Path { path, access } = &guest.place else { continue };
        if !common.socket_folders.contains(&folder(path)) {
            return Err(vec![format!(
                "guest.{}.socket: {} is in no folder that had a socket of the daemon when it started, and there it \
                 can make none",
                guest.name,
                path.display()
            )]);
        }
        let socket = BoundSocket::bind(path, *access);
        let socket = socket.map_err(|error| {
            let hint = if matches!(error, SocketError::Access { .. }) {
                " (while it runs the daemon can give a socket to groups of its own user, and to nobody else)"
            } else {
                ""
            };
            vec![format!("guest.{}.socket: {error}{hint}", guest.name)]
        })?;
        sockets.push((guest.name, socket));
    }
    Ok((config, sockets))
}

/// What it becomes.
fn altered(args: &Args, mut source: Source, wanted: &Alteration) -> Result<Config, Faults> {
    let altered = source.alter(wanted).and_then(|()| source.settle());
    altered.map_err(|faults| Faults::new(args.config.as_deref(), faults))
}
