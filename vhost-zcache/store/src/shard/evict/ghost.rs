// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Names of pages that left, to be recognised when they are put again soon.
//!
//! How long a name is remembered matters: for as many departures as nine tenths of the pages
//! held, which is the main queue's share. A page that returns later than that would have left the
//! main queue, too, before it returned. If it were let in, a loop somewhat longer than the store
//! would push everything through the main queue and never hit.

use std::sync::Arc;

use zerocopy::FromZeros;

use crate::accounting::{Account, Charge, Use};

/// Names per bucket.
const WAYS: usize = 8;
/// Least and most names.
const LEAST: usize = 1 << 9;
const MOST: usize = 1 << 22;
/// Steps of time within which a name is remembered, at least.
const STEPS: u64 = 512;

#[derive(Clone, Copy, Default, FromZeros)]
struct Name {
    /// 16 bits of the name; 0 marks an empty place.
    print: u16,
    /// Low bits of the time it left.
    left: u16,
}

/// A table of fingerprints in buckets of eight, the newest first. A false recognition (8 in
/// 65,536) costs a page a round in the wrong queue.
pub(crate) struct Ghosts {
    buckets: Vec<[Name; WAYS]>,
    charge: Charge,
    /// Departures so far.
    departures: u64,
    /// Departures per step of time, as a shift.
    shift: u32,
}

impl Ghosts {
    pub(crate) fn new(account: Arc<Account>) -> Self {
        Self { buckets: Vec::new(), charge: Charge::none(account, Use::Kept), departures: 0, shift: 0 }
    }

    /// Makes room for the names of a heap of `pages` pages. Growing forgets: the names come back
    /// within one turnover, and nothing is rehashed on a request's path.
    fn fit(&mut self, pages: u64) {
        let names = self.buckets.len() * WAYS;
        // A quarter more than are valid, because buckets fill unevenly.
        let wanted = usize::try_from(pages + pages / 8).unwrap_or(MOST);
        let wanted = wanted.clamp(LEAST, MOST);
        if wanted <= names {
            return;
        }
        let wanted = wanted.next_power_of_two();
        let bytes = ((wanted - names) * size_of::<Name>()) as u64;
        if self.charge.grow(bytes).is_err() {
            return;
        }
        // Of memory that is zero already: writing to all of it would take milliseconds for a large
        // heap, and the shard is locked.
        if let Ok(buckets) = <[Name; WAYS]>::new_vec_zeroed(wanted / WAYS) {
            self.buckets = buckets;
            self.shift = (wanted as u64 / STEPS).max(1).ilog2();
        } else {
            self.charge.shrink(bytes);
        }
    }

    fn place(&self, name: u64) -> (usize, u16) {
        let bucket = (name >> 16) as usize & (self.buckets.len() - 1);
        (bucket, (name & 0xffff).max(1) as u16)
    }

    fn now(&self) -> u16 {
        (self.departures >> self.shift & 0xffff) as u16
    }

    /// Remembers a page that left a heap of `pages` pages.
    pub(crate) fn remember(&mut self, name: u64, pages: u64) {
        self.fit(pages);
        if self.buckets.is_empty() {
            return;
        }
        self.departures += 1;
        let (bucket, print) = self.place(name);
        let left = self.now();
        let ring = &mut self.buckets[bucket];
        ring.copy_within(0..WAYS - 1, 1);
        ring[0] = Name { print, left };
    }

    /// Whether a page left a heap that now has `pages` pages a short while ago; it is forgotten
    /// then.
    pub(crate) fn recall(&mut self, name: u64, pages: u64) -> bool {
        if self.buckets.is_empty() {
            return false;
        }
        let (bucket, print) = self.place(name);
        let now = self.now();
        let span = (pages - pages / 10) >> self.shift;
        let ring = &mut self.buckets[bucket];
        let Some(at) = ring.iter().position(|known| known.print == print) else { return false };
        let age = now.wrapping_sub(ring[at].left);
        ring.copy_within(at + 1.., at);
        ring[WAYS - 1] = Name::default();
        u64::from(age) <= span
    }
}
