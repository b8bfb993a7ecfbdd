// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages come from another store, as they were stored there.

use thiserror::Error;

use super::Engine;
use super::guest_state::GuestState;
use crate::codec::{Scratch, StoredPage};
use crate::key::{Key, PAGE_SIZE};
use crate::op::PutError;
use crate::shard::space::record::PayloadSum;

/// Why a page that comes from another store was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ImportError {
    /// Its bytes are not those that were sent, or no page.
    #[error("a page is damaged")]
    Damaged,
    /// There is no room, or no pool.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl Engine {
    /// Stores a page as it came, if it is one. It is decoded to see that; a get can rely on it.
    pub(crate) fn import(
        &self,
        guest: &GuestState,
        scratch: &mut Scratch,
        key: &Key,
        page: StoredPage<'_>,
    ) -> Result<(), ImportError> {
        let sum = PayloadSum::new(page.bytes);
        let room = scratch.stored.get_mut(..page.bytes.len());
        let room = room.filter(|_| sum.of_payload() == page.sum).ok_or(ImportError::Damaged)?;
        room.copy_from_slice(page.bytes);
        scratch.decode(page.codec, page.bytes.len(), &mut [0; PAGE_SIZE]).map_err(|_| ImportError::Damaged)?;
        let spot = guest.spot(key).map_err(PutError::from)?;
        Ok(self.put_encoded(guest, &spot, page.codec, page.bytes, sum)?)
    }
}
