// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Slows down a ring whose kicks announce nothing.
//!
//! The event that a driver kicks is the VMM's, which can make it ready for ever. A kick that is
//! followed by no chain is legitimate now and then (the chain was seen before the kick), but not
//! many of them in a row.

use std::time::Duration;

/// Kicks in a row that may announce nothing without a consequence.
const FREE: u32 = 32;

/// The first pause, which doubles up to the longest.
const SHORTEST: Duration = Duration::from_millis(1);

/// The longest pause, and so the time that a chain may have to wait after such kicks. A ring
/// wakes up 62 times a second then.
const LONGEST: Duration = Duration::from_millis(16);

/// Counts kicks that announced nothing.
#[derive(Debug, Default)]
pub struct Backoff {
    fruitless: u32,
}

impl Backoff {
    /// A chain was found.
    pub fn found_work(&mut self) {
        self.fruitless = 0;
    }

    /// A kick came after which nothing was found; for how long not to look for the next one.
    pub fn found_nothing(&mut self) -> Option<Duration> {
        self.fruitless = self.fruitless.saturating_add(1);
        let doublings = self.fruitless.checked_sub(FREE + 1)?;
        Some(SHORTEST.saturating_mul(1 << doublings.min(16)).min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_kicks_for_nothing_in_a_row_slow_down() {
        let mut backoff = Backoff::default();
        for _ in 0..2 {
            assert!((0..FREE).all(|_| backoff.found_nothing().is_none()));
            let pauses: Vec<u128> = (0..7).filter_map(|_| backoff.found_nothing()).map(|p| p.as_millis()).collect();
            assert_eq!(pauses, [1, 2, 4, 8, 16, 16, 16]);
            backoff.found_work();
        }
        backoff.fruitless = u32::MAX;
        assert_eq!(backoff.found_nothing(), Some(LONGEST));
    }
}
