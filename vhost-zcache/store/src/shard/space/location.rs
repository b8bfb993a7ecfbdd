// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where records are. Nothing outside the shard can name the type, so that no location outlives the
//! lock it was found under: who goes on after unlocking keeps a [bookmark](super::bookmark).

use std::fmt;
use std::ops::Add;

use super::{MAX_SLOTS, OFFSET_BITS};
use crate::arena::memory::SEGMENT_WORDS;
use crate::arena::word::{low, pair, split};

/// Where a record or a hole begins: a slot of the space and a word of the segment in it. The space
/// hands it out; it means something only as long as the shard is locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::shard) struct Location(u32);

impl Location {
    /// No location: word 0 of a segment is its header's.
    pub(in crate::shard) const NONE: Self = Self(0);

    /// A word of the segment in a slot.
    pub(in crate::shard) fn new(slot: usize, word: u32) -> Self {
        debug_assert!(slot < MAX_SLOTS);
        Self(low((slot as u64) << OFFSET_BITS) | word)
    }

    /// The location in a cell of the index.
    pub(in crate::shard) fn from_cell(cell: u32) -> Self {
        Self(cell)
    }

    /// As a cell of the index keeps it.
    pub(in crate::shard) const fn cell(self) -> u32 {
        self.0
    }

    /// Its slot.
    pub(in crate::shard) fn slot(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    /// Its word within the segment.
    pub(in crate::shard) fn word(self) -> usize {
        (self.0 as usize) & (SEGMENT_WORDS - 1)
    }

    /// What is behind a record of so many words; word 0 of the next slot behind the last of a
    /// segment.
    pub(in crate::shard) fn behind(self, words: u32) -> Self {
        Self(self.0.wrapping_add(words))
    }

    /// Two neighbours in a list as one word of the arena.
    pub(in crate::shard) fn pair(first: Self, second: Self) -> u64 {
        pair(first.0, second.0)
    }

    /// The two neighbours in a word of the arena.
    pub(in crate::shard) fn split(word: u64) -> (Self, Self) {
        let (first, second) = split(word);
        (Self(first), Self(second))
    }
}

/// A word further on in the same segment.
impl Add<u32> for Location {
    type Output = Self;

    fn add(self, words: u32) -> Self {
        Self(self.0 + words)
    }
}

impl fmt::LowerHex for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
