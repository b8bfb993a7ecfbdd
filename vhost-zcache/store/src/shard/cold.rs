// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The shard's part of the cold tier: which pages are cold, and their records replaced by smaller
//! ones. Between the two the shard is unlocked, and the page is known by its name only.

use super::index::objects::Object;
use super::space::Location;
use super::space::bookmark::Walker;
use super::space::record::{Head, PageHead, PageName, PayloadSum};
use super::{PoolSlot, Shard};
use crate::codec::Codec;
use crate::key::Page;
use crate::stats::Contents;

/// Epochs that make up the configured age.
pub(crate) const EPOCHS: u32 = 8;
/// Records looked at while a shard is locked.
const LOOKED_AT: usize = 256;

/// A page that may be worth recompressing.
pub(crate) struct ColdPage {
    pool: PoolSlot,
    /// The part of the object's hash that the index keeps.
    hash: u32,
    pub(crate) head: PageHead,
    pub(crate) name: PageName,
}

/// Outcome of a look for cold pages.
pub(crate) enum Search {
    Found(ColdPage),
    /// Enough looked at for once.
    Paused,
    /// The end of the shard was reached.
    Done,
}

impl Shard {
    /// Begins to look for cold pages from the first segment on.
    pub(crate) fn begin_cold(&mut self) {
        self.space.open_at(Walker::Cold, 0);
    }

    /// Finds the next page that is cold and not yet settled, and copies its stored bytes. Tells
    /// `young` the ages of those that may become cold.
    pub(crate) fn next_cold(&mut self, epoch: u8, out: &mut Page, mut young: impl FnMut(u32)) -> Search {
        for _ in 0..LOOKED_AT {
            let slot = self.space.bookmarked(Walker::Cold);
            if slot >= self.space.slots.len() {
                return Search::Done;
            }
            let Some((at, head)) = self.space.turn_page(Walker::Cold) else {
                self.space.open_at(Walker::Cold, slot + 1);
                continue;
            };
            let Head::Page(head) = head else { continue };
            if head.is_settled() || !matches!(head.codec(), Codec::Lz4 | Codec::Raw) {
                continue;
            }
            let age = u32::from(epoch.wrapping_sub(head.epoch()));
            if age < EPOCHS {
                young(age);
                continue;
            }
            let name = self.space.page_name(at);
            let object = Object::read(&self.nodes, name.object);
            if !object.is_retired() && !self.pool_mut(object.pool).retired {
                self.space.copy_payload(at, head, out);
                return Search::Found(ColdPage { pool: object.pool, hash: object.hash, head, name });
            }
        }
        Search::Paused
    }

    /// Where a page is, if it still is the one of that name.
    fn locate(&self, page: &ColdPage) -> Option<Location> {
        let objects = &self.pool(page.pool)?.objects;
        let object = objects.find_number(&self.nodes, page.hash, page.name.object)?;
        let at = object.tree.get(&self.nodes, page.name.index)?;
        (self.space.page_name(at) == page.name).then_some(at)
    }

    /// Replaces a page's record by a smaller one, if it still is the page that was copied; without
    /// a smaller one the page is marked, so that it is not tried again.
    pub(crate) fn settle(&mut self, page: &ColdPage, smaller: Option<&[u8]>) {
        let Some(at) = self.locate(page) else { return };
        let head = self.space.page_head(at);
        let heap = self.space.heap_of(at);
        let replacement = smaller.and_then(|bytes| {
            let new = PageHead::new(Codec::Zstd, bytes.len(), head.is_linked(), head.epoch())
                .with_frequency(head.frequency())
                .with_main(head.is_main())
                .with_settled();
            let new = new.with_checksum(PayloadSum::new(bytes).finish(new, page.name));
            let place = self.space.alloc(heap, new.words()).ok()?;
            Some((new, place, bytes))
        });
        let Some((new, place, bytes)) = replacement else {
            self.space.set_word(at, head.with_settled().0);
            return;
        };
        self.write_page(place, new, page.name, bytes);
        if head.is_linked() {
            self.space.requeue(at, place);
        }
        self.point_to(page.name, place);
        self.count(page.pool, at, head, Contents::sub);
        self.count(page.pool, place, new, Contents::add);
        self.space.free(at, head.words());
    }
}
