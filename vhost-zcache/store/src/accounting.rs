// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who pays for which physical byte.
//!
//! Memory is paid for before it is taken and paid back after it is returned, so no limit is ever
//! exceeded. A [`Charge`] is the receipt: whoever holds the memory holds it, and dropping it pays
//! back.

use std::sync::Arc;

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::op::Refusal;

/// Bytes that ephemeral pages leave for the index, or a sixteenth of the limit.
const RESERVE: u64 = 1 << 20;

/// Bytes in use under a limit.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicU64,
    limit: AtomicU64,
    /// The part of `used` that segments of ephemeral pages hold.
    ephemeral: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), limit: AtomicU64::new(limit), ephemeral: AtomicU64::new(0) }
    }

    /// Bytes that eviction could give back.
    pub(crate) fn ephemeral(&self) -> u64 {
        self.ephemeral.load(Relaxed)
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        self.used() > self.limit()
    }

    /// Adds `bytes` if they fit. The counter alone decides, so relaxed order is enough: no other
    /// memory is published through it.
    fn try_add(&self, bytes: u64) -> bool {
        let limit = self.limit();
        self.used.fetch_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|total| *total <= limit)).is_ok()
    }

    fn sub(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// A guest's account with the store.
#[derive(Debug)]
pub(crate) struct Account {
    own: Budget,
    store: Arc<Budget>,
}

impl Account {
    pub(crate) fn new(limit: Option<u64>, store: Arc<Budget>) -> Self {
        Self { own: Budget::new(limit.unwrap_or(u64::MAX)), store }
    }

    pub(crate) fn own(&self) -> &Budget {
        &self.own
    }

    /// Whether so little is left under a limit that ephemeral pages should make do with what they
    /// have: the rest is for the index, which cannot take its pages from an evicted record.
    pub(crate) fn is_tight(&self) -> bool {
        self.budgets().into_iter().any(|budget| {
            let limit = budget.limit();
            limit.saturating_sub(budget.used()) < RESERVE.min(limit / 16)
        })
    }

    fn budgets(&self) -> [&Budget; 2] {
        [&self.own, &self.store]
    }

    fn charge(&self, bytes: u64) -> Result<(), Refusal> {
        if !self.own.try_add(bytes) {
            return Err(Refusal::GuestLimit);
        }
        if !self.store.try_add(bytes) {
            self.own.sub(bytes);
            return Err(Refusal::StoreFull);
        }
        Ok(())
    }

    fn credit(&self, bytes: u64) {
        self.store.sub(bytes);
        self.own.sub(bytes);
    }
}

/// What the memory behind a charge is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Segments of an ephemeral heap.
    Evictable,
    /// Everything else.
    Kept,
}

/// Bytes charged to one account for as long as this lives.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    purpose: Use,
    bytes: u64,
}

impl Charge {
    pub(crate) fn none(account: Arc<Account>, purpose: Use) -> Self {
        Self { account, purpose, bytes: 0 }
    }

    /// Nothing yet, charged to the same account for the same purpose.
    pub(crate) fn another(&self) -> Self {
        Self::none(Arc::clone(&self.account), self.purpose)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.account.charge(bytes)?;
        self.bytes += bytes;
        if self.purpose == Use::Evictable {
            for budget in self.account.budgets() {
                budget.ephemeral.fetch_add(bytes, Relaxed);
            }
        }
        Ok(())
    }

    pub(crate) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        if self.purpose == Use::Evictable {
            for budget in self.account.budgets() {
                budget.ephemeral.fetch_sub(bytes, Relaxed);
            }
        }
        self.account.credit(bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(all(test, feature = "loom"))]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::Budget;

    /// Two threads that pay and pay back never exceed the limit together, and both are refused
    /// only if there really is no room.
    #[test]
    fn a_limit_holds_in_every_interleaving() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(3));
            let pay = |budget: &Budget| {
                let paid = budget.try_add(2);
                assert!(budget.used() <= 3, "the limit is exceeded");
                if paid {
                    budget.sub(2);
                }
                paid
            };
            let other = Arc::clone(&budget);
            let thread = thread::spawn(move || pay(&other));
            let here = pay(&budget);
            let there = thread.join().expect("the thread does not panic");
            assert!(here || there, "both were refused");
            assert_eq!(budget.used(), 0, "something is still charged");
        });
    }
}
