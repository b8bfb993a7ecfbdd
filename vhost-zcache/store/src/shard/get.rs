// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reading a page, and removing it if it turns out to be damaged.

use super::evict::{Departure, learn};
use super::space::record::{MAX_FREQUENCY, PageHead, PageName};
use super::{HEAD_WORDS, PageKey, Shard};
use crate::key::Page;
use crate::op::GetMode;

/// Words of a page that are asked for before it is read; the processor comes to ask for more by
/// itself.
const READ_WORDS: u32 = 192;

impl Shard {
    /// Copies a page's stored bytes out, for a guest whose pages are in `heap`.
    pub(crate) fn get(
        &mut self,
        heap: usize,
        key: &PageKey,
        mode: GetMode,
        epoch: u8,
        out: &mut Page,
    ) -> Option<(PageHead, PageName)> {
        if let Some(learned) = &self.learned[heap] {
            learned.get(learn::name(key.bucket_hash(), key.index), mode);
        }
        let (number, object, at) = self.find_page(key, READ_WORDS)?;
        let at = at?;
        if self.has_left(at) {
            self.remove_page(number, key.index);
            return None;
        }
        let head = self.space.page_head(at);
        let name = self.space.page_name(at);
        self.space.copy_payload(at, head, out);
        if mode == GetMode::Exclusive {
            let heap = self.space.heap_of(at);
            self.leave(heap, object.hash, key.index, Departure::Hit);
            self.remove_page(number, key.index);
        } else if head.epoch() != epoch || head.frequency() < MAX_FREQUENCY {
            let used = head.with_frequency(head.frequency().saturating_add(1)).with_epoch(epoch);
            self.space.set_word(at, used.0);
        }
        Some((head, name))
    }

    /// Removes a page if it still is the one of that name.
    pub(crate) fn remove_exact(&mut self, key: &PageKey, name: PageName) {
        let Some((number, _, Some(at))) = self.find_page(key, HEAD_WORDS) else { return };
        if self.space.page_name(at) == name {
            self.remove_page(number, key.index);
        }
    }
}
