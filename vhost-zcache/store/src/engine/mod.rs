// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The store above its shards: who is there ([`registry`]), their pools ([`pools`]), what requests
//! do ([`requests`]), where room comes from ([`room`]) and who gives first ([`victim`]), what the
//! host asks back ([`give_back`]) and would like guests to take back ([`take_back`]), what waits
//! to be given back ([`garbage`]) and what is on its way ([`in_hand`]). Pages leave for another
//! store, as they are stored, by [`export`], and come from one by [`import`].
//!
//! A request goes from a guest's key to a [`domain`], within it to one shard, and from then on
//! everything happens under that shard's lock.

#[cfg(feature = "check")]
mod check;
pub(crate) mod domain;
pub(crate) mod export;
pub(crate) mod garbage;
pub(crate) mod give_back;
pub(crate) mod guest_state;
pub(crate) mod import;
pub(crate) mod in_hand;
mod names;
mod pending;
mod pools;
pub(crate) mod recover;
mod registry;
mod report;
mod requests;
mod room;
pub(crate) mod roster;
mod shared;
pub(crate) mod take_back;
pub(crate) mod victim;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64};

use self::domain::Common;
use self::garbage::Garbage;
use self::in_hand::InHand;
use self::registry::Registry;
use self::victim::Survey;
use crate::accounting::Budget;
use crate::arena::host::HOST_PAGE;
use crate::background::cold::ColdConfig;
use crate::background::work_done::WorkDone;

/// Charged for each shard of each domain a guest uses: lock, tables and list heads.
const SHARD_OVERHEAD: u64 = HOST_PAGE as u64;
/// Heap number of a guest's persistent pages in its own domain.
const PERSISTENT: usize = 0;
/// Heap number of a guest's ephemeral pages in its own domain.
const EPHEMERAL: usize = 1;

/// A store; see [`crate::Store`].
pub(crate) struct Engine {
    pub(crate) common: Common,
    pub(crate) budget: Arc<Budget>,
    pub(crate) registry: Registry,
    pub(crate) garbage: Garbage,
    pub(crate) in_hand: InHand,
    pub(crate) survey: Survey,
    /// Coarse time, for finding cold pages.
    pub(crate) epoch: AtomicU8,
    pub(crate) cold: Option<ColdConfig>,
    /// Times the background failed and was started again.
    pub(crate) background_failures: AtomicU64,
    pub(crate) work_done: WorkDone,
}

impl Engine {
    pub(crate) fn new(common: Common, memory_limit: u64, cold: Option<ColdConfig>) -> Self {
        Self {
            common,
            budget: Arc::new(Budget::new(memory_limit)),
            registry: Registry::default(),
            garbage: Garbage::default(),
            in_hand: InHand::default(),
            survey: Survey::default(),
            epoch: AtomicU8::new(0),
            cold,
            background_failures: AtomicU64::new(0),
            work_done: WorkDone::default(),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The background thread ends.
        self.common.wake.unpark();
    }
}
