// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A plain map that knows the rules of transcendent memory, and a store that must do as it says.
//! Property tests and the fuzzer (`fuzz/`) make up what is done.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use zcache_store::{
    Background, Creation, GetError, GetMode, Guest, GuestConfig, Key, NoPool, ObjectId, PAGE_SIZE, PoolError, PoolId,
    PoolKind, PutError, Recovery, Reopened, Reservation, Scratch, Store, StoreConfig, Unwatched,
};

use super::common::{copy, page};

pub(crate) const GUESTS: usize = 3;
/// Indexes around the edges of the index's nodes, and at the end of the number range.
pub(crate) const INDEXES: [u64; 12] = [0, 1, 2, 62, 63, 64, 65, 4095, 4096, 1 << 32, u64::MAX - 1, u64::MAX];

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create {
        guest: usize,
        pool: u32,
        kind: PoolKind,
    },
    Destroy {
        guest: usize,
        pool: u32,
    },
    DestroyEphemeral {
        guest: usize,
    },
    Reset {
        guest: usize,
    },
    Replace {
        guest: usize,
    },
    Put {
        guest: usize,
        pool: u32,
        object: u8,
        index: u64,
        seed: u32,
    },
    Get {
        guest: usize,
        pool: u32,
        object: u8,
        index: u64,
        mode: GetMode,
    },
    FlushPage {
        guest: usize,
        pool: u32,
        object: u8,
        index: u64,
    },
    FlushRange {
        guest: usize,
        pool: u32,
        object: u8,
        first: u64,
        count: u64,
    },
    FlushObject {
        guest: usize,
        pool: u32,
        object: u8,
    },
    FlushPool {
        guest: usize,
        pool: u32,
    },
    Maintain,
    /// The host wants memory back; only where pages may be dropped.
    GiveBack {
        bytes: u64,
    },
    /// The process dies, and another one goes on with the memory file. It looks for what is there
    /// where somebody asks for it, until it looks for the rest.
    Rebuild,
    Find,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Domain {
    Private(usize, u32),
    Shared([u8; 16]),
}

#[derive(Default)]
struct Model {
    pools: BTreeMap<(usize, u32), PoolKind>,
    /// Owner and content of each page the store may hold.
    pages: HashMap<(Domain, u8, u64), (usize, u32)>,
}

impl Model {
    fn domain(&self, guest: usize, pool: u32) -> Option<(Domain, PoolKind)> {
        let kind = *self.pools.get(&(guest, pool))?;
        Some(match kind {
            PoolKind::SharedEphemeral(uuid) => (Domain::Shared(uuid), kind),
            PoolKind::Ephemeral | PoolKind::Persistent => (Domain::Private(guest, pool), kind),
        })
    }

    fn remove(&mut self, gone: impl Fn(&(Domain, u8, u64), usize) -> bool) -> u64 {
        let before = self.pages.len();
        self.pages.retain(|key, (owner, _)| !gone(key, *owner));
        (before - self.pages.len()) as u64
    }

    fn destroy(&mut self, guest: usize, pool: u32) -> Option<u64> {
        let (domain, _) = self.domain(guest, pool)?;
        self.pools.remove(&(guest, pool));
        Some(self.remove(|key, owner| key.0 == domain && owner == guest))
    }

    fn destroy_all(&mut self, guest: usize, which: impl Fn(PoolKind) -> bool) -> u64 {
        let ids: Vec<u32> = self
            .pools
            .iter()
            .filter(|((owner, _), kind)| *owner == guest && which(**kind))
            .map(|((_, id), _)| *id)
            .collect();
        ids.into_iter().filter_map(|id| self.destroy(guest, id)).sum()
    }
}

/// What a run is allowed to lose.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Room {
    /// Everything fits: nothing may be refused or dropped.
    Ample,
    /// Puts may be refused and ephemeral pages dropped.
    Tight,
}

struct Run {
    store: Store,
    config: StoreConfig,
    guests: Vec<Guest>,
    model: Model,
    scratch: Scratch,
    room: Room,
    guest_limit: Option<u64>,
    /// Bytes the store may take: its limit, or what it took when it was made again.
    most: u64,
    now: Duration,
    /// What an earlier process has left.
    recovery: Option<Recovery>,
}

impl Run {
    fn new(room: Room, store_limit: u64, guest_limit: Option<u64>) -> Self {
        let config = StoreConfig { background: Background::Manual, shards: 4, ..StoreConfig::new(store_limit) };
        let store = Store::new(config.clone()).expect("a store is made");
        let mut run = Self {
            store,
            config,
            most: store_limit,
            guests: Vec::new(),
            model: Model::default(),
            scratch: Scratch::new(),
            room,
            guest_limit,
            now: Duration::ZERO,
            recovery: None,
        };
        run.guests = (0..GUESTS).map(|guest| run.register(guest)).collect();
        run
    }

    fn register(&self, guest: usize) -> Guest {
        self.store.register_guest(Self::guest_config(self.guest_limit, guest))
    }

    fn guest_config(memory_limit: Option<u64>, guest: usize) -> GuestConfig {
        GuestConfig { memory_limit, ..GuestConfig::new(format!("guest {guest}")) }
    }

    /// What is in private pools comes back; members of shared pools have left them.
    fn rebuild(&mut self) {
        let numbers: Vec<u32> = self.guests.iter().map(Guest::number).collect();
        let of_number = |number| numbers.iter().position(|of_guest| *of_guest == number);
        let file = copy(&self.store.memory_file().expect("a descriptor is left"));
        let limit = self.guest_limit;
        let config = |_: &dyn Fn(u64) -> Arc<Reservation>, number| {
            Self::guest_config(limit, of_number(number).expect("a guest that is gone came back"))
        };
        let reopened = Store::reopen(self.config.clone(), file, config, Box::new(Unwatched));
        let reopened = reopened.unwrap_or_else(|error| panic!("no store is made again: {error}"));
        let Reopened { store, guests, recovery } = reopened;
        let mut found: HashMap<u32, Guest> = guests.into_iter().map(|guest| (guest.number(), guest)).collect();
        self.store = store;
        self.guests =
            (0..GUESTS).map(|guest| found.remove(&numbers[guest]).unwrap_or_else(|| self.register(guest))).collect();
        for guest in 0..GUESTS {
            self.model.destroy_all(guest, |kind| matches!(kind, PoolKind::SharedEphemeral(_)));
        }
        self.recovery = Some(recovery);
    }

    /// Looks for all that an earlier process has left, if that was not done yet.
    fn find_all(&mut self) {
        let Some(recovery) = self.recovery.take() else { return };
        recovery.finish().unwrap_or_else(|error| panic!("not all is found: {error}"));
        // What is left of guests and pools that were gone goes.
        self.store.maintain(self.now, Duration::from_secs(1));
        self.check_kept();
        self.most = self.config.memory_limit.max(self.store.stats().physical_bytes);
    }

    /// In a shared pool pages count until their memory follows, also those of who has left.
    fn counts(&self, what: &str, private: bool, got: Result<u64, NoPool>, expected: Option<u64>) {
        match (got, expected) {
            (Ok(got), Some(expected)) if self.room == Room::Ample && private => {
                assert_eq!(got, expected, "{what} removed another number of pages");
            }
            (Ok(got), Some(expected)) if self.room == Room::Ample => {
                assert!(got >= expected, "{what} removed {got} of {expected} pages");
            }
            (Ok(got), Some(most)) => assert!(!private || got <= most, "{what} removed pages it never had"),
            (Err(NoPool), None) => {}
            (got, expected) => panic!("{what} returned {got:?}, the model says {expected:?}"),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Create { guest, pool, kind } => self.create(guest, pool, kind),
            Op::Destroy { guest, pool } => {
                let private = self.is_private(guest, pool);
                let expected = self.model.destroy(guest, pool);
                let got = self.guests[guest].destroy_pool(PoolId(pool));
                self.counts("destroy_pool", private, got, expected);
            }
            Op::DestroyEphemeral { guest } => {
                let private = (0..4).all(|pool| self.is_private(guest, pool));
                let expected = self.model.destroy_all(guest, PoolKind::is_ephemeral);
                let got = self.guests[guest].destroy_ephemeral_pools();
                self.counts("destroy_ephemeral_pools", private, Ok(got), Some(expected));
            }
            Op::Reset { guest } => {
                let private = (0..4).all(|pool| self.is_private(guest, pool));
                let expected = self.model.destroy_all(guest, |_| true);
                self.counts("reset", private, Ok(self.guests[guest].reset()), Some(expected));
            }
            Op::Replace { guest } => {
                self.model.destroy_all(guest, |_| true);
                self.guests[guest] = self.register(guest);
                // What the guest had is charged to nobody we know until its memory follows.
                self.store.maintain(self.now, Duration::from_secs(1));
            }
            Op::Put { guest, pool, object, index, seed } => {
                self.put(guest, pool, object, index, seed);
            }
            Op::Get { guest, pool, object, index, mode } => {
                self.get(guest, pool, object, index, mode);
            }
            Op::FlushPage { guest, pool, object, index } => {
                let expected = self.flushed(guest, pool, |o, i| o == object && i == index);
                let got = self.guests[guest].flush_page(&key(pool, object, index));
                self.counts("a flush", self.is_private(guest, pool), got, expected);
            }
            Op::FlushRange { guest, pool, object, first, count } => {
                let expected = self.flushed(guest, pool, |o, i| o == object && i >= first && i - first < count);
                let got = self.guests[guest].flush_range(PoolId(pool), &id(object), first, count);
                self.counts("a flush", self.is_private(guest, pool), got, expected);
            }
            Op::FlushObject { guest, pool, object } => {
                let expected = self.flushed(guest, pool, |o, _| o == object);
                let got = self.guests[guest].flush_object(PoolId(pool), &id(object));
                self.counts("a flush", self.is_private(guest, pool), got, expected);
            }
            Op::Find => self.find_all(),
            Op::Maintain => {
                self.find_all();
                // Everything is cold after two of these.
                self.now += Duration::from_secs(60);
                self.store.maintain(self.now, Duration::from_secs(1));
                self.check_kept();
            }
            Op::GiveBack { bytes } => self.give_back(bytes),
            Op::Rebuild => self.rebuild(),
            Op::FlushPool { guest, pool } => {
                let expected = self.flushed(guest, pool, |_, _| true);
                let got = self.guests[guest].flush_pool(PoolId(pool));
                self.counts("a flush", self.is_private(guest, pool), got, expected);
            }
        }
    }

    /// Ephemeral pages may go, persistent ones stay.
    fn give_back(&mut self, bytes: u64) {
        if self.room == Room::Ample {
            return;
        }
        let given = self.store.give_back(bytes);
        assert_eq!(given.given, given.garbage + given.holes + given.ephemeral.values().sum::<u64>(), "{given:?}");
        let pages: Vec<_> = self.model.pages.iter().map(|(key, (_, seed))| (*key, *seed)).collect();
        for ((domain, object, index), seed) in pages {
            let Domain::Private(guest, pool) = domain else { continue };
            if self.model.pools.get(&(guest, pool)) == Some(&PoolKind::Persistent) {
                let mut out = [0; PAGE_SIZE];
                let got =
                    self.guests[guest].get(&mut self.scratch, &key(pool, object, index), GetMode::Plain, &mut out);
                assert!(got == Ok(()) && out == page(seed), "a persistent page was given back: {got:?}");
            }
        }
    }

    fn is_private(&self, guest: usize, pool: u32) -> bool {
        matches!(self.model.domain(guest, pool), Some((Domain::Private(..), _)) | None)
    }

    fn flushed(&mut self, guest: usize, pool: u32, which: impl Fn(u8, u64) -> bool) -> Option<u64> {
        let (domain, _) = self.model.domain(guest, pool)?;
        Some(self.model.remove(|key, _| key.0 == domain && which(key.1, key.2)))
    }

    fn create(&mut self, guest: usize, pool: u32, kind: PoolKind) {
        let got = self.guests[guest].create_pool(PoolId(pool), kind);
        let in_already = matches!(kind, PoolKind::SharedEphemeral(_))
            && self.model.pools.iter().any(|((owner, id), known)| *owner == guest && *id != pool && *known == kind);
        match (self.model.pools.get(&(guest, pool)), got) {
            (Some(known), Ok(Creation::AlreadySame)) => assert_eq!(*known, kind),
            (Some(known), Err(PoolError::Exists)) => assert_ne!(*known, kind),
            (None, Err(PoolError::Exists)) => assert!(in_already),
            (None, Ok(Creation::Created)) => {
                assert!(!in_already, "a guest is in a shared pool twice");
                self.model.pools.insert((guest, pool), kind);
            }
            (None, Err(PoolError::NoMemory)) if self.room == Room::Tight => {}
            (known, got) => panic!("create_pool returned {got:?}, the model has {known:?}"),
        }
    }

    fn put(&mut self, guest: usize, pool: u32, object: u8, index: u64, seed: u32) {
        let key = key(pool, object, index);
        let got = self.guests[guest].put(&mut self.scratch, &key, &page(seed));
        let Some((domain, _)) = self.model.domain(guest, pool) else {
            assert_eq!(got, Err(PutError::NoPool(NoPool)));
            return;
        };
        match got {
            Ok(()) => {
                self.model.pages.insert((domain, object, index), (guest, seed));
            }
            Err(PutError::Refused(_)) if self.room == Room::Tight => {
                self.model.pages.remove(&(domain, object, index));
            }
            Err(error) => panic!("put failed with {error:?}"),
        }
    }

    fn get(&mut self, guest: usize, pool: u32, object: u8, index: u64, mode: GetMode) {
        let mut out = [0xee; PAGE_SIZE];
        let key = key(pool, object, index);
        let got = self.guests[guest].get(&mut self.scratch, &key, mode, &mut out);
        let Some((domain, kind)) = self.model.domain(guest, pool) else {
            assert_eq!(got, Err(GetError::NoPool(NoPool)));
            return;
        };
        if mode == GetMode::Exclusive && !kind.is_ephemeral() {
            assert_eq!(got, Err(GetError::ExclusivePersistent));
            return;
        }
        let at = (domain, object, index);
        match (got, self.model.pages.get(&at)) {
            (Ok(()), Some((_, seed))) => {
                assert!(out == page(*seed), "get returned another page than was put");
                if mode == GetMode::Exclusive {
                    self.model.pages.remove(&at);
                }
            }
            (Err(GetError::Miss), None) => {}
            // A page that was lost must stay lost.
            (Err(GetError::Miss), Some(_)) if self.room == Room::Tight && kind.is_ephemeral() => {
                self.model.pages.remove(&at);
            }
            (got, known) => panic!("get returned {got:?}, the model has {known:?}"),
        }
    }

    /// Nothing is left of what was removed after the background has been round.
    fn check_kept(&self) {
        let pages: u64 = self.guests.iter().map(|guest| guest.stats().contents.pages).sum();
        if self.room == Room::Ample {
            assert_eq!(pages, self.model.pages.len() as u64, "the store kept pages");
        }
    }

    /// Where all was found; to look at it would be to find it.
    fn check_totals(&self) {
        if self.recovery.is_some() {
            return;
        }
        self.store.check().unwrap_or_else(|error| panic!("the store is inconsistent: {error}"));
        let store = self.store.stats();
        let guests: Vec<_> = self.guests.iter().map(Guest::stats).collect();
        let charged: u64 = guests.iter().map(|guest| guest.physical_bytes).sum();
        assert_eq!(store.physical_bytes, charged, "bytes are charged to no guest or to two");
        assert!(store.physical_bytes <= self.most, "the store is above its limit");
        for guest in &guests {
            let limit = guest.memory_limit.unwrap_or(u64::MAX);
            assert!(guest.physical_bytes <= limit, "{} is above its limit", guest.name);
        }
        let pages: u64 = guests.iter().map(|guest| guest.contents.pages).sum();
        assert_eq!(store.contents.pages, pages, "pages are counted for no guest or for two");
        let known = self.model.pages.len() as u64;
        if self.room == Room::Ample {
            assert!(pages >= known, "the store lost pages: it has {pages} of {known}");
        }
    }
}

fn id(object: u8) -> ObjectId {
    ObjectId([object; 24])
}

fn key(pool: u32, object: u8, index: u64) -> Key {
    Key { pool: PoolId(pool), object: id(object), index }
}

pub(crate) fn run(room: Room, store_limit: u64, guest_limit: Option<u64>, ops: &[Op]) {
    let mut run = Run::new(room, store_limit, guest_limit);
    for op in ops {
        run.apply(op);
        run.check_totals();
    }
    run.find_all();
    for guest in 0..GUESTS {
        run.model.destroy_all(guest, |_| true);
        run.guests[guest].reset();
        run.check_totals();
    }
    run.store.maintain(run.now, Duration::ZERO);
    assert_eq!(run.store.stats().contents.pages, 0, "pages outlived their guests' pools");
}
