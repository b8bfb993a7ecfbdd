// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which holes there are, by size: the heads of lists that run through the holes themselves.

use super::Location;
use super::record::{MAX_WORDS, MIN_HOLE};

/// Bins are two words wide; holes of the largest record's size and above share the last.
const fn bins_for(largest: u32) -> usize {
    (largest as usize).div_ceil(2) + 1
}
const MAP_WORDS: usize = bins_for(MAX_WORDS).div_ceil(64);

/// List heads of one lane's holes, with a bit for each list that is not empty.
pub(crate) struct Bins {
    heads: Box<[Location]>,
    map: [u64; MAP_WORDS],
}

impl Bins {
    /// For records of up to `largest` words, at most `MAX_WORDS`.
    pub(crate) fn new(largest: u32) -> Self {
        Self { heads: vec![Location::NONE; bins_for(largest)].into(), map: [0; MAP_WORDS] }
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
    pub(in crate::shard) fn heads(&self) -> impl Iterator<Item = (usize, Location)> {
        self.heads.iter().copied().enumerate()
    }

    pub(in crate::shard) fn head(&self, bin: usize) -> Location {
        self.heads[bin]
    }

    pub(in crate::shard) fn set_head(&mut self, bin: usize, hole: Location) {
        self.heads[bin] = hole;
        let bit = 1 << (bin % 64);
        if hole == Location::NONE {
            self.map[bin / 64] &= !bit;
        } else {
            self.map[bin / 64] |= bit;
        }
    }

    /// The first hole that surely has room for `words` words: the smallest class that fits.
    pub(in crate::shard) fn fitting(&self, words: u32) -> Option<Location> {
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
