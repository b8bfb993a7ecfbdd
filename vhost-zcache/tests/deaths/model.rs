// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that knows what it has stored.
#![allow(clippy::cast_possible_truncation, reason = "a test's numbers are small")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::client::daemon::Daemon;
use crate::client::wire::{Answer, EXCLUSIVE, PERSISTENT, Req, SHARED, decode, opcode, status};
use crate::client::{Client, Posted, Setup, Shape, page};

/// UUIDs of shared pools, one for each guest, and the socket options that allow them.
const UUIDS: [[u8; 16]; 2] = [[0xaa; 16], [0xbb; 16]];
pub(crate) const ALLOW: &str = "allow-shared=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa,\
                                allow-shared=bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb";

const KEPT: u32 = 1;
const CACHED: u32 = 2;
const COMMON: u32 = 3;
/// A persistent pool that stays without a page.
const EMPTY: u32 = 4;
const OBJECTS: u64 = 6;
const INDEXES: u64 = 12;

type Place = (u32, u8, u64);

/// A small generator of numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Does something while two guests work, which have lost nothing in the end. The daemon has two
/// sockets with [`ALLOW`].
pub(crate) fn while_guests_work(daemon: &Daemon, seed: u64, trouble: impl FnOnce()) {
    while_guests_work_at(&[daemon.socket(0), daemon.socket(1)], seed, trouble);
}

/// As [`while_guests_work`], at these sockets.
pub(crate) fn while_guests_work_at(sockets: &[PathBuf], seed: u64, trouble: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let guests: Vec<_> = (0..)
            .zip(sockets)
            .map(|(number, socket)| {
                let done = &done;
                scope.spawn(move || {
                    let mut model = Model::attach(socket, number + seed);
                    while !done.load(Ordering::Relaxed) {
                        model.step();
                    }
                    model.check();
                })
            })
            .collect();
        trouble();
        done.store(true, Ordering::Relaxed);
        for guest in guests {
            guest.join().expect("a guest that has lost nothing");
        }
    });
}

/// The guest.
pub(crate) struct Model {
    guest: Client,
    uuid: [u8; 16],
    instance: u8,
    epoch: u64,
    /// What was put last and is not known to be gone.
    stored: HashMap<Place, u64>,
    random: Random,
    puts: u64,
}

impl Model {
    /// A guest that connects, says HELLO and makes its pools.
    pub(crate) fn attach(socket: &Path, seed: u64) -> Self {
        let guest = Client::connect(socket, Setup { queue_size: 64, ram: 4 << 20, ..Setup::default() });
        let mut model = Self {
            guest,
            uuid: UUIDS[seed as usize % 2],
            instance: 0,
            epoch: 0,
            stored: HashMap::new(),
            random: Random::new(seed),
            puts: seed << 32,
        };
        model.hello_as_another();
        model
    }

    fn expect(&mut self, request: Req, expected: u16, what: &str) -> Answer {
        let answer = self.guest.one(request);
        assert_eq!(answer.status, expected, "{what}");
        answer
    }

    fn hello_as_another(&mut self) {
        // Any but the one before; 0 is none.
        self.instance = self.instance % 255 + 1;
        let (epoch, resumed) = self.guest.hello(self.instance);
        assert!(!resumed, "an instance that was never seen was resumed");
        assert_ne!(epoch, self.epoch, "the epoch of another instance");
        self.epoch = epoch;
        self.stored.clear();
        self.expect(Req::create(KEPT, PERSISTENT, [0; 16]), status::OK, "POOL_CREATE");
        self.expect(Req::create(EMPTY, PERSISTENT, [0; 16]), status::OK, "POOL_CREATE");
        self.create_ephemeral();
    }

    fn create_ephemeral(&mut self) {
        self.expect(Req::create(CACHED, 0, [0; 16]), status::OK, "POOL_CREATE of an ephemeral pool");
        self.expect(Req::create(COMMON, SHARED, self.uuid), status::OK, "POOL_CREATE of a shared pool");
        self.stored.retain(|(pool, ..), _| [KEPT, EMPTY].contains(pool));
    }

    fn hello_again(&mut self) {
        assert_eq!(self.guest.hello(self.instance), (self.epoch, true), "the instance is resumed");
        let mut gone = Req::flush_pool(CACHED);
        self.expect(gone.clone(), status::NO_POOL, "an ephemeral pool after HELLO");
        gone = Req::flush_pool(COMMON);
        self.expect(gone, status::NO_POOL, "a shared pool after HELLO");
        self.create_ephemeral();
    }

    fn destroy_pools(&mut self) {
        let answer = self.expect(Req::destroy(KEPT), status::OK, "POOL_DESTROY");
        let pages = self.stored.keys().filter(|(pool, ..)| *pool == KEPT).count() as u64;
        assert_eq!(answer.value, pages, "pages that go with a persistent pool");
        self.expect(Req::get(KEPT, 1, 1, 0), status::NO_POOL, "the pool is gone");
        self.expect(Req::destroy(COMMON), status::OK, "POOL_DESTROY of a shared pool");
        self.expect(Req::destroy(CACHED), status::OK, "POOL_DESTROY of an ephemeral pool");
        self.expect(Req::create(KEPT, PERSISTENT, [0; 16]), status::OK, "POOL_CREATE");
        self.stored.clear();
        self.create_ephemeral();
    }

    fn request(&mut self, queue: u64) -> Req {
        let pool = [KEPT, KEPT, CACHED, COMMON][self.random.below(4) as usize];
        // The objects of a queue keep to it.
        let object = (self.random.below(OBJECTS / 2) * 2 + queue) as u8;
        let index = self.random.below(INDEXES);
        match self.random.below(12) {
            0..=4 => {
                self.puts += 1;
                Req::put(pool, object, index, &page(self.puts))
            }
            5..=8 => Req::get(pool, object, index, 0),
            9 if pool != KEPT => Req::get(pool, object, index, EXCLUSIVE),
            9 | 10 => Req::flush_page(pool, object, index),
            _ => Req::flush_range(pool, object, index, 4),
        }
    }

    /// Asks for some things at once, and looks at the answers.
    fn ask(&mut self) {
        let mut asked: Vec<(Posted, Vec<(Req, u64)>)> = Vec::new();
        for _ in 0..1 + self.random.below(6) {
            let queue = self.random.below(2);
            let batch: Vec<(Req, u64)> =
                (0..1 + self.random.below(5)).map(|_| (self.request(queue), self.puts)).collect();
            let requests: Vec<Req> = batch.iter().map(|(request, _)| request.clone()).collect();
            asked.push((self.guest.post(queue as usize, &requests, Shape::Whole), batch));
        }
        for (posted, batch) in asked {
            let done = self.guest.wait(&posted);
            let requests: Vec<Req> = batch.iter().map(|(request, _)| request.clone()).collect();
            for ((request, put), answer) in batch.into_iter().zip(decode(&requests, &done)) {
                self.heed(&request, put, &answer);
            }
        }
    }

    fn heed(&mut self, request: &Req, put: u64, answer: &Answer) {
        let pool = u32::from_le_bytes(request.bytes[4..8].try_into().expect("four bytes"));
        let object = request.bytes[8];
        let index = u64::from_le_bytes(request.bytes[32..40].try_into().expect("eight bytes"));
        let place = (pool, object, index);
        let what = format!("opcode {} of {place:?}", request.opcode());
        match (request.opcode(), answer.status) {
            (opcode::PUT, status::OK) => drop(self.stored.insert(place, put)),
            (opcode::PUT, status::REFUSED) => drop(self.stored.remove(&place)),
            (opcode::GET, status::OK) => {
                let stored = self.stored.get(&place).unwrap_or_else(|| panic!("{what}: a page that was flushed"));
                assert_eq!(answer.page, Some(page(*stored)), "{what}: not the last page");
                if u16::from_le_bytes([request.bytes[2], request.bytes[3]]) == EXCLUSIVE {
                    self.stored.remove(&place);
                }
            }
            (opcode::GET, status::MISS) => {
                let stored = self.stored.remove(&place);
                assert!(pool != KEPT || stored.is_none(), "{what}: a persistent page is lost");
            }
            (opcode::FLUSH_PAGE, status::OK) => drop(self.stored.remove(&place)),
            (opcode::FLUSH_RANGE, status::OK) => {
                self.stored.retain(|(p, o, i), _| (*p, *o) != (pool, object) || !(index..index + 4).contains(i));
            }
            (_, status) => panic!("{what} was answered {status}"),
        }
    }

    /// Does something.
    pub(crate) fn step(&mut self) {
        match self.random.below(24) {
            0 => self.hello_again(),
            1 => self.hello_as_another(),
            2 => self.destroy_pools(),
            3 => {
                // The machine is paused.
                self.guest.stop_all();
                self.guest.start_all();
            }
            4 => {
                let queue = self.random.below(2) as usize;
                let at = self.guest.stop_queue(queue);
                let (ring, ram) = self.guest.ring(queue);
                assert_eq!(at, ring.used_index(ram), "where the queue was stopped");
                self.guest.start_queue(queue);
            }
            5 => assert_eq!(&self.guest.config(0, 4)[..], b"ZCCH"),
            _ => self.ask(),
        }
    }

    /// Looks at all persistent pages, and that the session is the one that it was.
    pub(crate) fn check(&mut self) {
        for object in 0..OBJECTS {
            for index in 0..INDEXES {
                let request = Req::get(KEPT, object as u8, index, 0);
                let answer = self.guest.submit((object % 2) as usize, std::slice::from_ref(&request)).remove(0);
                self.heed(&request, 0, &answer);
            }
        }
        assert_eq!(self.expect(Req::flush_pool(EMPTY), status::OK, "a pool without pages").value, 0);
        self.expect(Req::flush_pool(COMMON), status::OK, "the shared pool");
        assert_eq!(self.guest.hello(self.instance), (self.epoch, true), "the session is the one that it was");
        self.create_ephemeral();
    }
}
