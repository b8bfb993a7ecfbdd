// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a worker comes to have what the one before had.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use zcache_store::{Care, Guest, GuestConfig, Rebuilt, Reservation, Store, StoreConfig, Watch};

use super::guest::{GuestPlace, GuestPolicy};
use super::queue::reactors::Reactors;
use crate::args::{Args, GuestOptions};
use crate::crash::{self, Place};
use crate::error::Error;
use crate::ledger::Ledger;
use crate::ledger::restore::RestoreLedger;
use crate::ledger::session::SessionState;
use crate::sandbox;
use crate::sandbox::rule::Kind;

/// Part of the store that is reserved for its guests' persistent pages, the same for each. The
/// other part is for whoever comes first, so that a guest that needs much finds it, and none can
/// take everything.
const RESERVED_SHARE: u64 = 2;
/// Part of the host's memory that the store may use if the operator does not say.
const DEFAULT_SHARE: u64 = 4;

/// Most threads that serve queues, if the operator does not say.
const MOST_WORKERS: usize = 16;

/// A store, and the guests of the command line.
pub struct Started {
    /// The store.
    pub store: Store,
    /// The guests, those that were connected with their sessions.
    pub guests: Vec<Arc<GuestPlace>>,
    /// Who serves their rings.
    pub reactors: Arc<Reactors>,
}

/// The guests as the command line has them: names and options.
fn named(args: &Args) -> Vec<(String, &GuestOptions)> {
    let paths = args.socket_path.iter().map(|guest| (guest.path.display().to_string(), &guest.options));
    let inherited = args.fd.iter().map(|guest| (format!("fd:{}", guest.number), &guest.options));
    paths.chain(inherited).collect()
}

/// Makes the policies of all guests.
struct Policies<'a> {
    args: &'a Args,
    named: &'a [(String, &'a GuestOptions)],
    share: u64,
    made: OnceCell<Vec<GuestPolicy>>,
}

impl Policies<'_> {
    fn get(&self, reserve: &dyn Fn(u64) -> Arc<Reservation>) -> &[GuestPolicy] {
        self.made.get_or_init(|| {
            let policy = |options: &GuestOptions| {
                let memory_limit = options.memory_limit.or(self.args.guest_memory_limit).map(|size| size.0);
                let reserved = memory_limit.unwrap_or(u64::MAX).min(self.share);
                GuestPolicy { memory_limit, reservation: reserve(reserved), allow_shared: options.allow_shared.clone() }
            };
            self.named.iter().map(|(_, options)| policy(options)).collect()
        })
    }
}

/// Which guest of the command line the store's numbers mean.
struct Places<'a> {
    noted: &'a [Option<SessionState>],
    ledger: Ledger,
}

impl Places<'_> {
    fn of(&self, number: u32) -> Option<usize> {
        self.noted.iter().position(|noted| noted.as_ref().is_some_and(|noted| noted.number == number))
    }

    fn restore(&self, number: u32) -> Option<&'static RestoreLedger> {
        self.of(number).map(|place| self.ledger.restore(place))
    }
}

impl Watch for Places<'_> {
    fn care(&self, guest: u32) -> Care {
        match self.restore(guest) {
            Some(restore) if restore.is_quarantined() => Care::Never,
            Some(restore) if restore.is_suspect() => Care::Alone,
            _ => Care::Usual,
        }
    }

    fn begins(&self, guest: u32) {
        if let Some(restore) = self.restore(guest) {
            restore.begin();
            crash::point(Place::Rebuilding);
        }
    }

    fn ends(&self, guest: u32) {
        if let Some(restore) = self.restore(guest) {
            restore.end();
        }
    }
}

/// Makes the store, of the memory that the worker before has left if there is any, and takes over
/// the sessions of the connections in `lives`.
///
/// # Errors
///
/// [`Error::Store`].
pub fn start(args: &Args, ledger: Ledger, lives: &[u64], arena: Option<File>) -> Result<Started, Error> {
    let named = named(args);
    let limit = memory_limit(args);
    let config = StoreConfig { thread_start: || sandbox::confine_thread(Kind::Store), ..StoreConfig::new(limit) };
    let share = limit / RESERVED_SHARE / (named.len() as u64).max(1);
    let policies = Policies { args, named: &named, share, made: OnceCell::new() };
    // A session that was never noted is one that was never used.
    let noted = |number: usize| {
        let life = lives.get(number).copied().filter(|life| *life != 0)?;
        ledger.session(number).read().filter(|session| session.life == life)
    };
    let noted: Vec<Option<SessionState>> = (0..named.len()).map(noted).collect();

    let (store, mut found) = match arena {
        None => (Store::new(config)?, BTreeMap::new()),
        Some(arena) => {
            let places = Places { noted: &noted, ledger };
            let guest_config = |reserve: &dyn Fn(u64) -> Arc<Reservation>, number| match places.of(number) {
                Some(place) => policies.get(reserve)[place].config(&named[place].0),
                None => GuestConfig::new("a guest that has left"),
            };
            let Rebuilt { store, guests, .. } = Store::rebuild_with(config, arena, guest_config, &places)?;
            crash::point(Place::Rebuilt);
            let by_number: BTreeMap<u32, Guest> = guests.into_iter().map(|guest| (guest.number(), guest)).collect();
            (store, by_number)
        }
    };
    let policies = policies.get(&|bytes| store.reserve(bytes));
    let reactors = Arc::new(Reactors::start(args.workers.unwrap_or_else(default_workers)).map_err(Error::Thread)?);
    let mut guests = Vec::new();
    for (number, (noted, (name, _))) in noted.into_iter().zip(&named).enumerate() {
        let policy = policies[number].clone();
        let place = GuestPlace::new(name.clone(), number, store.clone(), ledger, policy, Arc::clone(&reactors));
        let restore = ledger.restore(number);
        if let Some(noted) = noted.filter(|_| !restore.is_quarantined()) {
            restore.begin();
            place.restore(found.remove(&noted.number), noted);
            crash::point(Place::SessionRestored);
            restore.end();
        }
        guests.push(Arc::new(place));
    }
    // Guests that are left are of connections that have ended, and go here.
    drop(found);
    Ok(Started { store, guests, reactors })
}

/// A thread for each processor, as far as a few cannot keep up with the memory of the host.
fn default_workers() -> NonZero<u8> {
    let processors = available_parallelism().map_or(1, NonZero::get).min(MOST_WORKERS);
    u8::try_from(processors).ok().and_then(NonZero::new).unwrap_or(NonZero::<u8>::MIN)
}

/// Most bytes that the store may use.
#[must_use]
pub fn memory_limit(args: &Args) -> u64 {
    args.memory_limit.map_or_else(default_memory_limit, |size| size.0)
}

fn default_memory_limit() -> u64 {
    let info = rustix::system::sysinfo();
    // The kernel's types differ between architectures.
    #[allow(clippy::useless_conversion)]
    let total = u64::from(info.totalram).saturating_mul(info.mem_unit.into());
    total / DEFAULT_SHARE
}
