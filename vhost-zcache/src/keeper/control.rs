// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The operator's socket: who connects asks for something in a line, and is answered when it
//! is known what has come of it. [`crate::admin::ask`] is the other end.
//!
//! Whoever says nothing is sent away for the next one who comes, and two cannot ask at once; so
//! what is held here is bounded.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use log::warn;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::access::Peers;
use crate::admin::ask::{DONE, LONGEST_WISH, REFUSED, Wish};

/// The socket.
#[derive(Debug)]
pub struct Control {
    listener: Rc<UnixListener>,
    peers: Peers,
    /// Somebody who has not said all of it.
    asker: Option<(UnixStream, Vec<u8>)>,
    /// Somebody who waits for an answer, and to what.
    waits: Option<(Wish, UnixStream)>,
    /// Sockets of those who have had theirs, as long as they are waited on.
    closed: Vec<UnixStream>,
}

impl Control {
    /// The socket, which does not block, and whose processes may be at the other end.
    #[must_use]
    pub fn new(listener: Rc<UnixListener>, peers: Peers) -> Self {
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

    /// What somebody asks for now, who waits for an answer.
    pub fn wish(&mut self) -> Option<Wish> {
        let (stream, said) = self.asker.as_mut()?;
        let mut bytes = [0; LONGEST_WISH];
        match recv(&*stream, &mut bytes[said.len()..], RecvFlags::DONTWAIT) {
            Ok((read @ 1.., _)) => said.extend(&bytes[said.len()..][..read]),
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Ok(_) | Err(_) => {
                self.closed.extend(self.asker.take().map(|(stream, _)| stream));
                return None;
            }
        }
        if said.len() < LONGEST_WISH && !said.ends_with(b"\n") {
            return None;
        }
        let wish = Wish::of(said);
        let (stream, _) = self.asker.take()?;
        let why = match wish {
            None => "it is not understood",
            Some(_) if self.waits.is_some() => "one is under way",
            Some(wish) => {
                self.waits = Some((wish, stream));
                return Some(wish);
            }
        };
        answer(&stream, REFUSED, why);
        self.closed.push(stream);
        None
    }

    /// Closes sockets that nobody waits on any more.
    pub fn close(&mut self) {
        self.closed.clear();
    }

    /// Tells who waits for it what has come of an upgrade: the release that serves, or why it is
    /// another one.
    pub fn answer_upgrade(&mut self, outcome: &Result<String, String>) {
        self.answer(|wish| wish == Wish::Upgrade, outcome);
    }

    /// Tells who waits for it what has come of another configuration, or why there is none.
    pub fn answer_reload(&mut self, outcome: &Result<String, String>) {
        self.answer(|wish| matches!(wish, Wish::Reload { .. }), outcome);
    }

    fn answer(&mut self, is_it: impl Fn(Wish) -> bool, outcome: &Result<String, String>) {
        let Some((_, stream)) = self.waits.take_if(|(wish, _)| is_it(*wish)) else { return };
        match outcome {
            Ok(what) => answer(&stream, DONE, what),
            Err(why) => answer(&stream, REFUSED, why),
        }
        // It may be waited on still, if it was answered at once.
        self.closed.push(stream);
    }
}

/// An answer has room in the socket; whoever is gone does not want to know it.
fn answer(stream: &UnixStream, what: &str, text: &str) {
    let text = format!("{what} {text}\n");
    let _ = send(stream, text.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}
