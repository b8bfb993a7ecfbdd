// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stores to words of the ledger. Whoever comes next sees those before its predecessor's death, and
//! none behind it; unit tests have it die behind each of them.

use super::atomic::{AtomicU64, Ordering};

/// Stores a word.
pub(super) fn store(word: &AtomicU64, value: u64, order: Ordering) {
    #[cfg(test)]
    if !deaths::is_alive() {
        return;
    }
    word.store(value, order);
}

#[cfg(test)]
pub(super) mod deaths {
    use std::cell::Cell;

    thread_local! {
        /// Stores that this thread still lives for; `None` for ever.
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
        /// Whether there was a store that it did not live for.
        static DIED: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn is_alive() -> bool {
        LEFT.with(|left| match left.get() {
            None => true,
            Some(0) => {
                DIED.set(true);
                false
            }
            Some(more) => {
                left.set(Some(more - 1));
                true
            }
        })
    }

    /// Does something with a death behind each of its stores, before all of them, and with none.
    /// `make` makes what it is done to, and `check` looks at it, and at whether it lived on.
    pub(in crate::ledger) fn everywhere<T>(make: impl Fn() -> T, run: impl Fn(&T), check: impl Fn(&T, bool)) {
        for stores in 0.. {
            let subject = make();
            LEFT.set(Some(stores));
            run(&subject);
            LEFT.set(None);
            let lived = !DIED.replace(false);
            check(&subject, lived);
            if lived {
                assert!(stores > 1, "there was nothing to die in");
                break;
            }
        }
    }
}
