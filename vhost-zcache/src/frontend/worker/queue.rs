// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The thread that owns one started ring.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use log::{debug, error, warn};
use rustix::event::{PollFd, PollFlags, poll};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic};

use super::call::Call;
use super::stop::StopSignal;
use crate::device::batch::Batch;
use crate::device::chain::Chain;
use crate::device::counters::QueueCounters;
use crate::device::execute::Executor;
use crate::device::guest_memory::Memory;
use crate::device::ring::{Ring, RingError, RingLayout};
use crate::frontend::log_limit::LogLimit;

/// Chains served with one view of guest memory, so that a change of the memory table is seen
/// soon by a ring that never runs empty.
const CHAINS_PER_ROUND: usize = 64;

/// All a queue's thread needs.
pub struct QueueSetup {
    /// For the log: guest and queue.
    pub name: String,
    /// Where the ring is.
    pub layout: RingLayout,
    /// The guest's memory, which the VMM may change.
    pub memory: GuestMemoryAtomic<Memory>,
    /// Becomes readable when the driver kicks.
    pub kick: File,
    /// The ring's interrupt.
    pub call: Arc<Call>,
    /// Executes the requests.
    pub executor: Executor,
    /// Counts what happens.
    pub counters: Arc<QueueCounters>,
    /// Limits what the guest can write to the log.
    pub log_limit: Arc<LogLimit>,
}

/// A thread that serves a ring. It ends when told to, or when the ring turns out to make no
/// sense; in both cases it does not touch guest memory any more.
pub struct QueueWorker {
    stop: Arc<StopSignal>,
    thread: JoinHandle<Option<u16>>,
}

impl QueueWorker {
    /// Starts to serve a ring.
    ///
    /// # Errors
    ///
    /// When the process cannot have another thread or file descriptor.
    pub fn start(setup: QueueSetup) -> io::Result<Self> {
        let stop = Arc::new(StopSignal::new()?);
        let seen = Arc::clone(&stop);
        let (name, counters) = (setup.name.clone(), Arc::clone(&setup.counters));
        let thread = thread::Builder::new().name("queue".into()).spawn(move || {
            // A defect of ours that a guest sets off costs it this queue and nothing else.
            panic::catch_unwind(AssertUnwindSafe(|| Queue::new(setup, seen).run())).unwrap_or_else(|_| {
                counters.count_ring_error();
                error!("{name} is not served until it is restarted: its thread has panicked");
                None
            })
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops serving the ring and waits until the chain in progress is completed. Returns the
    /// index of the next chain, `None` if the ring could never be served.
    #[must_use]
    pub fn stop(self) -> Option<u16> {
        self.stop.raise();
        // Panics were caught in the thread.
        self.thread.join().unwrap_or(None)
    }
}

/// Why a queue stopped to wait.
enum Wake {
    Kick,
    Stop,
}

struct Queue {
    setup: QueueSetup,
    stop: Arc<StopSignal>,
    chain: Chain,
    batch: Batch,
}

impl Queue {
    fn new(setup: QueueSetup, stop: Arc<StopSignal>) -> Self {
        Self { setup, stop, chain: Chain::default(), batch: Batch::default() }
    }

    fn run(mut self) -> Option<u16> {
        self.setup.counters.ring_started();
        let started = Ring::start(&self.setup.layout, &self.setup.memory.memory());
        let mut ring = match started {
            Ok(ring) => ring,
            Err(error) => {
                self.quarantine(error);
                return None;
            }
        };
        debug!("{} starts at index {}", self.setup.name, ring.position());
        if let Err(error) = self.serve(&mut ring) {
            self.quarantine(error);
        }
        Some(ring.position())
    }

    /// Serves the ring until told to stop.
    fn serve(&mut self, ring: &mut Ring) -> Result<(), RingError> {
        loop {
            while self.serve_round(ring)? {}
            match self.wait() {
                Ok(Wake::Kick) => {}
                Ok(Wake::Stop) => return Ok(()),
                Err(error) => {
                    warn!("{} cannot be kicked any more: {error}", self.setup.name);
                    return Ok(());
                }
            }
        }
    }

    /// Serves some chains; whether to go on without waiting for a kick.
    fn serve_round(&mut self, ring: &mut Ring) -> Result<bool, RingError> {
        let memory = self.setup.memory.memory();
        ring.disable_kicks(&memory)?;
        for _ in 0..CHAINS_PER_ROUND {
            if self.stop.is_raised() {
                return Ok(false);
            }
            let Some(taken) = ring.take(&memory, &mut self.chain)? else {
                return ring.enable_kicks(&memory);
            };
            let served = self.batch.serve(&memory, &self.chain, &mut self.setup.executor)?;
            ring.complete(&memory, taken, served.written)?;
            self.setup.counters.count_chain(served.well_formed);
            if ring.needs_notification(&memory)? {
                self.setup.call.signal();
            }
        }
        Ok(true)
    }

    /// Sleeps until the driver kicks or the ring is to be stopped.
    fn wait(&mut self) -> io::Result<Wake> {
        loop {
            let stop = self.stop.as_fd();
            let kick = self.setup.kick.as_fd();
            let mut events =
                [PollFd::from_borrowed_fd(stop, PollFlags::IN), PollFd::from_borrowed_fd(kick, PollFlags::IN)];
            match poll(&mut events, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let kicked = events[1].revents();
            if self.stop.is_raised() {
                return Ok(Wake::Stop);
            }
            if kicked.contains(PollFlags::IN) {
                self.consume_kick()?;
                return Ok(Wake::Kick);
            }
            if !kicked.is_empty() {
                return Err(io::Error::other("its kick event is closed or no event at all"));
            }
        }
    }

    fn consume_kick(&self) -> io::Result<()> {
        match rustix::io::read(&self.setup.kick, &mut [0; 8]) {
            Ok(8) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
            // Anything else would make poll return at once for ever.
            Ok(_) => Err(io::Error::other("its kick event is no event")),
            Err(error) => Err(error.into()),
        }
    }

    /// Leaves the ring alone until the VMM stops and starts it.
    fn quarantine(&self, error: RingError) {
        self.setup.counters.count_ring_error();
        if let Some(suppressed) = self.setup.log_limit.pass() {
            warn!(
                "{} is not served until it is restarted: {error} ({suppressed} such messages not shown)",
                self.setup.name
            );
        }
    }
}
