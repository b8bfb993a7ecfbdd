// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the witness saw, the pages it holds, and the driver's rules.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use vm_memory::GuestAddress;
use zcache_protocol::{
    F_TAKE_BACK, GET_EXCLUSIVE, HELLO_RESUMED, HelloBody, KeyBody, Opcode, POOL_PERSISTENT, POOL_SHARED, PoolBody,
    Request, RequestResult, Status, VERSION, WANTED_MS_SHIFT,
};
use zerocopy::FromBytes;

/// Content of a page.
pub(super) type Page = Box<[u8; zcache_protocol::PAGE_SIZE]>;
type Object = [u8; zcache_protocol::OBJECT_SIZE];

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Queue it came on.
    pub queue: usize,
    /// Its bytes.
    pub request: Request,
}

impl Seen {
    /// Whether the request has this opcode.
    #[must_use]
    pub fn is(&self, opcode: Opcode) -> bool {
        self.request.header.opcode == opcode as u16
    }

    /// Instance of a HELLO.
    #[must_use]
    pub fn instance(&self) -> Option<[u8; zcache_protocol::ID_SIZE]> {
        let body = HelloBody::read_from_bytes(&self.request.body).ok()?;
        self.is(Opcode::Hello).then_some(body.instance)
    }
}

/// A chain on another queue that the device has not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) queue: usize,
    /// Pool of the chain's first request.
    pub(super) pool: u32,
}

/// What the device offers and wants at the moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// What is offered.
    pub(super) features: u32,
    /// What of that is known when HELLO comes.
    pub(super) known: u32,
    /// Answer to WANTED: pages and milliseconds.
    pub(super) wanted: (u32, u32),
}

/// Everything the witness knows of one driver.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Requests in the order in which they were executed.
    pub seen: Vec<Seen>,
    /// Rules of SPEC.md that the driver broke, each with what happened; see
    /// [`verdict`](Self::verdict).
    violations: Vec<String>,
    /// Reads of the configuration space.
    pub config_reads: u64,
    /// Writes to the configuration space.
    pub config_writes: u64,
    /// Pools that exist now: flags by id.
    pub pools: BTreeMap<u32, u16>,
    /// Device-writable buffers of chains that were taken and not answered.
    pub(super) held: Vec<(GuestAddress, u32)>,
    pages: HashMap<(u32, Object, u64), Page>,
    queue_of: HashMap<(u32, Object), usize>,
    /// Queues that still owe a FLUSH_POOL (ZC-DRV-15).
    unflushed: Vec<Waiting>,
    instance: Option<[u8; zcache_protocol::ID_SIZE]>,
    epoch: u64,
    /// Features that the driver has acknowledged.
    features: u32,
    /// When the driver may send WANTED again.
    ask_at: Option<Instant>,
}

impl Ledger {
    /// How many requests of this opcode came.
    #[must_use]
    pub fn count(&self, opcode: Opcode) -> usize {
        self.seen.iter().filter(|seen| seen.is(opcode)).count()
    }

    /// How many buffers the chains hold that were taken and not answered.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The broken rules, those that only the end of the run shows included.
    #[must_use]
    pub fn verdict(&self) -> Vec<String> {
        let owed = self.unflushed.iter().map(|chain| format!("ZC-DRV-15: a queue was not flushed: {chain:?}"));
        self.violations.iter().cloned().chain(owed).collect()
    }

    pub(super) fn violation(&mut self, sentence: &str, what: impl std::fmt::Display) {
        if self.violations.len() < 50 {
            self.violations.push(format!("{sentence}: {what}"));
        }
    }

    /// Executes one request as the specification says.
    ///
    /// `waiting` are the chains on other queues which were not taken yet.
    pub(super) fn execute(
        &mut self,
        queue: usize,
        waiting: &[Waiting],
        terms: Terms,
        request: &Request,
        put: Option<Page>,
    ) -> (RequestResult, Option<Page>) {
        self.seen.push(Seen { queue, request: *request });
        let flags = request.header.flags.get();
        let pool = request.header.pool.get();
        let Some(opcode) = Opcode::from_wire(request.header.opcode.get()) else {
            self.violation("format", format_args!("opcode {}", request.header.opcode));
            return (status(Status::Unsupported), None);
        };
        match opcode {
            Opcode::Hello => (self.hello(request, waiting, terms), None),
            _ if self.instance.is_none() => {
                self.violation("ZC-DRV-7", format_args!("{opcode:?} before any HELLO"));
                (status(Status::NoSession), None)
            }
            Opcode::PoolCreate => (self.create(pool, flags, request), None),
            Opcode::Wanted => (self.wanted(request, terms.wanted), None),
            _ if !self.pools.contains_key(&pool) => (status(Status::NoPool), None),
            Opcode::PoolDestroy => {
                if waiting.iter().any(|chain| chain.pool == pool) {
                    self.violation("ZC-DRV-9", format_args!("pool {pool} destroyed while in use: {waiting:?}"));
                }
                self.pools.remove(&pool);
                self.queue_of.retain(|(of, _), _| *of != pool);
                (removed(self.remove(|of, _, _| of == pool)), None)
            }
            Opcode::FlushPool => {
                // Requests that wait elsewhere come after this flush: their queues need their own.
                self.unflushed.retain(|chain| *chain != Waiting { queue, pool });
                self.unflushed.extend(waiting.iter().filter(|chain| chain.pool == pool));
                (removed(self.remove(|of, _, _| of == pool)), None)
            }
            Opcode::Put | Opcode::Get | Opcode::FlushPage | Opcode::FlushRange | Opcode::FlushObject => {
                self.keyed(queue, opcode, request, put)
            }
        }
    }

    fn hello(&mut self, request: &Request, waiting: &[Waiting], terms: Terms) -> RequestResult {
        if !waiting.is_empty() {
            self.violation("ZC-DRV-7", format_args!("HELLO while other queues hold requests: {waiting:?}"));
        }
        let Ok(hello) = HelloBody::read_from_bytes(&request.body) else { return status(Status::Invalid) };
        let features = hello.features.get();
        if features & !terms.features != 0 {
            self.violation("ZC-DRV-21", format_args!("{hello:?}"));
        }
        if hello.version.get() != VERSION || hello.reserved != [0; 16] {
            self.violation("format", format_args!("{hello:?}"));
        }
        if features & !terms.known != 0 {
            return status(Status::Unsupported);
        }
        self.features = features;
        self.queue_of.clear();
        self.ask_at = None;
        let resumed = self.instance == Some(hello.instance);
        if resumed {
            self.pools.retain(|_, flags| *flags & POOL_PERSISTENT != 0);
            let pools = self.pools.clone();
            self.remove(|of, _, _| !pools.contains_key(&of));
        } else {
            self.pools.clear();
            self.pages.clear();
            self.instance = Some(hello.instance);
            self.epoch += 1;
        }
        let mut result = status(Status::Ok);
        result.flags.set(if resumed { HELLO_RESUMED } else { 0 });
        result.value.set(self.epoch);
        result
    }

    fn wanted(&mut self, request: &Request, (pages, again): (u32, u32)) -> RequestResult {
        if self.features & F_TAKE_BACK == 0 {
            self.violation("ZC-DRV-22", "WANTED without TAKE_BACK");
            return status(Status::Unsupported);
        }
        if request.body != [0; 40] || request.header.flags.get() != 0 || request.header.pool.get() != 0 {
            self.violation("format", format_args!("{request:?}"));
        }
        let now = Instant::now();
        if self.ask_at.is_some_and(|at| now < at) {
            self.violation("ZC-DRV-22", "WANTED before its time");
        }
        if !self.pages.keys().any(|(pool, ..)| self.pools.get(pool).is_some_and(|flags| flags & POOL_PERSISTENT != 0)) {
            self.violation("ZC-DRV-22", "WANTED of a guest without persistent pages");
        }
        // A jiffy of the guest's is not one of the host's.
        self.ask_at = now.checked_add(Duration::from_millis(again.into()).mul_f64(0.9));
        let value = u64::from(again) << WANTED_MS_SHIFT | u64::from(pages);
        RequestResult { value: value.into(), ..status(Status::Ok) }
    }

    fn create(&mut self, pool: u32, flags: u16, request: &Request) -> RequestResult {
        let Ok(body) = PoolBody::read_from_bytes(&request.body) else { return status(Status::Invalid) };
        let shared = flags & POOL_SHARED != 0;
        if body.reserved != [0; 24] || shared != (body.uuid != [0; 16]) || flags & POOL_PERSISTENT != 0 && shared {
            self.violation("format", format_args!("POOL_CREATE flags {flags} {body:?}"));
        }
        match self.pools.insert(pool, flags) {
            Some(old) if old != flags => status(Status::Exists),
            _ => status(Status::Ok),
        }
    }

    fn keyed(
        &mut self,
        queue: usize,
        opcode: Opcode,
        request: &Request,
        put: Option<Page>,
    ) -> (RequestResult, Option<Page>) {
        let pool = request.header.pool.get();
        let Ok(key) = KeyBody::read_from_bytes(&request.body) else { return (status(Status::Invalid), None) };
        let (index, count) = (key.index.get(), key.count.get());
        let first = *self.queue_of.entry((pool, key.object)).or_insert(queue);
        if first != queue {
            self.violation("ZC-DRV-3", format_args!("{opcode:?} of one object on queue {queue} and on {first}"));
        }
        if count != 0 && opcode != Opcode::FlushRange || index != 0 && opcode == Opcode::FlushObject {
            self.violation("format", format_args!("{opcode:?} {key:?}"));
        }
        match opcode {
            Opcode::Put => {
                if let Some(page) = put {
                    self.pages.insert((pool, key.object, index), page);
                }
                (status(Status::Ok), None)
            }
            Opcode::Get => {
                let exclusive = request.header.flags.get() & GET_EXCLUSIVE != 0;
                let private_ephemeral = self.pools.get(&pool) == Some(&0);
                if exclusive != private_ephemeral {
                    self.violation("ZC-DRV-11", format_args!("exclusive {exclusive} in pool {pool}"));
                }
                let at = (pool, key.object, index);
                let page = if exclusive { self.pages.remove(&at) } else { self.pages.get(&at).cloned() };
                (status(if page.is_some() { Status::Ok } else { Status::Miss }), page)
            }
            Opcode::FlushPage => (removed(self.pages.remove(&(pool, key.object, index)).map_or(0, |_| 1)), None),
            Opcode::FlushRange => {
                let hit = |of, object: &Object, at: u64| {
                    (of, *object) == (pool, key.object) && at >= index && at - index < count
                };
                (removed(self.remove(hit)), None)
            }
            _ => (removed(self.remove(|of, object, _| (of, *object) == (pool, key.object))), None),
        }
    }

    /// Removes the pages that `which` chooses and says how many they were.
    fn remove(&mut self, which: impl Fn(u32, &Object, u64) -> bool) -> u64 {
        let before = self.pages.len();
        self.pages.retain(|(pool, object, index), _| !which(*pool, object, *index));
        (before - self.pages.len()) as u64
    }
}

fn status(status: Status) -> RequestResult {
    RequestResult { status: (status as u16).into(), ..RequestResult::default() }
}

fn removed(pages: u64) -> RequestResult {
    RequestResult { value: pages.into(), ..status(Status::Ok) }
}
