// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which guests a worker is taking over, so that one that workers die of is found out.
//!
//! A worker notes whose pages, session or settings it is at. If it dies by itself meanwhile, the
//! keeper suspects those guests; the next worker takes them over last, and one at a time. The
//! second death is one guest's, then, and that one is not taken over a third time.

use super::atomic::{AtomicU64, Ordering};

/// Deaths that make a guest a case of its own.
const MOST_DEATHS: u64 = 2;

/// What is known of one guest.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct RestoreLedger {
    /// Parts of the guest that a worker is at.
    under_way: AtomicU64,
    /// Deaths meanwhile.
    deaths: AtomicU64,
}

impl RestoreLedger {
    /// A part of the guest is being taken over.
    pub fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::Release);
    }

    /// That was all of the part.
    pub fn end(&self) {
        self.under_way.fetch_sub(1, Ordering::Release);
    }

    /// Whether the worker was at the guest.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    /// The worker is dead; `of_itself` if it may be for what it has found. Returns whether the
    /// guest has become a case of its own.
    pub fn worker_died(&self, of_itself: bool) -> bool {
        let under_way = self.under_way.swap(0, Ordering::AcqRel) > 0;
        if !under_way || !of_itself {
            return false;
        }
        // Workers can write any number.
        let deaths = self.deaths.load(Ordering::Acquire).saturating_add(1);
        self.deaths.store(deaths, Ordering::Release);
        deaths == MOST_DEATHS
    }

    /// A worker has taken everything over, so nobody is suspected any more.
    pub fn absolve(&self) {
        if !self.is_quarantined() {
            self.deaths.store(0, Ordering::Release);
        }
    }

    /// What there was of the guest is gone.
    pub fn forget(&self) {
        self.deaths.store(0, Ordering::Release);
    }

    /// Whether a worker has died of it, as far as anybody can tell.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.deaths.load(Ordering::Acquire) > 0
    }

    /// Whether it is not taken over any more.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.deaths.load(Ordering::Acquire) >= MOST_DEATHS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_death_of_one_guest_makes_it_a_case() {
        let guest = RestoreLedger::default();
        assert!(!guest.worker_died(true), "the worker was at another guest");
        guest.begin();
        guest.begin();
        guest.end();
        assert!(guest.is_under_way() && !guest.worker_died(true));
        assert!(guest.is_suspect() && !guest.is_under_way());
        guest.begin();
        assert!(!guest.worker_died(false), "somebody has killed it");
        guest.begin();
        assert!(guest.worker_died(true) && guest.is_quarantined());
        guest.absolve();
        assert!(guest.is_quarantined(), "that others could be taken over says nothing");
        guest.forget();
        assert!(!guest.is_suspect());
    }

    #[test]
    fn any_number_of_deaths_may_stand_there() {
        let guest = RestoreLedger::default();
        guest.deaths.store(u64::MAX, Ordering::Relaxed);
        guest.begin();
        assert!(!guest.worker_died(true), "it was a case before");
        assert!(guest.is_quarantined());
    }

    #[test]
    fn a_guest_that_could_be_taken_over_is_no_suspect() {
        let guest = RestoreLedger::default();
        for _ in 0..5 {
            guest.begin();
            assert!(!guest.worker_died(true));
            guest.begin();
            guest.end();
            guest.absolve();
        }
        assert!(!guest.is_suspect());
    }
}
