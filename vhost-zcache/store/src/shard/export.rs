// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Going through the pages of a pool by name, which nothing that moves records disturbs.

use super::index::nodes::Node;
use super::space::record::{OBJECT_WORDS, PageHead, PageName, check_object, id_of};
use super::{PoolSlot, Shard};
use crate::key::{ObjectId, Page};

/// Where somebody goes on who goes through a pool's pages in a shard.
#[derive(Debug, Default)]
pub(crate) struct PagePlace {
    /// The bucket of objects that comes next.
    bucket: u32,
    /// Hash and number of the objects that come before it.
    objects: Vec<(u32, Node)>,
    /// The index to go on with in the last of these.
    index: u64,
}

/// What comes next.
pub(crate) enum NextPage {
    /// A page, whose stored bytes were copied, and which was not verified.
    Page(ObjectId, PageHead, PageName),
    /// There are no more.
    End,
    /// An object that was there is gone.
    Changed,
    /// The name of an object is damaged.
    Damaged,
}

impl Shard {
    /// The next page of a pool. Those that are put or removed meanwhile are found or not.
    pub(crate) fn next_page(&self, pool: PoolSlot, place: &mut PagePlace, out: &mut Page) -> NextPage {
        let Some(objects) = self.pool(pool).map(|pool| &pool.objects) else { return NextPage::Changed };
        loop {
            let Some((hash, number)) = place.objects.last().copied() else {
                match objects.in_bucket(&self.nodes, place.bucket) {
                    Some(found) => place.objects = found,
                    None => return NextPage::End,
                }
                place.bucket += 1;
                continue;
            };
            let Some(object) = objects.find_number(&self.nodes, hash, number) else { return NextPage::Changed };
            let Some((index, at)) = object.tree.next(&self.nodes, place.index) else {
                place.objects.pop();
                place.index = 0;
                continue;
            };
            match index.checked_add(1) {
                Some(next) => place.index = next,
                None => {
                    place.objects.pop();
                    place.index = 0;
                }
            }
            let Ok(words) = self.space.words(object.record, OBJECT_WORDS).try_into() else { return NextPage::Damaged };
            let named = check_object(words).filter(|name| name.object == number);
            let (Some(_), [_, _, id @ ..]) = (named, words) else { return NextPage::Damaged };
            let head = self.space.page_head(at);
            self.space.copy_payload(at, head, out);
            return NextPage::Page(id_of(id), head, self.space.page_name(at));
        }
    }
}
