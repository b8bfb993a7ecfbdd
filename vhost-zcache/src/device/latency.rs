// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long answers of one queue took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zcache_report::{BUCKETS, bucket_of};

/// Times by buckets. As all counters of a queue, written by one thread at a time, so that no
/// instruction is needed that locks the bus.
#[derive(Debug)]
#[repr(C)]
pub struct LatencyCounters {
    sum_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for LatencyCounters {
    fn default() -> Self {
        Self { sum_ns: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl LatencyCounters {
    /// Something took so long, so many times.
    pub fn count(&self, took: Duration, times: u64) {
        if times == 0 {
            return;
        }
        let ns = took.as_secs().saturating_mul(1_000_000_000).saturating_add(took.subsec_nanos().into());
        add(&self.buckets[bucket_of(ns)], times);
        add(&self.sum_ns, ns.saturating_mul(times));
    }

    /// Nanoseconds of all of them together.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.load(Ordering::Relaxed)
    }

    /// How many took as long as each bucket says.
    #[must_use]
    pub fn buckets(&self) -> [u64; BUCKETS] {
        self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed))
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_counted_where_it_belongs() {
        let counters = LatencyCounters::default();
        counters.count(Duration::from_nanos(800), 3);
        counters.count(Duration::from_secs(7), 1);
        counters.count(Duration::from_secs(7), 0);
        let buckets = counters.buckets();
        assert_eq!((buckets[bucket_of(1024)], buckets[BUCKETS - 1]), (3, 1));
        assert_eq!(buckets.iter().sum::<u64>(), 4);
        assert_eq!(counters.sum_ns(), 2_400 + 7_000_000_000);
    }
}
