// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A state that is on its way, on a thread of its own.

use std::fs::File;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use log::Level;

use super::Moved;
use super::load::load;
use super::pipe::Pipe;
use super::save::save;
use super::stop::StopSignal;
use crate::device::session::Session;
use crate::device::session::handover::Moment;
use crate::frontend::log_limit::LogLimit;
use crate::link::message::Direction;
use crate::sandbox;
use crate::sandbox::rule::Kind;
use crate::worker::queue::interrupt;

/// Time between two interrupts of a thread that has not stopped yet.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(5);

/// How a transfer came out, or why it failed.
pub type Outcome = Result<(), String>;

/// Is told how a transfer came out.
pub type Reply = Box<dyn FnOnce(Outcome) + Send>;

/// Whose state it is.
pub struct Subject {
    /// The guest's name, for the log.
    pub name: String,
    /// Its session.
    pub session: Arc<Session>,
    /// Its queues.
    pub queues: usize,
    /// Limits what its VMM can write to the log.
    pub log: Arc<TransferLog>,
}

/// Limits what is logged of one guest's transfers, each outcome by itself.
#[derive(Debug, Default)]
pub struct TransferLog {
    moved: LogLimit,
    failed: LogLimit,
}

/// A transfer. Dropped, it is given up.
pub struct Transfer {
    stop: Arc<StopSignal>,
    awaited: Arc<AtomicBool>,
    progress: Arc<Mutex<Progress>>,
    /// Says that the thread has ended.
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

enum Progress {
    /// It is under way; who is to be told.
    UnderWay(Option<Reply>),
    Done(Outcome),
}

impl Transfer {
    /// Begins to move a guest's state to or from the VMM's end of a pipe.
    ///
    /// # Errors
    ///
    /// When it is no pipe, or the process cannot have the thread.
    pub fn start(direction: Direction, file: File, subject: Subject) -> io::Result<Self> {
        interrupt::prepare()?;
        let stop = Arc::new(StopSignal::new()?);
        let awaited = Arc::new(AtomicBool::new(false));
        let pipe = Pipe::new(file, direction, Arc::clone(&stop), Arc::clone(&awaited))?;
        let progress = Arc::new(Mutex::new(Progress::UnderWay(None)));
        let (alive, ended) = channel();
        let of_thread = Arc::clone(&progress);
        // From now on, and not from when the thread comes to it.
        let moment = subject.session.moment();
        let thread = thread::Builder::new().name("state".into()).spawn(move || {
            sandbox::confine_thread(Kind::State);
            let outcome = carry(direction, &subject, moment, pipe);
            // The guest is let go of before anybody hears that it is over.
            drop(subject);
            let before = std::mem::replace(&mut *lock(&of_thread), Progress::Done(outcome.clone()));
            if let Progress::UnderWay(Some(reply)) = before {
                reply(outcome);
            }
            drop(alive);
        })?;
        Ok(Self { stop, awaited, progress, ended, thread })
    }

    /// Tells how it came out as soon as that is known, at once if it is.
    pub fn check(&self, reply: Reply) {
        let mut progress = lock(&self.progress);
        match &mut *progress {
            Progress::UnderWay(waiting) => {
                *waiting = Some(reply);
                self.awaited.store(true, Ordering::Relaxed);
            }
            Progress::Done(outcome) => {
                let outcome = outcome.clone();
                drop(progress);
                reply(outcome);
            }
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.stop.raise();
        while self.ended.recv_timeout(INTERRUPT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            interrupt::interrupt(&self.thread);
        }
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves the state, closes the pipe, and logs how it came out.
fn carry(direction: Direction, subject: &Subject, moment: Moment, pipe: Pipe) -> Outcome {
    let Subject { name, session, queues, log } = subject;
    // A defect of ours that a stream sets off costs its guest the transfer, and nothing else.
    let moved = panic::catch_unwind(AssertUnwindSafe(|| match direction {
        Direction::Save => save(session, moment, &pipe),
        Direction::Load => load(session, moment, *queues, &pipe),
    }));
    drop(pipe);
    let verb = match direction {
        Direction::Save => "saved",
        Direction::Load => "loaded",
    };
    let why = match moved {
        Ok(Ok(Moved { pages, bytes })) => {
            log.moved.log(Level::Info, format_args!("{name}: the state is {verb}: {pages} pages of {bytes} bytes"));
            return Ok(());
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the thread has panicked".into(),
    };
    log.failed.log(Level::Warn, format_args!("{name}: the state is not {verb}: {why}"));
    Err(why)
}
