// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where somebody who goes through all records goes on, after the shard was unlocked in between.
//!
//! A location means something only as long as the shard is locked: records come and go, and holes
//! join, so that what was the beginning of a record may next be in the middle of another's payload.
//! A bookmark is kept by the space itself, which moves it along when that happens.

use super::{FIRST, Location, Space};
use crate::arena::word::count;
use crate::shard::space::record::Head;

/// Who goes through the records. Each has one bookmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walker {
    /// Empties one segment.
    Compaction,
    /// Looks for cold pages in all segments.
    Cold,
}

/// A slot, and a word of it at which a record, a hole or the unwritten rest begins.
#[derive(Clone, Copy, Debug)]
struct Bookmark {
    slot: usize,
    word: u32,
}

/// The bookmarks of one space.
#[derive(Debug)]
pub(super) struct Bookmarks([Bookmark; 2]);

impl Default for Bookmarks {
    fn default() -> Self {
        Self([Bookmark { slot: 0, word: FIRST }; 2])
    }
}

impl Bookmarks {
    /// A hole begins at `at` now, and has `words` words: nothing begins within.
    pub(super) fn join(&mut self, at: Location, words: u32) {
        let (slot, start) = (at.slot(), at.word());
        for mark in &mut self.0 {
            if mark.slot == slot && (start + 1..start + words as usize).contains(&(mark.word as usize)) {
                mark.word = count(at.word());
            }
        }
    }

    /// A slot has another segment, or none.
    pub(super) fn leave(&mut self, slot: usize) {
        for mark in self.0.iter_mut().filter(|mark| mark.slot == slot) {
            mark.word = FIRST;
        }
    }
}

impl Space {
    /// Puts a walker's bookmark at the beginning of a slot.
    pub(crate) fn open_at(&mut self, walker: Walker, slot: usize) {
        self.bookmarks.0[walker as usize] = Bookmark { slot, word: FIRST };
    }

    /// The slot a walker's bookmark is in.
    pub(crate) fn bookmarked(&self, walker: Walker) -> usize {
        self.bookmarks.0[walker as usize].slot
    }

    /// The record or hole at a walker's bookmark, which is put behind it; `None` at the end of what
    /// was written into the segment, or when the slot has none.
    pub(in crate::shard) fn turn_page(&mut self, walker: Walker) -> Option<(Location, Head)> {
        let Bookmark { slot, word } = self.bookmarks.0[walker as usize];
        let tail = self.slots.get(slot)?.as_ref()?.tail;
        if word >= tail {
            return None;
        }
        let at = Location::new(slot, word);
        let (head, _) = self.walk(at)?;
        self.bookmarks.0[walker as usize].word = word + head.words();
        Some((at, head))
    }

    /// Puts a walker's bookmark back to what it was last given, to have it again.
    pub(in crate::shard) fn turn_back(&mut self, walker: Walker, at: Location) {
        self.bookmarks.0[walker as usize] = Bookmark { slot: at.slot(), word: count(at.word()) };
    }
}
