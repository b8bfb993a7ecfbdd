// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who pays for which physical byte.
//!
//! Memory is paid for before it is taken and paid back after it is returned, so no limit is ever
//! exceeded. A guest may have a [`Reservation`]: what it keeps within it, nobody can have taken.
//! A [`Charge`] is the receipt: whoever holds the memory holds it, and dropping it pays
//! back.

use std::sync::{Arc, PoisonError};

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
#[cfg(feature = "loom")]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
#[cfg(not(feature = "loom"))]
use std::sync::{Mutex, MutexGuard};

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
    /// Of the store's budget: bytes that reservations set aside, used or not.
    reserved: AtomicU64,
    /// Of the store's budget: bytes kept beyond the reservation of the guest that keeps them.
    common: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
            ephemeral: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            common: AtomicU64::new(0),
        }
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

    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.load(Relaxed)
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

    /// Adds bytes that are kept beyond a reservation, if they fit in what nobody has reserved.
    fn try_add_common(&self, bytes: u64) -> bool {
        let most = self.limit().saturating_sub(self.reserved());
        let add = |common: u64| common.checked_add(bytes).filter(|total| *total <= most);
        bytes == 0 || self.common.fetch_update(Relaxed, Relaxed, add).is_ok()
    }
}

/// A part of the store that a guest can count on for what cannot be evicted: persistent pages, and
/// the index. What it does not use of it, others' ephemeral pages may use, which go when it is
/// wanted.
#[derive(Debug)]
pub struct Reservation {
    store: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    pub(crate) fn new(store: &Arc<Budget>, bytes: u64) -> Self {
        store.reserved.fetch_add(bytes, Relaxed);
        Self { store: Arc::clone(store), bytes }
    }

    /// How much it is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A reservation of nothing.
    pub(crate) fn none(store: &Arc<Budget>) -> Self {
        Self::new(store, 0)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.store.reserved.fetch_sub(self.bytes, Relaxed);
    }
}

/// A guest's account with the store.
#[derive(Debug)]
pub(crate) struct Account {
    own: Budget,
    store: Arc<Budget>,
    /// Bytes of the reservation, to be looked at without the lock.
    reserved: AtomicU64,
    /// Locked for a few instructions, and only when segments come or go.
    kept: Mutex<Kept>,
}

/// What a guest keeps.
#[derive(Debug)]
struct Kept {
    /// Bytes that cannot be evicted.
    bytes: u64,
    reservation: Arc<Reservation>,
}

impl Kept {
    /// Bytes beyond the reservation.
    fn beyond(&self) -> u64 {
        self.bytes.saturating_sub(self.reservation.bytes)
    }
}

impl Account {
    pub(crate) fn new(limit: Option<u64>, reservation: Arc<Reservation>) -> Self {
        let store = Arc::clone(&reservation.store);
        let reserved = AtomicU64::new(reservation.bytes);
        let kept = Mutex::new(Kept { bytes: 0, reservation });
        Self { own: Budget::new(limit.unwrap_or(u64::MAX)), store, reserved, kept }
    }

    /// An account with a store that has no limit.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn unlimited_store(limit: Option<u64>) -> Arc<Self> {
        let store = Arc::new(Budget::new(u64::MAX));
        Arc::new(Self::new(limit, Arc::new(Reservation::none(&store))))
    }

    pub(crate) fn own(&self) -> &Budget {
        &self.own
    }

    /// Bytes that other guests cannot keep it from having.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.load(Relaxed)
    }

    /// Changes what other guests cannot keep it from having. What it keeps may be more than there
    /// is for everybody then, and nobody gets more until it is not.
    pub(crate) fn set_reservation(&self, reservation: Arc<Reservation>) {
        let mut kept = self.kept();
        self.reserved.store(reservation.bytes, Relaxed);
        let before = kept.beyond();
        // What was given up is reserved until all is counted.
        let old = std::mem::replace(&mut kept.reservation, reservation);
        let after = kept.beyond();
        self.store.common.fetch_add(after.saturating_sub(before), Relaxed);
        self.store.common.fetch_sub(before.saturating_sub(after), Relaxed);
        drop(kept);
        drop(old);
    }

    /// Bytes of ephemeral pages with which it is above its reservation, which others can have.
    pub(crate) fn surplus(&self) -> u64 {
        self.own.used().saturating_sub(self.reserved()).min(self.own.ephemeral())
    }

    /// Bytes that cannot be evicted with which it is above its reservation.
    pub(crate) fn beyond(&self) -> u64 {
        self.kept().beyond()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // What is in it is whole whenever the lock is free.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> &Budget {
        &self.store
    }

    /// Whether so little is left under a limit that ephemeral pages should make do with what they
    /// have: the rest is for the index, which cannot take its pages from an evicted record.
    pub(crate) fn is_tight(&self) -> bool {
        self.budgets().into_iter().any(|budget| {
            let limit = budget.limit();
            limit.saturating_sub(budget.used()) < RESERVE.min(limit / 16)
        })
    }

    /// Bytes up to the nearer of the limits.
    pub(crate) fn room(&self) -> u64 {
        let left = |budget: &Budget| budget.limit().saturating_sub(budget.used());
        self.budgets().into_iter().map(left).min().unwrap_or(0)
    }

    fn budgets(&self) -> [&Budget; 2] {
        [&self.own, self.store()]
    }

    /// Keeps bytes, as far as other guests' reservations leave any.
    fn keep(&self, bytes: u64) -> bool {
        let mut kept = self.kept();
        let before = kept.beyond();
        kept.bytes += bytes;
        let more = kept.beyond() - before;
        let fits = self.store.try_add_common(more);
        if !fits {
            kept.bytes -= bytes;
        }
        fits
    }

    fn unkeep(&self, bytes: u64) {
        let mut kept = self.kept();
        let before = kept.beyond();
        kept.bytes -= bytes;
        self.store.common.fetch_sub(before - kept.beyond(), Relaxed);
    }

    fn charge(&self, bytes: u64, purpose: Use) -> Result<(), Refusal> {
        if !self.own.try_add(bytes) {
            return Err(Refusal::GuestLimit);
        }
        if !self.store().try_add(bytes) {
            self.own.sub(bytes);
            return Err(Refusal::StoreFull);
        }
        match purpose {
            Use::Kept if self.keep(bytes) => Ok(()),
            Use::Kept => {
                self.give_back(bytes);
                Err(Refusal::Share)
            }
            Use::Evictable => {
                for budget in self.budgets() {
                    budget.ephemeral.fetch_add(bytes, Relaxed);
                }
                Ok(())
            }
        }
    }

    /// Charges bytes that are there already, whatever the limits say.
    fn charge_regardless(&self, bytes: u64, purpose: Use) {
        for budget in self.budgets() {
            budget.used.fetch_add(bytes, Relaxed);
        }
        match purpose {
            Use::Kept => {
                let mut kept = self.kept();
                let before = kept.beyond();
                kept.bytes += bytes;
                self.store.common.fetch_add(kept.beyond() - before, Relaxed);
            }
            Use::Evictable => {
                for budget in self.budgets() {
                    budget.ephemeral.fetch_add(bytes, Relaxed);
                }
            }
        }
    }

    fn credit(&self, bytes: u64, purpose: Use) {
        match purpose {
            Use::Kept => self.unkeep(bytes),
            Use::Evictable => {
                for budget in self.budgets() {
                    budget.ephemeral.fetch_sub(bytes, Relaxed);
                }
            }
        }
        self.give_back(bytes);
    }

    fn give_back(&self, bytes: u64) {
        self.store().sub(bytes);
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
        self.account.charge(bytes, self.purpose)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Grows for memory of an earlier process and its index, which are there whatever the limits
    /// say; these hold again when everything is back.
    pub(crate) fn grow_regardless(&mut self, bytes: u64) {
        self.account.charge_regardless(bytes, self.purpose);
        self.bytes += bytes;
    }

    pub(crate) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.account.credit(bytes, self.purpose);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod exhaustive {
    use std::sync::Arc;

    use super::{Account, Budget, Charge, Relaxed, Reservation, Use};

    /// What a guest does in one step.
    const STEPS: [Step; 4] =
        [Step::Grow(Use::Kept, 1), Step::Grow(Use::Kept, 2), Step::Grow(Use::Evictable, 1), Step::Shrink];
    const LENGTH: u32 = 5;

    /// The same with a reservation that changes.
    const MORE_STEPS: [Step; 5] =
        [Step::Grow(Use::Kept, 1), Step::Grow(Use::Kept, 2), Step::Shrink, Step::Reserve(0), Step::Reserve(2)];

    /// The same with memory that is there whatever the limits say.
    const FORCED_STEPS: [Step; 5] = [
        Step::Grow(Use::Kept, 1),
        Step::Grow(Use::Evictable, 1),
        Step::Find(Use::Kept, 2),
        Step::Find(Use::Evictable, 2),
        Step::Shrink,
    ];

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Grow(Use, u64),
        /// Has more than it may.
        Find(Use, u64),
        /// Gives back what it took last.
        Shrink,
        /// Is to count on so much.
        Reserve(u64),
    }

    struct Guest {
        account: Arc<Account>,
        charges: Vec<(Use, Charge)>,
        limit: u64,
        reserved: u64,
    }

    impl Guest {
        fn new(store: &Arc<Budget>, limit: Option<u64>, reserved: u64) -> Self {
            let account = Account::new(limit, Arc::new(Reservation::new(store, reserved)));
            Self { account: Arc::new(account), charges: Vec::new(), limit: limit.unwrap_or(u64::MAX), reserved }
        }

        fn has(&self, which: Use) -> u64 {
            self.charges.iter().filter(|(purpose, _)| *purpose == which).map(|(_, charge)| charge.bytes()).sum()
        }

        fn beyond(&self) -> u64 {
            self.has(Use::Kept).saturating_sub(self.reserved)
        }
    }

    /// Every history of so many steps of two guests, with limits and reservations of a few bytes: a
    /// step is refused exactly when one of the limits says so, and counters are always the sums.
    #[test]
    fn every_short_history_of_two_guests_adds_up() {
        for limit in 2..=5 {
            for reserved in [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2]] {
                for own in [None, Some(2)] {
                    for history in 0..(2 * STEPS.len()).pow(LENGTH) {
                        run(&STEPS, LENGTH, limit, reserved, own, history);
                    }
                }
            }
        }
    }

    #[test]
    fn a_reservation_that_changes_counts_from_then_on() {
        for limit in 2..=4 {
            for history in 0..(2 * MORE_STEPS.len()).pow(4) {
                run(&MORE_STEPS, 4, limit, [1, 0], None, history);
            }
        }
    }

    #[test]
    fn what_is_there_regardless_keeps_others_from_growing() {
        for limit in 2..=4 {
            for reserved in [[0, 0], [1, 0]] {
                for history in 0..(2 * FORCED_STEPS.len()).pow(4) {
                    run(&FORCED_STEPS, 4, limit, reserved, Some(2), history);
                }
            }
        }
    }

    fn run(steps: &[Step], length: u32, limit: u64, reserved: [u64; 2], own: Option<u64>, mut history: usize) {
        let store = Arc::new(Budget::new(limit));
        let mut guests = [Guest::new(&store, own, reserved[0]), Guest::new(&store, None, reserved[1])];
        for _ in 0..length {
            let (who, step) = (history & 1, steps[(history >> 1) % steps.len()]);
            history /= 2 * steps.len();
            match step {
                Step::Grow(purpose, bytes) => grow(&store, &mut guests, who, purpose, bytes),
                Step::Find(purpose, bytes) => {
                    let mut charge = Charge::none(Arc::clone(&guests[who].account), purpose);
                    charge.grow_regardless(bytes);
                    guests[who].charges.push((purpose, charge));
                }
                Step::Shrink => drop(guests[who].charges.pop()),
                Step::Reserve(bytes) => {
                    guests[who].account.set_reservation(Arc::new(Reservation::new(&store, bytes)));
                    guests[who].reserved = bytes;
                }
            }
            check(&store, &guests);
        }
        drop(guests);
        let left = [store.used(), store.ephemeral(), store.reserved(), store.common.load(Relaxed)];
        assert_eq!(left, [0; 4], "something is left");
    }

    fn grow(store: &Budget, guests: &mut [Guest; 2], who: usize, purpose: Use, bytes: u64) {
        let all: u64 = guests.iter().map(|guest| guest.has(Use::Kept) + guest.has(Use::Evictable)).sum();
        let common: u64 = guests.iter().map(Guest::beyond).sum();
        let reserved = guests.iter().map(|guest| guest.reserved).sum();
        let unreserved = store.limit().saturating_sub(reserved);
        assert_eq!(store.reserved(), reserved);
        let guest = &mut guests[who];
        let own = guest.has(Use::Kept) + guest.has(Use::Evictable);
        let more = (guest.has(Use::Kept) + bytes).saturating_sub(guest.reserved) - guest.beyond();
        let may = own + bytes <= guest.limit
            && all + bytes <= store.limit()
            && (purpose == Use::Evictable || more == 0 || common + more <= unreserved);
        let mut charge = Charge::none(Arc::clone(&guest.account), purpose);
        assert_eq!(charge.grow(bytes).is_ok(), may, "{bytes} bytes of guest {who}, {purpose:?}");
        if may {
            guest.charges.push((purpose, charge));
        }
    }

    fn check(store: &Budget, guests: &[Guest; 2]) {
        let sum = |of: &dyn Fn(&Guest) -> u64| guests.iter().map(of).sum::<u64>();
        assert_eq!(store.used(), sum(&|guest| guest.has(Use::Kept) + guest.has(Use::Evictable)));
        assert_eq!(store.ephemeral(), sum(&|guest| guest.has(Use::Evictable)));
        assert_eq!(store.common.load(Relaxed), sum(&Guest::beyond), "what is kept beyond reservations");
        for guest in guests {
            assert_eq!(guest.account.own().used(), guest.has(Use::Kept) + guest.has(Use::Evictable));
            assert_eq!(guest.account.kept().bytes, guest.has(Use::Kept));
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::{Account, Budget, Reservation};

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

    /// Two guests that keep memory beyond their reservations never take what is reserved, and
    /// leave nothing taken when they have given it back.
    #[test]
    fn a_reservation_holds_in_every_interleaving() {
        loom::model(|| {
            let store = std::sync::Arc::new(Budget::new(4));
            let third = Reservation::new(&store, 2);
            let account = |bytes| {
                let reservation = std::sync::Arc::new(Reservation::new(&store, bytes));
                std::sync::Arc::new(Account::new(None, reservation))
            };
            let accounts = [account(1), account(0)];
            let pay = |account: &Account, store: &Budget| {
                let kept = account.keep(1) && account.keep(1);
                assert!(store.common.load(super::Relaxed) <= 1, "what others reserved is taken");
                let bytes = account.kept().bytes;
                account.unkeep(bytes);
                kept
            };
            let (other, budget) = (accounts[1].clone(), store.clone());
            let thread = thread::spawn(move || pay(&other, &budget));
            pay(&accounts[0], &store);
            thread.join().expect("the thread does not panic");
            assert_eq!(store.common.load(super::Relaxed), 0, "something is still taken");
            drop(third);
        });
    }
}
