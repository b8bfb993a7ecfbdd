// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cold tier: pages not used for a while are stored again, smaller, by a slower codec.
//!
//! Time is coarse: each record keeps the epoch of its last use, a count of an eighth of the
//! configured age. One page at a time is copied out under the shard's lock, recompressed
//! without it, and put in place of the old record if that is still the one that was copied.

use std::time::{Duration, Instant};

use crate::codec::{Codec, ColdEncoder, Scratch};
use crate::engine::domain::Domain;
use crate::key::{PAGE_SIZE, Page};
use crate::shard::Shard;
use crate::shard::space::record::{Head, PageHead, PageName, PayloadSum};
use crate::shard::space::{FIRST, location, slot_of};
use crate::stats::Contents;

/// Epochs that make up the configured age.
const EPOCHS: u32 = 8;
/// A cold copy must be smaller than 15/16 of the page's bytes to be worth a slower get.
const WORTH: (usize, usize) = (15, 16);
/// Records looked at while a shard is locked.
const LOOKED_AT: usize = 256;

/// How cold pages are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdConfig {
    /// Pages not used for this long are cold, give or take an eighth.
    pub after: Duration,
    /// Share of one CPU that recompression may take, in percent.
    pub cpu_percent: u32,
}

impl Default for ColdConfig {
    /// Cold after a minute, a tenth of a CPU.
    fn default() -> Self {
        Self { after: Duration::from_secs(60), cpu_percent: 10 }
    }
}

impl ColdConfig {
    /// The epoch at a time since the start.
    pub(crate) fn epoch(&self, now: Duration) -> u8 {
        let length = (self.after / EPOCHS).max(Duration::from_millis(1));
        ((now.as_millis() / length.as_millis()) & 0xff) as u8
    }
}

/// What recompression needs to go on where it stopped.
pub(crate) struct ColdWorker {
    encoder: ColdEncoder,
    scratch: Scratch,
    page: Box<Page>,
}

/// A page that may be worth recompressing.
struct Candidate {
    at: u32,
    head: PageHead,
    name: PageName,
}

impl ColdWorker {
    pub(crate) fn new() -> Option<Self> {
        let encoder = ColdEncoder::new()?;
        Some(Self { encoder, scratch: Scratch::new(), page: Box::new([0; PAGE_SIZE]) })
    }

    /// Recompresses cold pages of a shard until it was gone through once or `budget` is used up;
    /// returns whether the end was reached.
    pub(crate) fn run(&mut self, domain: &Domain, shard: usize, epoch: u8, budget: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < budget {
            let mut guard = domain.lock(shard);
            let found = guard.next_cold(epoch, &mut self.scratch.stored);
            drop(guard);
            match found {
                Search::Found(candidate) => self.recompress(domain, shard, &candidate),
                Search::Paused => {}
                Search::Done => return true,
            }
        }
        false
    }

    fn recompress(&mut self, domain: &Domain, shard: usize, candidate: &Candidate) {
        let Candidate { at, head, name } = *candidate;
        let stored = self.scratch.stored.get(..head.length()).unwrap_or_default();
        let intact = PayloadSum::new(stored).finish(head, name) == head.checksum()
            && self.scratch.decode(head.codec(), head.length(), &mut self.page).is_ok();
        let most = head.length() * WORTH.0 / WORTH.1;
        let smaller = if intact { self.encoder.encode(&self.page, most) } else { None };
        domain.lock(shard).settle(at, name, smaller);
    }
}

/// Outcome of a look for cold pages.
enum Search {
    Found(Candidate),
    /// Enough looked at for once.
    Paused,
    /// The end of the shard was reached.
    Done,
}

impl Shard {
    /// Finds the next page that is cold and not yet settled, and copies its stored bytes.
    fn next_cold(&mut self, epoch: u8, out: &mut Page) -> Search {
        if self.cold_cursor == 0 {
            self.cold_cursor = location(0, FIRST);
        }
        for _ in 0..LOOKED_AT {
            let slot = slot_of(self.cold_cursor);
            if slot >= self.space.slots.len() {
                self.cold_cursor = 0;
                return Search::Done;
            }
            let in_use = matches!(&self.space.slots[slot], Some(slot) if !slot.draining);
            let step = if in_use { self.space.walk(self.cold_cursor) } else { None };
            let Some((head, next)) = step else {
                if slot + 1 >= self.space.slots.len() {
                    self.cold_cursor = 0;
                    return Search::Done;
                }
                self.cold_cursor = location(slot + 1, FIRST);
                continue;
            };
            let at = std::mem::replace(&mut self.cold_cursor, next);
            // The last record of a segment is followed by the next segment's header.
            if crate::shard::space::word_of(next) == 0 {
                self.cold_cursor = next.wrapping_add(FIRST);
            }
            if let Head::Page(head) = head
                && is_cold(head, epoch)
            {
                let name = self.space.page_name(at);
                self.space.copy_payload(at, head, out);
                return Search::Found(Candidate { at, head, name });
            }
        }
        Search::Paused
    }

    /// Replaces a page's record by a smaller one, if it still is the page that was copied;
    /// without a smaller one the page is marked, so that it is not tried again.
    fn settle(&mut self, at: u32, name: PageName, smaller: Option<&[u8]>) {
        let in_use = matches!(self.space.slots.get(slot_of(at)), Some(Some(_)));
        let Some((Head::Page(head), _)) = in_use.then(|| self.space.walk(at)).flatten() else {
            return;
        };
        if self.space.page_name(at) != name || head.is_settled() {
            return;
        }
        let heap = self.space.heap_of(at);
        let replacement = smaller.and_then(|bytes| {
            let new = PageHead::new(Codec::Zstd, bytes.len(), head.is_linked(), head.epoch())
                .with_frequency(head.frequency())
                .with_main(head.is_main())
                .with_settled();
            let new = new.with_checksum(PayloadSum::new(bytes).finish(new, name));
            let place = self.space.alloc(heap, new.words()).ok()?;
            Some((new, place, bytes))
        });
        let Some((new, place, bytes)) = replacement else {
            self.space.set_word(at, head.with_settled().0);
            return;
        };
        self.write_page(place, new, name, bytes);
        if head.is_linked() {
            self.space.requeue(at, place);
        }
        self.point_to(name, place);
        let pool = self.pool_of(name);
        self.count(pool, at, head, Contents::sub);
        self.count(pool, place, new, Contents::add);
        self.space.free(at, head.words());
    }
}

fn is_cold(head: PageHead, epoch: u8) -> bool {
    let age = epoch.wrapping_sub(head.epoch());
    let worth = matches!(head.codec(), Codec::Lz4 | Codec::Raw);
    worth && !head.is_settled() && u32::from(age) >= EPOCHS
}
