// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the spawner does: it starts workers, until the keeper ends.

use std::env;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::set_name;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::sibling::{Program, start};
use super::{Answer, Request};
use crate::args::Args;
use crate::error::Error;
use crate::link::socket::Socket;
use crate::sandbox;

/// Starts workers until the keeper ends.
///
/// # Errors
///
/// [`Error`] when it cannot do what it is for.
pub fn run(args: &Args, link: i32) -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| Error::Signals(error.into()))?;
    // A signal for all of the daemon's processes means the keeper.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map_err(Error::Signals)?;
    }
    // Names are for whoever looks at the host's processes.
    let _ = set_name(c"zcache-spawner");
    let link = Socket::inherit(link).map_err(Error::Link)?;
    let arguments = arguments_of_workers(env::args_os().collect());
    sandbox::confine_spawner(args.seccomp)?;

    while let Some((Request { worker }, files)) = link.receive(RecvFlags::empty()).map_err(Error::Link)? {
        let theirs = files.into_iter().next().ok_or_else(|| Error::Link(io::ErrorKind::InvalidData.into()))?;
        let mut program = Program::new(&arguments);
        program.give(theirs.as_raw_fd());
        let started = start(&program);
        drop(theirs);
        let (error, files) = match &started {
            Ok(child) => (None, vec![child.as_fd()]),
            Err(error) => (error.raw_os_error(), Vec::new()),
        };
        link.send(&Answer { worker, error }, &files, SendFlags::empty()).map_err(Error::Link)?;
    }
    Ok(())
}

/// The spawner's arguments, less the last two, which make it one.
fn arguments_of_workers(mut own: Vec<OsString>) -> Vec<CString> {
    own.truncate(own.len().saturating_sub(2));
    // Arguments of a process have no zeros.
    own.into_iter().filter_map(|argument| CString::new(argument.into_vec()).ok()).collect()
}
