// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The operator's socket: who connects asks for something in a line, and is answered by one when it
//! is known what has come of it. [`crate::admin::upgrade`] is the other end.
//!
//! Whoever says nothing is sent away for the next one who comes, and two cannot ask at once; so
//! what is held here is bounded.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use log::warn;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::access::Peers;
use crate::admin::upgrade::{DONE, REFUSED, UPGRADE};

/// The socket.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    peers: Peers,
    /// Somebody who has not said all of it.
    asker: Option<(UnixStream, Vec<u8>)>,
    /// Somebody who waits for an answer.
    waits: Option<UnixStream>,
    /// Sockets of those who have had theirs, as long as they are waited on.
    closed: Vec<UnixStream>,
}

impl Control {
    /// The socket, which does not block, and whose processes may be at the other end.
    #[must_use]
    pub fn new(listener: UnixListener, peers: Peers) -> Self {
        Self { listener, peers, asker: None, waits: None, closed: Vec::new() }
    }

    /// What is to be waited for: somebody who connects, and what he says.
    pub fn watched(&self) -> impl Iterator<Item = RawFd> {
        let asker = self.asker.iter().map(|(stream, _)| stream.as_raw_fd());
        [self.listener.as_raw_fd()].into_iter().chain(asker)
    }

    /// Somebody may have connected.
    pub fn knocked(&mut self) {
        match self.listener.accept() {
            Ok((stream, _)) => match self.peers.admit(&stream) {
                Ok(()) => {
                    let silent = self.asker.replace((stream, Vec::new()));
                    self.closed.extend(silent.map(|(stream, _)| stream));
                }
                Err(stranger) => warn!("Somebody was turned away at the control socket: {stranger}"),
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => warn!("A connection to the control socket cannot be accepted: {error}"),
        }
    }

    /// Whether somebody asks for an upgrade now. He waits for an answer.
    pub fn asks_for_upgrade(&mut self) -> bool {
        let Some((stream, said)) = &mut self.asker else { return false };
        let mut bytes = [0; UPGRADE.len()];
        match recv(&*stream, &mut bytes[said.len()..], RecvFlags::DONTWAIT) {
            Ok((read @ 1.., _)) => said.extend(&bytes[said.len()..][..read]),
            Err(Errno::AGAIN | Errno::INTR) => return false,
            Ok(_) | Err(_) => {
                self.closed.extend(self.asker.take().map(|(stream, _)| stream));
                return false;
            }
        }
        if said.len() < UPGRADE.len() {
            return false;
        }
        let is_known = said == UPGRADE;
        let Some((stream, _)) = self.asker.take() else { return false };
        if !is_known {
            answer(&stream, REFUSED, "it is not understood");
            self.closed.push(stream);
        } else if self.waits.is_some() {
            answer(&stream, REFUSED, "one is under way");
            self.closed.push(stream);
        } else {
            self.waits = Some(stream);
            return true;
        }
        false
    }

    /// Closes sockets that nobody waits on any more.
    pub fn close(&mut self) {
        self.closed.clear();
    }

    /// Tells who waits what has come of it: the release that serves, or why it is another one.
    pub fn answer(&mut self, outcome: &Result<String, String>) {
        let Some(stream) = self.waits.take() else { return };
        match outcome {
            Ok(release) => answer(&stream, DONE, release),
            Err(why) => answer(&stream, REFUSED, why),
        }
    }
}

/// A line has room in the socket; whoever is gone does not want to know it.
fn answer(stream: &UnixStream, what: &str, text: &str) {
    let line = format!("{what} {}\n", text.replace('\n', " "));
    let _ = send(stream, line.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}
