// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a worker comes to have what the one before had.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::{process, thread};

use log::error;
use zcache_store::{Care, Guest, GuestConfig, Recovery, Reopened, Reservation, Store, StoreConfig, Watch};

use super::guest::{GuestPlace, GuestPolicy};
use super::queue::reactors::Reactors;
use crate::config::settings::{GuestSettings, Settings};
use crate::crash::{self, Place};
use crate::error::Error;
use crate::ledger::Ledger;
use crate::ledger::restore::RestoreLedger;
use crate::ledger::session::SessionState;
use crate::sandbox;
use crate::sandbox::rule::Kind;

/// A store, and its guests.
pub struct Started {
    /// The store.
    pub store: Store,
    /// The guests, by their numbers, those that were connected with their sessions.
    pub guests: BTreeMap<usize, Arc<GuestPlace>>,
    /// Who serves their rings.
    pub reactors: Arc<Reactors>,
}

/// Makes the policies of all guests, once.
struct Policies<'a> {
    settings: &'a Settings,
    made: OnceCell<BTreeMap<usize, GuestPolicy>>,
}

impl Policies<'_> {
    fn get(&self, reserve: &dyn Fn(u64) -> Arc<Reservation>) -> &BTreeMap<usize, GuestPolicy> {
        let made = || self.settings.guests.iter().map(|(number, guest)| (*number, policy(guest, reserve))).collect();
        self.made.get_or_init(made)
    }
}

/// The policy of a guest.
pub fn policy(guest: &GuestSettings, reserve: impl Fn(u64) -> Arc<Reservation>) -> GuestPolicy {
    GuestPolicy {
        memory_limit: guest.memory_limit,
        reservation: reserve(guest.reservation),
        weight: guest.weight.0,
        frozen: guest.frozen,
        allow_shared: guest.allow_shared.iter().map(|pool| pool.0).collect(),
        trust_domain: guest.trust_domain.0.as_str().into(),
    }
}

/// Which guest the store's numbers mean.
#[derive(Clone)]
struct Places {
    /// By the store's numbers.
    places: BTreeMap<u32, usize>,
    ledger: Ledger,
}

impl Places {
    fn new(noted: &BTreeMap<usize, SessionState>, ledger: Ledger) -> Self {
        Self { places: noted.iter().map(|(place, noted)| (noted.number, *place)).collect(), ledger }
    }

    fn of(&self, number: u32) -> Option<usize> {
        self.places.get(&number).copied()
    }

    fn restore(&self, number: u32) -> Option<&'static RestoreLedger> {
        self.of(number).map(|place| self.ledger.restore(place))
    }
}

impl Watch for Places {
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

/// Ends the process and leaves everything to the next worker: what guests have that are dropped,
/// by an error that is returned, is nobody's any more.
fn leave_all(error: &Error) -> ! {
    error!("{error}");
    process::exit(1)
}

/// Finds all pages that nobody asks for, while guests are served.
fn find_pages(recovery: Recovery) {
    let find = || match recovery.finish() {
        Ok(_) => crash::point(Place::PagesFound),
        Err(error) => leave_all(&error.into()),
    };
    if let Err(error) = thread::Builder::new().name("recovery".into()).spawn(find) {
        leave_all(&Error::Thread(error));
    }
}

/// Makes the store, of the memory that the worker before has left if there is any, and takes over
/// the sessions of the connections in `lives`.
///
/// # Errors
///
/// [`Error::Store`].
pub fn start(settings: &Settings, ledger: Ledger, lives: &[u64], arena: Option<File>) -> Result<Started, Error> {
    let limit = settings.memory_limit;
    let config = StoreConfig { thread_start: || sandbox::confine_thread(Kind::Store), ..StoreConfig::new(limit) };
    let policies = Policies { settings, made: OnceCell::new() };
    // A session that was never noted is one that was never used.
    let noted = |number: usize| {
        let life = lives.get(number).copied().filter(|life| *life != 0)?;
        Some((number, ledger.session(number).read().filter(|session| session.life == life)?))
    };
    let noted: BTreeMap<usize, SessionState> = settings.guests.keys().copied().filter_map(noted).collect();

    let reactors = Arc::new(Reactors::start(settings.workers).map_err(Error::Thread)?);
    let (store, mut found) = match arena {
        None => (Store::new(config)?, BTreeMap::new()),
        Some(arena) => {
            let places = Places::new(&noted, ledger);
            let watch = Box::new(places.clone());
            let guest_config = |reserve: &dyn Fn(u64) -> Arc<Reservation>, number| {
                let known = places.of(number).and_then(|place| {
                    Some(
                        policies
                            .get(reserve)
                            .get(&place)?
                            .config_of(&settings.guests.get(&place)?.name, noted.get(&place)?),
                    )
                });
                known.unwrap_or_else(|| GuestConfig::new("a guest that has left"))
            };
            let Reopened { store, guests, recovery } = Store::reopen(config, arena, guest_config, watch)?;
            crash::point(Place::Reopened);
            find_pages(recovery);
            let by_number: BTreeMap<u32, Guest> = guests.into_iter().map(|guest| (guest.number(), guest)).collect();
            (store, by_number)
        }
    };
    let policies = policies.get(&|bytes| store.reserve(bytes));
    let mut guests = BTreeMap::new();
    for (number, policy) in policies {
        let (number, name) = (*number, settings.guests[number].name.clone());
        let place = GuestPlace::new(name, number, store.clone(), ledger, policy.clone(), Arc::clone(&reactors));
        let restore = ledger.restore(number);
        if let Some(noted) = noted.get(&number).filter(|_| !restore.is_quarantined()) {
            restore.begin();
            place.restore(found.remove(&noted.number), noted.clone());
            crash::point(Place::SessionRestored);
            restore.end();
        }
        guests.insert(number, Arc::new(place));
    }
    // Guests that are left are of connections that have ended, and go here.
    drop(found);
    Ok(Started { store, guests, reactors })
}
