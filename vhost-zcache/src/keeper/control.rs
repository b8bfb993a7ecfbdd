// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The operator's socket: who connects asks for something in a line, and is answered when it
//! is known what has come of it. [`crate::admin::ask`] is the other end.
//!
//! Whoever has not said all of it is sent away when too many come after, and two cannot wait for
//! an answer at once; so what is held here is bounded.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use log::warn;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::access::Peers;
use crate::admin::ask::{DONE, REFUSED};
use crate::admin::wish::{LONGEST_WISH, Wish};
use crate::frontend::budget::MAX_ASKERS;

/// Bytes that are read at a time.
const PIECE: usize = 4 << 10;

/// The socket.
#[derive(Debug)]
pub struct Control {
    listener: Rc<UnixListener>,
    peers: Peers,
    /// Those who have not said all of it, in the order in which they came.
    askers: VecDeque<Asker>,
    /// Somebody who waits for an answer, and to what.
    waits: Option<(Wish, UnixStream)>,
    /// Sockets of those who have had theirs, as long as they are waited on.
    closed: Vec<UnixStream>,
}

/// Somebody who has not said all of it.
#[derive(Debug)]
struct Asker {
    stream: UnixStream,
    said: Vec<u8>,
}

/// How far somebody is who asks.
enum Heard {
    /// There is more to come.
    Part,
    /// It is a line, or cannot be one any more.
    All,
    /// Nothing will be.
    Gone,
}

impl Control {
    /// The socket, which does not block, and whose processes may be at the other end.
    #[must_use]
    pub fn new(listener: Rc<UnixListener>, peers: Peers) -> Self {
        Self { listener, peers, askers: VecDeque::new(), waits: None, closed: Vec::new() }
    }

    /// What is to be waited for: somebody who connects, and what they say who have.
    pub fn watched(&self) -> impl Iterator<Item = RawFd> {
        let askers = self.askers.iter().map(|asker| asker.stream.as_raw_fd());
        [self.listener.as_raw_fd()].into_iter().chain(askers)
    }

    /// Somebody may have connected.
    pub fn knocked(&mut self) {
        match self.listener.accept() {
            Ok((stream, _)) => match self.peers.admit(&stream) {
                Ok(()) => {
                    if self.askers.len() == MAX_ASKERS {
                        self.closed.extend(self.askers.pop_front().map(|silent| silent.stream));
                    }
                    self.askers.push_back(Asker { stream, said: Vec::new() });
                }
                Err(stranger) => warn!("Somebody was turned away at the control socket: {stranger}"),
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => warn!("A connection to the control socket cannot be accepted: {error}"),
        }
    }

    /// What somebody asks for now, who waits for an answer. To be asked until there is nothing.
    pub fn wish(&mut self) -> Option<Wish> {
        let mut at = 0;
        while let Some(asker) = self.askers.get_mut(at) {
            let heard = asker.hear();
            if matches!(heard, Heard::Part) {
                at += 1;
                continue;
            }
            let Asker { stream, said } = self.askers.remove(at)?;
            let why = match Wish::of(&said) {
                _ if matches!(heard, Heard::Gone) => {
                    self.closed.push(stream);
                    continue;
                }
                None if said.len() > LONGEST_WISH => "it is too long",
                None => "it is not understood",
                Some(_) if self.waits.is_some() => "one is under way",
                Some(wish) => {
                    self.waits = Some((wish.clone(), stream));
                    return Some(wish);
                }
            };
            answer(&stream, REFUSED, why);
            self.closed.push(stream);
        }
        None
    }

    /// Closes sockets that nobody waits on any more.
    pub fn close(&mut self) {
        self.closed.clear();
    }

    /// Tells who waits for it what has come of an upgrade: the release that serves, or why it is
    /// another one.
    pub fn answer_upgrade(&mut self, outcome: &Result<String, String>) {
        self.answer(|wish| *wish == Wish::Upgrade, outcome);
    }

    /// Tells who waits for it what has come of another configuration, or why there is none.
    pub fn answer_reload(&mut self, outcome: &Result<String, String>) {
        let is_it = |wish: &Wish| {
            matches!(wish, Wish::Reload { .. } | Wish::Alter(_) | Wish::Freeze { .. } | Wish::Thaw { .. })
        };
        self.answer(is_it, outcome);
    }

    /// Tells who waits for it what has come of something that a worker does, or why nothing has.
    pub fn answer_work(&mut self, outcome: &Result<String, String>) {
        self.answer(|wish| matches!(wish, Wish::GiveBack { .. } | Wish::Flush { .. }), outcome);
    }

    fn answer(&mut self, is_it: impl Fn(&Wish) -> bool, outcome: &Result<String, String>) {
        let Some((_, stream)) = self.waits.take_if(|(wish, _)| is_it(wish)) else { return };
        match outcome {
            Ok(what) => answer(&stream, DONE, what),
            Err(why) => answer(&stream, REFUSED, why),
        }
        // It may be waited on still, if it was answered at once.
        self.closed.push(stream);
    }
}

impl Asker {
    /// Takes what has come.
    fn hear(&mut self) -> Heard {
        let mut piece = [0; PIECE];
        loop {
            match recv(&self.stream, &mut piece, RecvFlags::DONTWAIT) {
                Ok((read @ 1.., _)) => self.said.extend(&piece[..read]),
                Err(Errno::AGAIN) => return Heard::Part,
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return Heard::Gone,
            }
            if self.said.ends_with(b"\n") || self.said.len() > LONGEST_WISH {
                return Heard::All;
            }
        }
    }
}

/// An answer has room in the socket; whoever is gone does not want to know it.
fn answer(stream: &UnixStream, what: &str, text: &str) {
    let text = format!("{what} {text}\n");
    let _ = send(stream, text.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}
