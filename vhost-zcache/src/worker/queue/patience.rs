// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long a reactor looks at rings that are empty before it has itself kicked awake.
//!
//! To look costs processor time, and to be woken costs the driver a kick and the chain tens of
//! microseconds. So the time follows what happens, as KVM's halt polling does: it grows when a
//! reactor is woken so soon that looking would have been cheaper, and shrinks when it is not. And
//! it is none for a while when somebody else wants the processor, which a reactor that looks can
//! see: there is a gap in its time.

use std::time::{Duration, Instant};

/// The longest time: what KVM grants a virtual processor that halts. A guest that reads page after
/// page at random comes again within it; one that has to be awaited for longer is waited for
/// asleep.
const LONGEST: Duration = Duration::from_micros(200);

/// What it grows to from nothing.
const SHORTEST: Duration = Duration::from_micros(5);

/// Between two looks no more time passes than this, unless another thread has run for a while:
/// the kernel lets one run for most of a millisecond before another gets its turn.
const GAP: Duration = Duration::from_micros(200);

/// How long to sleep at once after such a gap.
const COURTESY: Duration = Duration::from_millis(5);

/// When to stop looking.
#[derive(Debug)]
pub struct Patience {
    window: Duration,
    /// When there was work last, or the reactor was woken.
    since: Instant,
    looked: Instant,
    impolite_until: Option<Instant>,
}

impl Patience {
    /// None at first.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { window: Duration::ZERO, since: now, looked: now, impolite_until: None }
    }

    /// There was work.
    pub fn worked(&mut self, now: Instant) {
        self.since = now;
        self.looked = now;
    }

    /// Looked, and there was none; whether to look again.
    pub fn looks_on(&mut self, now: Instant) -> bool {
        let gap = now.saturating_duration_since(self.looked);
        self.looked = now;
        if gap > GAP {
            self.window = Duration::ZERO;
            self.impolite_until = Some(now + COURTESY);
        }
        now.saturating_duration_since(self.since) < self.window
    }

    /// Woken by a kick after a sleep that began at `slept`.
    pub fn woken(&mut self, slept: Instant, now: Instant) {
        self.worked(now);
        if self.impolite_until.is_some_and(|until| now < until) {
            return;
        }
        self.impolite_until = None;
        self.window = if now.saturating_duration_since(slept) < LONGEST {
            (self.window * 2).clamp(SHORTEST, LONGEST)
        } else {
            self.window / 2
        };
        if self.window < SHORTEST {
            self.window = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn it_grows_with_short_sleeps_and_shrinks_with_long_ones() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        let mut now = start;
        let mut wake = |patience: &mut Patience, sleep: Duration| {
            let slept = now;
            now += sleep;
            patience.woken(slept, now);
            patience.window.as_micros()
        };
        let growing: Vec<_> = (0..8).map(|_| wake(&mut patience, 20 * MICRO)).collect();
        assert_eq!(growing, [5, 10, 20, 40, 80, 160, 200, 200]);
        let shrinking: Vec<_> = (0..7).map(|_| wake(&mut patience, 900 * MICRO)).collect();
        assert_eq!(shrinking, [100, 50, 25, 12, 6, 0, 0]);
    }

    #[test]
    fn it_lasts_as_long_as_the_window_since_the_last_work() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        assert!(!patience.looks_on(start), "no patience at first");
        for _ in 0..3 {
            patience.woken(start, start);
        }
        assert!(patience.looks_on(start + 19 * MICRO) && !patience.looks_on(start + 20 * MICRO));
        patience.worked(start + 25 * MICRO);
        assert!(patience.looks_on(start + 44 * MICRO), "work begins it anew");
    }

    #[test]
    fn whoever_else_wants_the_processor_gets_it() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        for _ in 0..5 {
            patience.woken(start, start);
        }
        let later = start + 300 * MICRO;
        assert!(!patience.looks_on(later), "a gap of 300 us");
        patience.woken(later, later + MICRO);
        assert!(!patience.looks_on(later + MICRO), "for a while it does not come back");
        let much_later = later + COURTESY + MICRO;
        patience.woken(much_later, much_later);
        assert!(patience.looks_on(much_later + MICRO), "and then it does");
    }
}
