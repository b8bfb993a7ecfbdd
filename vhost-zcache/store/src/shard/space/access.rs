// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reading and writing records at their locations.

use zerocopy::IntoBytes;

use super::record::{Head, ObjectName, PageHead, PageName};
use super::{Location, Space};
use crate::key::{PAGE_SIZE, Page};
use crate::shard::index::nodes::Node;

impl Space {
    /// Heap of the record at `at`.
    pub(in crate::shard) fn heap_of(&self, at: Location) -> usize {
        self.slot(at.slot()).heap
    }

    pub(in crate::shard) fn word(&self, at: Location) -> u64 {
        self.slot(at.slot()).segment.words()[at.word()]
    }

    pub(in crate::shard) fn set_word(&mut self, at: Location, word: u64) {
        self.slot_mut(at.slot()).segment.words_mut()[at.word()] = word;
    }

    /// Asks for the first `words` words of a record, ahead of reading it.
    pub(in crate::shard) fn prefetch(&self, at: Location, words: u32) {
        if let Some(number) = self.numbers.get(at.slot()) {
            self.arena.prefetch(*number, at.word(), words as usize);
        }
    }

    /// Stores a head after everything written before.
    pub(in crate::shard) fn publish(&mut self, at: Location, head: u64) {
        self.slot_mut(at.slot()).segment.publish(at.word(), head);
    }

    pub(in crate::shard) fn words(&self, at: Location, words: u32) -> &[u64] {
        let from = at.word();
        &self.slot(at.slot()).segment.words()[from..from + words as usize]
    }

    pub(in crate::shard) fn words_mut(&mut self, at: Location, words: u32) -> &mut [u64] {
        let from = at.word();
        &mut self.slot_mut(at.slot()).segment.words_mut()[from..from + words as usize]
    }

    /// Copies a record over a hole.
    pub(in crate::shard) fn copy(&mut self, from: Location, to: Location, words: u32) {
        let (source, target) = (from.slot(), to.slot());
        if source == target {
            let at = from.word();
            let range = at + 1..at + words as usize;
            self.slot_mut(source).segment.words_mut().copy_within(range, to.word() + 1);
        } else if let Ok([Some(source), Some(target)]) = self.slots.get_disjoint_mut([source, target]) {
            let source = &source.segment.words()[from.word()..][..words as usize];
            target.segment.words_mut()[to.word()..][1..words as usize].copy_from_slice(&source[1..]);
        }
        let head = self.word(from);
        self.publish(to, head);
    }

    /// Head of the page at `at`.
    pub(in crate::shard) fn page_head(&self, at: Location) -> PageHead {
        PageHead(self.word(at))
    }

    /// Copies a page's stored bytes out.
    pub(in crate::shard) fn copy_payload(&self, at: Location, head: PageHead, out: &mut Page) {
        let words = self.words(at, head.words());
        let payload = words[head.payload_at() as usize..].as_bytes();
        let length = head.length().min(PAGE_SIZE);
        out[..length].copy_from_slice(&payload[..length]);
    }

    /// Name of the page at `at`.
    pub(in crate::shard) fn page_name(&self, at: Location) -> PageName {
        let words = self.words(at, 3);
        PageName::read([words[1], words[2]])
    }

    /// Number of the object whose name is at `at`.
    pub(in crate::shard) fn object_at(&self, at: Location) -> Node {
        ObjectName::object(self.word(at + 1))
    }

    /// The head at `at`, and the location behind it; `None` at the tail.
    pub(in crate::shard) fn walk(&self, at: Location) -> Option<(Head, Location)> {
        // Word 0 is a header: the record before it ended at the end of its segment.
        if at.word() == 0 {
            return None;
        }
        let slot = self.slot(at.slot());
        if at.word() >= slot.tail as usize {
            return None;
        }
        let head = Head::read(slot.segment.words()[at.word()]);
        let words = head.words();
        (words > 0).then_some((head, at.behind(words)))
    }
}

/// Copies bytes into words; the rest of the last word becomes zero.
pub(crate) fn copy_in(words: &mut [u64], bytes: &[u8]) {
    if let Some(last) = words.last_mut() {
        *last = 0;
    }
    words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
}
