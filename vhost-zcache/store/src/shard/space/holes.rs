// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which holes there are, by size: the heads of lists that run through the holes themselves.

use super::record::{MAX_WORDS, MIN_HOLE};

/// Bins are two words wide; holes of the largest record's size and above share the last.
const fn bins_for(largest: u32) -> usize {
    (largest as usize).div_ceil(2) + 1
}
const MAP_WORDS: usize = bins_for(MAX_WORDS).div_ceil(64);

/// No hole: location 0 is a segment's header.
pub(crate) const NIL: u32 = 0;

/// List heads of one lane's holes, with a bit for each list that is not empty.
pub(crate) struct Bins {
    heads: Box<[u32]>,
    map: [u64; MAP_WORDS],
}

impl Bins {
    /// For records of up to `largest` words, at most `MAX_WORDS`.
    pub(crate) fn new(largest: u32) -> Self {
        Self { heads: vec![NIL; bins_for(largest)].into(), map: [0; MAP_WORDS] }
    }

    fn last(&self) -> usize {
        self.heads.len() - 1
    }

    /// The bin a hole of that size belongs in.
    pub(crate) fn bin_of(&self, words: u32) -> Option<usize> {
        (words >= MIN_HOLE).then(|| (words as usize / 2).min(self.last()))
    }

    /// First holes of all bins.
    #[cfg(feature = "check")]
    pub(crate) fn heads(&self) -> impl Iterator<Item = (usize, u32)> {
        self.heads.iter().copied().enumerate()
    }

    pub(crate) fn head(&self, bin: usize) -> u32 {
        self.heads[bin]
    }

    pub(crate) fn set_head(&mut self, bin: usize, hole: u32) {
        self.heads[bin] = hole;
        let bit = 1 << (bin % 64);
        if hole == NIL {
            self.map[bin / 64] &= !bit;
        } else {
            self.map[bin / 64] |= bit;
        }
    }

    /// The first hole that surely has room for `words` words: the smallest class that fits.
    pub(crate) fn fitting(&self, words: u32) -> Option<u32> {
        let from = (words as usize).div_ceil(2).min(self.last());
        let mut at = from / 64;
        let mut bits = self.map[at] & (u64::MAX << (from % 64));
        while bits == 0 {
            at += 1;
            bits = *self.map.get(at)?;
        }
        Some(self.heads[at * 64 + bits.trailing_zeros() as usize])
    }
}
