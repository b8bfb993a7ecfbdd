// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest moves from one ledger to another, or leaves its place to another guest, while nobody
//! else writes to either.

use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Ledger;
use super::restore::RestoreLedger;
use super::service::QueueLedger;
use super::session::SessionState;

impl Ledger {
    /// Takes all that is known of a guest from another ledger, which has as many queues of each.
    pub fn adopt(&self, guest: usize, other: &Self, theirs: usize) {
        if let Some(session) = other.session(theirs).read() {
            self.session(guest).write(&session);
        }
        copy::<RestoreLedger>(slice::from_ref(self.restore(guest)), slice::from_ref(other.restore(theirs)));
        copy::<QueueLedger>(self.queues(guest), other.queues(theirs));
    }

    /// Leaves nothing of what is known of a guest that has gone.
    pub fn clear(&self, guest: usize) {
        self.session(guest).write(&SessionState::default());
        wipe::<RestoreLedger>(slice::from_ref(self.restore(guest)));
        wipe::<QueueLedger>(self.queues(guest));
    }
}

/// Makes what consists of words as if it had never been used.
fn wipe<T>(entries: &[T]) {
    words(entries).iter().for_each(|word| word.store(0, Ordering::Relaxed));
}

/// Copies what consists of words.
fn copy<T>(to: &[T], from: &[T]) {
    for (to, from) in words(to).iter().zip(words(from)) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What entries of a ledger consist of.
pub(super) fn words<T>(entries: &[T]) -> &[AtomicU64] {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() >= align_of::<AtomicU64>()) };
    // SAFETY: the entries are as long, and all that entries of a ledger consist of are atomic
    // integers, of which any bytes are valid ones.
    unsafe { slice::from_raw_parts(entries.as_ptr().cast(), size_of_val(entries) / 8) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_moves_with_all_that_is_known_of_it() {
        let (old, _file) = Ledger::create(2, 2).unwrap();
        let (new, _file) = Ledger::create(3, 2).unwrap();
        let session = SessionState::new(7, 1);
        old.session(1).write(&session);
        old.queues(1)[1].quarantine();
        old.restore(1).begin();
        new.adopt(2, &old, 1);
        assert_eq!(new.session(2).read(), Some(session));
        assert!(new.queues(2)[1].is_quarantined() && !new.queues(2)[0].is_quarantined());
        assert!(new.restore(2).is_under_way());
        assert!(new.session(0).read().is_none() && !new.queues(0)[1].is_quarantined());
    }
    #[test]
    fn nothing_is_left_of_a_guest_that_has_gone() {
        let (ledger, _file) = Ledger::create(2, 1).unwrap();
        ledger.session(1).write(&SessionState::new(7, 1));
        ledger.queues(1)[0].quarantine();
        ledger.restore(1).begin();
        ledger.session(0).write(&SessionState::new(8, 1));
        ledger.clear(1);
        assert!(ledger.session(1).read().is_none_or(|session| session.life == 0));
        assert!(!ledger.queues(1)[0].is_quarantined() && !ledger.restore(1).is_under_way());
        assert_eq!(ledger.session(0).read().map(|session| session.life), Some(8), "another guest's");
    }
}
