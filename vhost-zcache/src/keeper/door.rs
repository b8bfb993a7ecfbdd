// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A listening socket, at which nobody is looked for just after an accept has failed.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::log::Log;
use crate::frontend::listener::BoundSocket;
use crate::frontend::log_limit::Occasion;

/// How long to wait when a connection cannot be accepted, which mostly means that the process
/// has no file descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A listening socket, by how the daemon has come to it. Dropped, one at a path is removed.
#[derive(Debug)]
pub enum Way {
    /// The daemon has made it.
    Bound(BoundSocket),
    /// The daemon was given it.
    Inherited(Rc<UnixListener>),
}

impl From<BoundSocket> for Way {
    fn from(socket: BoundSocket) -> Self {
        Self::Bound(socket)
    }
}

impl From<UnixListener> for Way {
    fn from(listener: UnixListener) -> Self {
        Self::Inherited(Rc::new(listener))
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Door {
    way: Way,
    shut_until: Option<Instant>,
}

impl Door {
    /// An open door at a socket that does not block.
    #[must_use]
    pub fn new(way: Way) -> Self {
        Self { way, shut_until: None }
    }

    /// The socket.
    #[must_use]
    pub fn listener(&self) -> Rc<UnixListener> {
        match &self.way {
            Way::Bound(socket) => socket.listener(),
            Way::Inherited(listener) => Rc::clone(listener),
        }
    }

    /// Leaves a socket at a path where it is, for somebody who has it open.
    pub fn leave(self) {
        if let Way::Bound(socket) = self.way {
            socket.leave();
        }
    }

    /// Whether somebody who connects is to be looked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shut_until.is_none()
    }

    /// Opens the door if it was shut for long enough; when it will be, if it was not.
    pub fn opens(&mut self) -> Option<Instant> {
        self.shut_until = self.shut_until.filter(|until| *until > Instant::now());
        self.shut_until
    }

    /// Lets somebody in, if there is anybody.
    pub fn accept(&mut self, log: &Log) -> Option<UnixStream> {
        match self.listener().accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => None,
            Err(error) => {
                log.say(Occasion::AcceptFailed, format_args!("a connection cannot be accepted: {error}"));
                self.shut_until = Some(Instant::now() + ACCEPT_RETRY);
                None
            }
        }
    }
}
