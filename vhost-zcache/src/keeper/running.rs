// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A worker's process, from its start to its end.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::iter;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::error;
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::link::message::{FromWorker, ToWorker};
use crate::link::socket::Socket;
use crate::spawner::child::Child;
use crate::spawner::{Program, Spawner};
use crate::worker::sentinel::SENTINELS;

/// Time between the first looks at whether a process that is ending has come so far, and between
/// the last.
const FIRST_LOOKS: Duration = Duration::from_millis(1);
const LAST_LOOKS: Duration = Duration::from_millis(16);

/// Looks that are taken. Then the process's end is waited for.
const MOST_LOOKS: u32 = 256;

/// Panics that are kept of a process.
const MOST_PANICS: usize = 4;

/// What the keeper waits for of a worker's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It says something, or takes what it is told.
    Link,
    /// It is ending.
    Sentinel,
    /// It has ended.
    Exit,
}

/// A process.
pub struct Running {
    child: Child,
    link: Socket,
    /// What they hold the other ends of, and whether their ends were seen.
    sentinels: Vec<(OwnedFd, bool)>,
    /// It will say nothing any more, and its process ends.
    hung_up: bool,
    outgoing: VecDeque<(ToWorker, Vec<Rc<File>>)>,
    /// Looks that were taken since it was killed.
    looks: Option<(u32, Instant)>,
    /// Since when it is.
    pub started: Instant,
    /// Since when it serves.
    pub ready: Option<Instant>,
    /// It was killed because it did not answer, which says nothing about the chains in service.
    pub was_silent: bool,
    /// It was told to make room for another one.
    leaves: bool,
    /// It has made room.
    pub left: bool,
    /// Beats since it has answered.
    pub unanswered: u32,
    /// It was asked whether it is alive.
    pub asked: bool,
    /// The chains that are in service, and for how many beats.
    pub chains: Vec<(Option<u64>, u32)>,
    /// What threads of it said when they panicked.
    pub panics: Vec<String>,
}

impl Running {
    /// Starts a process, with that many queues to look after.
    ///
    /// # Errors
    ///
    /// When the host does not give what it takes.
    pub fn spawn(spawner: &Spawner, program: Program, queues: usize) -> io::Result<Self> {
        let (link, theirs) = Socket::pair()?;
        let mut sentinels = Vec::new();
        let mut held = Vec::new();
        for _ in 0..SENTINELS {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            sentinels.push((reader, false));
            held.push(writer);
        }
        let files: Vec<BorrowedFd<'_>> = iter::once(theirs.as_fd()).chain(held.iter().map(AsFd::as_fd)).collect();
        let child = spawner.start(program, &files)?;
        Ok(Self {
            child,
            link,
            sentinels,
            hung_up: false,
            outgoing: VecDeque::new(),
            looks: None,
            started: Instant::now(),
            ready: None,
            was_silent: false,
            leaves: false,
            left: false,
            unanswered: 0,
            asked: false,
            chains: vec![(None, 0); queues],
            panics: Vec::new(),
        })
    }

    /// What to wait for, and whether for room on it as well.
    pub fn watched(&self) -> impl Iterator<Item = (RawFd, Sign, bool)> {
        let link = (!self.hung_up).then(|| (self.link.as_fd().as_raw_fd(), Sign::Link, !self.outgoing.is_empty()));
        let sentinels = self.sentinels.iter().filter(|(_, seen)| !seen);
        let sentinels = sentinels.map(|(file, _)| (file.as_raw_fd(), Sign::Sentinel, false));
        link.into_iter().chain(sentinels).chain([(self.child.as_fd().as_raw_fd(), Sign::Exit, false)])
    }

    /// Sends a message, or leaves it to be sent when there is room. What it was not told when it
    /// was told to leave is for the next one.
    pub fn send(&mut self, message: ToWorker, files: Vec<Rc<File>>) {
        if !self.leaves {
            self.leaves = message == ToWorker::Leave;
            self.outgoing.push_back((message, files));
            self.flush();
        }
    }

    /// Sends what is left to be sent.
    pub fn flush(&mut self) {
        while let Some((message, files)) = self.outgoing.front() {
            let files: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
            match self.link.send(message, &files, SendFlags::DONTWAIT) {
                Ok(()) => drop(self.outgoing.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It is dead, as will be seen, or has to be.
                Err(_) => {
                    self.outgoing.clear();
                    self.kill();
                }
            }
        }
    }

    /// What it says next, if anything. Who makes no sense is killed.
    pub fn receive(&mut self) -> Option<(FromWorker, Vec<File>)> {
        loop {
            match self.link.receive::<FromWorker>(RecvFlags::DONTWAIT) {
                Ok(Some((FromWorker::Panicked(text), _))) => {
                    if self.panics.len() < MOST_PANICS {
                        self.panics.push(text);
                    }
                }
                Ok(Some(received)) => return Some(received),
                Ok(None) => {
                    self.hung_up = true;
                    self.kill();
                    return None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => {
                    error!("A worker does not make sense, and is killed: {error}");
                    self.kill();
                    return None;
                }
            }
        }
    }

    /// Ends it.
    pub fn kill(&mut self) {
        self.child.kill();
        self.seems_to_end();
    }

    /// Takes note that a sentinel's file was closed, or that it was not.
    pub fn look_at_sentinels(&mut self) {
        let mut ends = false;
        for (file, seen) in &mut self.sentinels {
            // Nothing is ever written, so all there can be to read is the end.
            *seen = *seen || matches!(rustix::io::read(&*file, &mut [0; 1]), Ok(0));
            ends |= *seen;
        }
        if ends {
            self.seems_to_end();
        }
    }

    fn seems_to_end(&mut self) {
        self.looks.get_or_insert_with(|| (0, Instant::now()));
    }

    /// When to look whether it does nothing any more, if it seems to end.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        self.looks.filter(|(looks, _)| *looks < MOST_LOOKS).map(|(_, due)| due)
    }

    /// Whether it does nothing any more. What it has said can still be received.
    pub fn is_done(&mut self, spawner: &Spawner) -> bool {
        if let Some((looks, due)) = &mut self.looks
            && *looks < MOST_LOOKS
            && Instant::now() >= *due
        {
            if spawner.is_exiting(&self.child) {
                return true;
            }
            *looks += 1;
            *due = Instant::now() + if *looks < 64 { FIRST_LOOKS } else { LAST_LOOKS };
        }
        self.exit_status().is_some()
    }

    /// Whether it was ready for so long.
    #[must_use]
    pub fn has_lived(&self, long: Duration) -> bool {
        self.ready.is_some_and(|ready| ready.elapsed() >= long)
    }

    /// How the process has ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.status().unwrap_or_else(|error| {
            error!("The worker's end cannot be seen: {error}");
            None
        })
    }
}
