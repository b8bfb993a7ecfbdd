// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Names of pages that left, to be recognised when they are put again.

use std::sync::Arc;

use crate::accounting::{Account, Charge, Use};

/// Names per bucket.
const WAYS: usize = 8;
/// Least and most names.
const LEAST: usize = 1 << 9;
const MOST: usize = 1 << 22;

/// A table of 16-bit fingerprints in buckets of eight, each bucket a ring: the newest name
/// replaces the oldest of its bucket. A false recognition (8 in 65,536) costs a page a round in
/// the wrong queue.
pub(crate) struct Ghosts {
    buckets: Vec<[u16; WAYS]>,
    charge: Charge,
}

impl Ghosts {
    pub(crate) fn new(account: Arc<Account>) -> Self {
        Self { buckets: Vec::new(), charge: Charge::none(account, Use::Kept) }
    }

    /// Makes room for as many names as there are pages. Growing forgets: the names come back
    /// within one turnover, and nothing is rehashed on a request's path.
    fn fit(&mut self, pages: u64) {
        let pages = usize::try_from(pages).unwrap_or(MOST);
        let names = self.buckets.len() * WAYS;
        if pages <= names && names > 0 {
            return;
        }
        let wanted = pages.next_power_of_two().clamp(LEAST, MOST);
        if wanted <= names {
            return;
        }
        let bytes = ((wanted - names) * size_of::<u16>()) as u64;
        if self.charge.grow(bytes).is_ok() {
            self.buckets = vec![[0; WAYS]; wanted / WAYS];
        }
    }

    fn place(&self, name: u64) -> (usize, u16) {
        let bucket = (name >> 16) as usize & (self.buckets.len() - 1);
        // 0 marks an empty place.
        (bucket, (name & 0xffff).max(1) as u16)
    }

    /// Remembers a page that left a heap of `pages` pages.
    pub(crate) fn remember(&mut self, name: u64, pages: u64) {
        self.fit(pages);
        if self.buckets.is_empty() {
            return;
        }
        let (bucket, print) = self.place(name);
        let ring = &mut self.buckets[bucket];
        ring.copy_within(0..WAYS - 1, 1);
        ring[0] = print;
    }

    /// Whether the page is remembered; it is forgotten then.
    pub(crate) fn recall(&mut self, name: u64) -> bool {
        if self.buckets.is_empty() {
            return false;
        }
        let (bucket, print) = self.place(name);
        let ring = &mut self.buckets[bucket];
        let Some(at) = ring.iter().position(|known| *known == print) else { return false };
        ring.copy_within(at + 1.., at);
        ring[WAYS - 1] = 0;
        true
    }
}
