// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a reactor is told, whether it works or sleeps.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::service::Service;

/// A reactor's mailbox.
pub struct Mailbox {
    letters: Mutex<Letters>,
    /// For a reactor that works: there is something to look at.
    flag: AtomicBool,
    /// For one that sleeps.
    event: OwnedFd,
    asleep: AtomicBool,
    rings: AtomicUsize,
}

/// What is in it.
#[derive(Default)]
pub struct Letters {
    /// Rings to be served.
    pub rings: Vec<Service>,
    /// The reactor is to end.
    pub end: bool,
}

impl Mailbox {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            letters: Mutex::default(),
            flag: AtomicBool::new(false),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            asleep: AtomicBool::new(false),
            rings: AtomicUsize::new(0),
        })
    }

    /// Gives the reactor a ring.
    pub fn send(&self, ring: Service) {
        self.rings.fetch_add(1, Ordering::Relaxed);
        self.letters().rings.push(ring);
        self.wake();
    }

    /// Tells the reactor to end, which drops its rings.
    pub fn end(&self) {
        self.letters().end = true;
        self.wake();
    }

    /// Has the reactor look at its mail, and at which of its rings are to be given back.
    pub fn wake(&self) {
        // Before the flag, by which the reactor takes the event back: an event that came after
        // would stay, and wake the reactor again and again. The counter is far from full, so that
        // adding 1 neither fails nor blocks.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        self.flag.store(true, Ordering::Release);
    }

    /// For the reactor: what has come, if it was woken since the last look.
    pub fn take(&self) -> Option<Letters> {
        // Most looks find nothing, and cost no write to the flag.
        if !self.flag.load(Ordering::Relaxed) || !self.flag.swap(false, Ordering::Acquire) {
            return None;
        }
        // It does not block, whether or not there is anything to read.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        Some(mem::take(&mut self.letters()))
    }

    /// For the reactor: it sleeps from now on, or does not any more.
    pub fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::Relaxed);
    }

    /// Whether the reactor has nothing to do.
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Rings that the reactor has, those in its mail included.
    pub fn rings(&self) -> usize {
        self.rings.load(Ordering::Relaxed)
    }

    /// For the reactor: a ring has left it.
    pub fn ring_left(&self) {
        self.rings.fetch_sub(1, Ordering::Relaxed);
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Mailbox {
    /// Is readable when the reactor was woken and has not looked.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
