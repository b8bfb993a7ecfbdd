// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Segments that are resident before a heap needs them.
//!
//! The kernel takes microseconds to make a page resident, as long as compressing one takes. So
//! while the heaps of a domain grow, the background makes whole blocks ready, which costs a sixth
//! of that, and the shards take segments from here. It holds none of their locks meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use super::memory::{Arena, BLOCK, SEGMENT_BYTES, Segment};
use crate::accounting::{Account, Charge, Use};
use crate::op::Refusal;

/// What one opened segment adds to the measure of growth, of which each round of the background
/// takes one away: five opened in a second, at rounds of 20 ms, hold it.
const OPENED: u32 = 10;
/// From here on segments are made ready. A heap that grows more slowly would not use them before
/// they go back.
const FAST: u32 = 4 * OPENED;

/// Wakes the background thread, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    thread: OnceLock<Thread>,
    asked: AtomicBool,
    /// The thread sleeps until it is roused.
    idle: AtomicBool,
}

impl Wake {
    /// Names the thread to wake.
    pub(crate) fn set_thread(&self, thread: Thread) {
        let _ = self.thread.set(thread);
    }

    fn ask(&self) {
        // What the caller wants was noted before, and is seen by who finds that it was asked.
        if !self.asked.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Wakes the thread if it sleeps because there is nothing to do.
    pub(crate) fn rouse(&self) {
        if self.idle.load(Ordering::SeqCst)
            && self.idle.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Announces whether the thread will sleep for long; then what is done from now on rouses it.
    pub(crate) fn announce_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::SeqCst);
    }

    /// Whether nobody has roused the thread since it announced that it would sleep.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::SeqCst)
    }

    /// Wakes the thread whatever it is waiting for.
    pub(crate) fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Whether anybody asked since the last call.
    pub(crate) fn asked(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }
}

/// A segment that is paid for and in no heap's shard yet.
pub(crate) struct Spare {
    // Dropped before the charge: memory is paid for until it is returned.
    pub(crate) segment: Segment,
    pub(crate) charge: Charge,
}

/// Segments of a heap that should be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// For all shards together: a block is dealt out to several.
    Shared(usize),
    /// For the shard that asks, whose blocks go back to the host whole when all of its pages do.
    Apart(usize),
}

/// Segments that are ready.
#[derive(Default)]
struct Stock {
    spares: Vec<Spare>,
    /// Segments that should be ready.
    wanted: usize,
}

impl Stock {
    fn is_short(&self) -> bool {
        self.spares.len() < self.wanted
    }
}

/// Where a block is wanted, and who pays for it.
struct Lacking {
    heap: usize,
    stock: usize,
    account: Arc<Account>,
    purpose: Use,
}

/// What one heap has ready.
struct Supply {
    account: Arc<Account>,
    purpose: Use,
    /// The shared one, and one for each of the first shards.
    stocks: Vec<Stock>,
}

impl Supply {
    fn new(account: Arc<Account>, purpose: Use) -> Self {
        Self { account, purpose, stocks: vec![Stock::default()] }
    }

    /// Takes a segment for a shard, of its own or else of the shared ones. Returns whether more
    /// should be ready from now on.
    fn take(&mut self, shard: u16, wanted: Wanted) -> (Option<Spare>, bool) {
        let own = usize::from(shard) + 1;
        if self.stocks.len() <= own {
            self.stocks.resize_with(own + 1, Stock::default);
        }
        let (shared, apart) = match wanted {
            Wanted::Shared(number) => (number, 0),
            Wanted::Apart(number) => (0, number),
        };
        self.stocks[0].wanted = shared;
        self.stocks[own].wanted = apart;
        let spare = self.stocks[own].spares.pop().or_else(|| self.stocks[0].spares.pop());
        (spare, self.stocks[0].is_short() || self.stocks[own].is_short())
    }
}

/// The ready segments of one domain.
pub(crate) struct Ready {
    /// By number of the heap.
    supplies: Mutex<Vec<Option<Supply>>>,
    /// Held while a block is made that is paid for and in no supply yet. Taken before `supplies`.
    making: Mutex<()>,
    /// A heap of the domain grew since the last look. A hint only.
    grew: AtomicBool,
    /// How fast heaps open segments.
    pace: AtomicU32,
    wake: Arc<Wake>,
}

impl Ready {
    pub(crate) fn new(wake: Arc<Wake>) -> Self {
        Self {
            supplies: Mutex::default(),
            making: Mutex::default(),
            grew: AtomicBool::new(false),
            pace: AtomicU32::new(0),
            wake,
        }
    }

    fn supplies(&self) -> MutexGuard<'_, Vec<Option<Supply>>> {
        // Whole whenever the lock is free.
        self.supplies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to supply a heap, which has that number in all shards.
    pub(crate) fn add(&self, heap: usize, account: Arc<Account>, purpose: Use) {
        let mut supplies = self.supplies();
        let length = supplies.len().max(heap + 1);
        supplies.resize_with(length, || None);
        supplies[heap] = Some(Supply::new(account, purpose));
    }

    /// Ends the supply of the heaps that `which` is true of, and gives back what they did not use.
    pub(crate) fn remove(&self, which: impl Fn(usize) -> bool) {
        let mut supplies = self.supplies();
        let removed: Vec<_> =
            supplies.iter_mut().enumerate().filter_map(|(heap, supply)| supply.take_if(|_| which(heap))).collect();
        drop(supplies);
        drop(removed);
        // A block that is being made finds no supply and goes.
        drop(self.making());
    }

    fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a heap of the domain grows.
    pub(crate) fn note_growth(&self) {
        self.grew.store(true, Ordering::Relaxed);
    }

    /// Notes that a heap of the domain needs a segment.
    pub(crate) fn note_opening(&self) {
        self.note_growth();
        let faster = |pace: u32| Some((pace + OPENED).min(2 * FAST));
        let _ = self.pace.fetch_update(Ordering::Relaxed, Ordering::Relaxed, faster);
    }

    /// Whether any heap grew since the last call; to be called once a round.
    pub(crate) fn grew(&self) -> bool {
        let slower = |pace: u32| pace.checked_sub(1);
        let _ = self.pace.fetch_update(Ordering::Relaxed, Ordering::Relaxed, slower);
        self.grew.swap(false, Ordering::Relaxed)
    }

    /// Takes a segment for a heap in a shard, if one is ready, and has the background see to it
    /// that as many are as are wanted if heaps grow fast.
    pub(crate) fn take(&self, heap: usize, shard: u16, wanted: Wanted) -> Option<Spare> {
        let wanted = if self.pace.load(Ordering::Relaxed) < FAST { Wanted::Shared(0) } else { wanted };
        let mut supplies = self.supplies();
        let (spare, lacking) = supplies.get_mut(heap)?.as_mut()?.take(shard, wanted);
        drop(supplies);
        if lacking {
            self.wake.ask();
        }
        spare
    }

    /// Makes blocks until every heap has what it wants, or as far as memory goes.
    pub(crate) fn make(&self, arena: &Arc<Arena>) {
        loop {
            let _making = self.making();
            let Some(Lacking { heap, stock, account, purpose }) = self.lacking() else { return };
            let made = block(arena, &account, purpose);
            let mut supplies = self.supplies();
            let supply = supplies.get_mut(heap).and_then(Option::as_mut);
            let supply = supply.filter(|supply| Arc::ptr_eq(&supply.account, &account));
            match (supply.and_then(|supply| supply.stocks.get_mut(stock)), made) {
                (Some(stock), Ok(spares)) => stock.spares.extend(spares),
                // The next one that finds nothing asks again.
                (Some(stock), Err(_)) => stock.wanted = 0,
                (None, unused) => {
                    drop(supplies);
                    drop(unused);
                }
            }
        }
    }

    /// The first stock in which there is less than is wanted.
    fn lacking(&self) -> Option<Lacking> {
        self.supplies().iter().enumerate().find_map(|(heap, supply)| {
            let supply = supply.as_ref()?;
            let stock = supply.stocks.iter().position(Stock::is_short)?;
            Some(Lacking { heap, stock, account: Arc::clone(&supply.account), purpose: supply.purpose })
        })
    }

    /// Gives at most `most` ready segments of each heap back, and lets nobody make more for now;
    /// returns how many bytes that were.
    pub(crate) fn trim(&self, most: usize) -> u64 {
        let mut spares = Vec::new();
        for supply in self.supplies().iter_mut().flatten() {
            let mut more = most;
            for stock in &mut supply.stocks {
                stock.wanted = 0;
                let left = stock.spares.len().saturating_sub(more);
                let trimmed = stock.spares.drain(left..);
                more -= trimmed.len();
                spares.extend(trimmed);
            }
        }
        let bytes = spares.iter().map(|spare| spare.charge.bytes()).sum();
        Segment::empty(spares.iter_mut().map(|spare| &mut spare.segment));
        bytes
    }

    /// Checks that all is paid for.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) -> Result<(), String> {
        let supplies = self.supplies();
        let mut spares = supplies.iter().flatten().flat_map(|supply| &supply.stocks).flat_map(|stock| &stock.spares);
        let right = |spare: &Spare| spare.charge.bytes() == (spare.segment.populated() * 8) as u64;
        if spares.all(right) { Ok(()) } else { Err("a ready segment is charged wrongly".to_owned()) }
    }
}

/// Pays for a block and takes it, unless so little is left under a limit that it is for others.
fn block(arena: &Arc<Arena>, account: &Arc<Account>, purpose: Use) -> Result<Vec<Spare>, Refusal> {
    let paid = |_| {
        let mut charge = Charge::none(Arc::clone(account), purpose);
        charge.grow(SEGMENT_BYTES as u64).map(|()| charge)
    };
    let charges: Vec<Charge> = (0..BLOCK).map(paid).collect::<Result<_, _>>()?;
    if account.is_tight() {
        return Err(Refusal::NoMemory);
    }
    let segments = arena.take_block().map_err(|_| Refusal::NoMemory)?;
    Ok(segments.into_iter().zip(charges).map(|(segment, charge)| Spare { segment, charge }).collect())
}
