// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Start, control plane and end of the daemon.
//!
//! The main thread waits for signals. The statistics have a thread, each guest has one, and so
//! has each started queue of a guest.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use log::{error, info};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use zcache_store::{Store, StoreConfig};

use crate::admin::stats::Reporter;
use crate::admin::stats_socket::StatsServer;
use crate::args::{Args, FdGuest, GuestOptions, PathGuest, StatsPath};
use crate::device::memory_fault;
use crate::error::Error;
use crate::frontend::budget::{DescriptorBudget, MemoryBudget, raise_descriptor_limit};
use crate::frontend::connection;
use crate::frontend::guest::{GuestPolicy, GuestSocket, Host};
use crate::frontend::listener::{BoundSocket, Endpoint};
use crate::frontend::worker::stop::StopSignal;

/// Part of the store that is reserved for its guests' persistent pages, the same for each. The
/// other part is for whoever comes first, so that a guest that needs much finds it, and none can
/// take everything.
const RESERVED_SHARE: u64 = 2;
/// Part of the host's memory that the store may use if the operator does not say.
const DEFAULT_SHARE: u64 = 4;

/// A daemon whose sockets are ready, and which does not serve them yet.
pub struct Daemon {
    guests: Vec<(Arc<GuestSocket>, Endpoint)>,
    /// Removes the sockets when the daemon ends.
    bound: Vec<BoundSocket>,
    stats: Option<StatsServer>,
    signals: UnixStream,
    memory_limit: u64,
    num_queues: u16,
}

impl Daemon {
    /// Makes the store and the sockets. To be called first of all: descriptors given by number
    /// must not be taken for something else.
    ///
    /// # Errors
    ///
    /// [`Error`], one line for the user.
    pub fn new(args: &Args) -> Result<Self, Error> {
        check_unique(args)?;
        let inherited = args
            .fd
            .iter()
            .map(|guest| {
                // SAFETY: the numbers were checked to differ, and no file was opened yet.
                let endpoint = unsafe { Endpoint::inherit(guest.number) }?;
                Ok((endpoint, guest))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let signals = signals().map_err(Error::Signals)?;
        memory_fault::install().map_err(Error::Signals)?;
        raise_descriptor_limit();

        let limit = args.memory_limit.map_or_else(default_memory_limit, |size| size.0);
        let store = Store::new(StoreConfig::new(limit))?;
        let guest_count = args.socket_path.len() + args.fd.len();
        let host = Arc::new(Host {
            store: store.clone(),
            num_queues: args.queues,
            memory_budget: MemoryBudget::share(guest_count),
        });
        let share = limit / RESERVED_SHARE / (guest_count as u64).max(1);
        let guest = |name: String, options: &GuestOptions| {
            let memory_limit = options.memory_limit.or(args.guest_memory_limit).map(|size| size.0);
            let reserved = memory_limit.unwrap_or(u64::MAX).min(share);
            let policy = GuestPolicy {
                memory_limit,
                reservation: store.reserve(reserved),
                allow_shared: options.allow_shared.clone(),
            };
            Arc::new(GuestSocket::new(name, Arc::clone(&host), policy))
        };

        let mut guests = Vec::new();
        let mut bound = Vec::new();
        for PathGuest { path, access, options } in &args.socket_path {
            let socket = BoundSocket::bind(path, access.or(args.socket_access()))?;
            let endpoint = Endpoint::Listening(socket.listener().map_err(Error::Descriptors)?);
            guests.push((guest(path.display().to_string(), options), endpoint));
            bound.push(socket);
        }
        for (endpoint, FdGuest { number, options }) in inherited {
            guests.push((guest(format!("fd:{number}"), options), endpoint));
        }

        let reported = guests.iter().map(|(guest, _)| Arc::clone(guest)).collect();
        let reporter = Reporter::new(store, reported);
        let mut stats = None;
        if let Some(StatsPath { path, access }) = &args.stats_socket {
            let socket = BoundSocket::bind(path, *access)?;
            stats = Some(StatsServer::new(socket.listener().map_err(Error::Descriptors)?, reporter));
            bound.push(socket);
        }
        Ok(Self { guests, bound, stats, signals, memory_limit: limit, num_queues: args.queues })
    }

    /// Serves the guests until a signal says to end, or until no guest can come back.
    ///
    /// # Errors
    ///
    /// [`Error`], one line for the user.
    pub fn run(self) -> Result<(), Error> {
        info!("The store takes up to {} bytes", self.memory_limit);
        let ending = Rc::new(Cell::new(false));
        let mut events = EventManager::<Box<dyn MutEventSubscriber>>::new().map_err(Error::Events)?;
        events.add_subscriber(Box::new(EndOn { source: self.signals, reason: "a signal", ending: Rc::clone(&ending) }));
        let all_gone = Arc::new(StopSignal::new().map_err(Error::Descriptors)?);
        events.add_subscriber(Box::new(EndOn {
            source: all_gone.as_fd().try_clone_to_owned().map_err(Error::Descriptors)?,
            reason: "the end of the last inherited connection",
            ending: Rc::clone(&ending),
        }));
        // All that stays open is open now.
        let descriptors = DescriptorBudget::plan(self.guests.len(), self.num_queues);
        let descriptors = Arc::new(descriptors.map_err(Error::Descriptors)?);
        if let Some(stats) = self.stats {
            thread::Builder::new().name("statistics".into()).spawn(|| stats.run()).map_err(Error::Thread)?;
        }

        let left = Arc::new(AtomicUsize::new(self.guests.len()));
        for (guest, endpoint) in self.guests {
            let (left, all_gone, descriptors) = (Arc::clone(&left), Arc::clone(&all_gone), Arc::clone(&descriptors));
            let serve = move || {
                info!("{}: ready", guest.name());
                connection::serve(endpoint, &guest, &descriptors);
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    all_gone.raise();
                }
            };
            thread::Builder::new().name("guest".into()).spawn(serve).map_err(Error::Thread)?;
        }

        while !ending.get() {
            match events.run() {
                Ok(_) => {}
                Err(event_manager::Error::Epoll(error)) if error.errno() == rustix::io::Errno::INTR.raw_os_error() => {}
                Err(error) => return Err(Error::Events(error)),
            }
        }
        // The threads end with the process: what they hold, the kernel takes back faster.
        drop(self.bound);
        Ok(())
    }
}

/// Ends the daemon when a file descriptor becomes readable.
struct EndOn<F> {
    source: F,
    reason: &'static str,
    ending: Rc<Cell<bool>>,
}

impl<F: AsRawFd> MutEventSubscriber for EndOn<F> {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        info!("Ending because of {}", self.reason);
        self.ending.set(true);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.source, EventSet::IN)) {
            error!("{} cannot be watched: {error}", self.reason);
        }
    }
}

/// Becomes readable at a signal that asks the daemon to end.
fn signals() -> io::Result<UnixStream> {
    let (receiver, sender) = UnixStream::pair()?;
    pipe::register(SIGINT, sender.try_clone()?)?;
    pipe::register(SIGTERM, sender)?;
    Ok(receiver)
}

fn check_unique(args: &Args) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    let paths = args.socket_path.iter().map(|guest| guest.path.as_path());
    for path in paths.chain(args.stats_socket.as_ref().map(|stats| stats.path.as_path())) {
        if !seen.insert(path) {
            return Err(Error::Twice(path.display().to_string()));
        }
    }
    let mut seen = BTreeSet::new();
    for number in args.fd.iter().map(|guest| guest.number) {
        if !seen.insert(number) {
            return Err(Error::Twice(format!("File descriptor {number}")));
        }
    }
    Ok(())
}

fn default_memory_limit() -> u64 {
    let info = rustix::system::sysinfo();
    // The kernel's types differ between architectures.
    #[allow(clippy::useless_conversion)]
    let total = u64::from(info.totalram).saturating_mul(info.mem_unit.into());
    total / DEFAULT_SHARE
}
