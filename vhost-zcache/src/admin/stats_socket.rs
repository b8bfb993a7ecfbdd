// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers each connection with one document of statistics.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use log::{debug, error};
use rustix::fs::Mode;
use rustix::process::umask;

use super::stats::Reporter;
use crate::frontend::listener::{BoundSocket, SocketError};

/// How long a reader may take until it is given up, while other readers wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The statistics socket; only its owner may connect.
pub struct StatsSocket {
    socket: BoundSocket,
    reporter: Reporter,
}

impl StatsSocket {
    /// Listens at a path.
    ///
    /// # Errors
    ///
    /// [`SocketError`], as for a guest's socket.
    pub fn bind(path: &Path, reporter: Reporter) -> Result<Self, SocketError> {
        // The mask is the whole process's: this runs before there are other threads.
        let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let socket = BoundSocket::bind(path);
        umask(before);
        let socket = socket?;
        // A reader may be gone before it is accepted, and signals are not to wait for the next.
        let listener = socket.listener();
        listener.set_nonblocking(true).map_err(|error| SocketError::Bind { path: path.into(), error })?;
        Ok(Self { socket, reporter })
    }

    fn answer(&self) {
        let written = self.socket.listener().accept().and_then(|(mut stream, _)| {
            stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
            let document = serde_json::to_vec_pretty(&self.reporter.report())?;
            stream.write_all(&document)?;
            stream.write_all(b"\n")
        });
        if let Err(error) = written {
            debug!("Statistics were not delivered: {error}");
        }
    }
}

impl MutEventSubscriber for StatsSocket {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        self.answer();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let listener = self.socket.listener().as_raw_fd();
        if let Err(error) = ops.add(Events::new_raw(listener, EventSet::IN)) {
            error!("The statistics socket cannot be watched: {error}");
        }
    }
}
