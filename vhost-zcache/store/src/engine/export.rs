// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages leave for another store, as they are stored, and verified on the way.

use std::sync::Arc;

use thiserror::Error;

use super::domain::Domain;
use super::guest_state::{Entry, GuestState};
use super::names::PoolRef;
use crate::codec::StoredPage;
use crate::key::{Key, PAGE_SIZE, Page, PoolId};
use crate::pool::NoPool;
use crate::shard::export::{NextPage, PagePlace};
use crate::shard::space::record::{Life, PayloadSum};

/// Why a pool's pages cannot all be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ExportError {
    /// The guest has no such pool of its own.
    #[error(transparent)]
    NoPool(#[from] NoPool),
    /// The pool was changed meanwhile.
    #[error("the pool was changed meanwhile")]
    Changed,
    /// A page or a name in the store is damaged.
    #[error("a stored page is damaged")]
    Damaged,
}

/// Goes through the pages of one of a guest's own pools.
pub struct Export {
    domain: Arc<Domain>,
    id: PoolId,
    life: Life,
    shard: usize,
    place: PagePlace,
    page: Box<Page>,
}

impl Export {
    pub(crate) fn new(guest: &GuestState, id: PoolId) -> Result<Self, NoPool> {
        let Entry::Own { life, .. } = guest.entry(id)? else { return Err(NoPool) };
        let domain = Arc::clone(guest.domain()?);
        Ok(Self { domain, id, life, shard: 0, place: PagePlace::default(), page: Box::new([0; PAGE_SIZE]) })
    }

    /// The next page, in no order; `None` behind the last one. A shard is locked for one page at a
    /// time. Pages that are put or removed meanwhile are found or not.
    ///
    /// # Errors
    /// See [`ExportError`]; there is no next page then.
    pub fn next_page(&mut self) -> Result<Option<(Key, StoredPage<'_>)>, ExportError> {
        while self.shard < self.domain.len() {
            let stripe = self.domain.lock(self.shard);
            let Some(PoolRef::Own { pool, .. }) = stripe.names.resolve_life(self.id, self.life) else {
                return Err(ExportError::Changed);
            };
            let next = stripe.shard.next_page(*pool, &mut self.place, &mut self.page);
            drop(stripe);
            match next {
                NextPage::Page(object, head, name) => {
                    let bytes = self.page.get(..head.length()).ok_or(ExportError::Damaged)?;
                    let sum = PayloadSum::new(bytes);
                    if sum.finish(head, name) != head.checksum() {
                        return Err(ExportError::Damaged);
                    }
                    let key = Key { pool: self.id, object, index: name.index };
                    return Ok(Some((key, StoredPage { codec: head.codec(), bytes, sum: sum.of_payload() })));
                }
                NextPage::End => {
                    self.shard += 1;
                    self.place = PagePlace::default();
                }
                NextPage::Changed => return Err(ExportError::Changed),
                NextPage::Damaged => return Err(ExportError::Damaged),
            }
        }
        Ok(None)
    }
}
