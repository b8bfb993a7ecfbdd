// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Histograms of how long something took.
//!
//! The buckets are the same for ever: two for each power of two of nanoseconds, so that a figure
//! read from them is wrong by half at most.

use serde::{Deserialize, Serialize};

/// The power of two that is the first bound, and the one that is the last.
const FIRST: u32 = 9;
const LAST: u32 = 30;

/// Number of [`BOUNDS`].
const FINITE: usize = 2 * (LAST - FIRST) as usize + 1;

/// Number of buckets: one up to each bound, and one for all that took longer.
pub const BUCKETS: usize = FINITE + 1;

/// The longest that each bucket but the last is for, in nanoseconds: from half a microsecond to a
/// second.
pub const BOUNDS: [u64; FINITE] = bounds();

const fn bounds() -> [u64; FINITE] {
    let mut bounds = [0; FINITE];
    let mut bucket = 0;
    while bucket < FINITE {
        let power = 1 << (FIRST as usize + bucket / 2);
        bounds[bucket] = if bucket % 2 == 0 { power } else { power + power / 2 };
        bucket += 1;
    }
    bounds
}

/// Which bucket is for what took so many nanoseconds.
#[must_use]
#[inline]
pub const fn bucket_of(ns: u64) -> usize {
    if ns <= BOUNDS[0] {
        return 0;
    }
    // Bounds belong to the bucket below.
    let below = ns - 1;
    let power = below.ilog2();
    let is_upper_half = ((below >> (power - 1)) & 1) as usize;
    let bucket = 2 * (power - FIRST) as usize + is_upper_half + 1;
    if bucket < FINITE { bucket } else { FINITE }
}

/// A histogram of times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Histogram {
    /// How many there were.
    pub count: u64,
    /// Their sum, in nanoseconds.
    pub sum_ns: u64,
    /// By how long they took, shorter first. Empty buckets are left out.
    pub buckets: Vec<Bucket>,
}

/// One bucket of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bucket {
    /// The longest that is counted here, in nanoseconds; `None` for no limit.
    pub up_to_ns: Option<u64>,
    /// How many took so long, and longer than the bucket before is for.
    pub count: u64,
}

impl Histogram {
    /// A histogram of the figures of all buckets.
    #[must_use]
    pub fn new(counts: &[u64; BUCKETS], sum_ns: u64) -> Self {
        let bounds = BOUNDS.into_iter().map(Some).chain([None]);
        let buckets = bounds.zip(counts).map(|(up_to_ns, count)| Bucket { up_to_ns, count: *count });
        let buckets: Vec<Bucket> = buckets.filter(|bucket| bucket.count > 0).collect();
        let count = buckets.iter().fold(0, |total, bucket| bucket.count.saturating_add(total));
        Self { count, sum_ns, buckets }
    }

    /// How many took at most so many nanoseconds, which should be one of [`BOUNDS`].
    #[must_use]
    pub fn up_to(&self, ns: u64) -> u64 {
        let within = self.buckets.iter().filter(|bucket| bucket.up_to_ns.is_some_and(|bound| bound <= ns));
        within.fold(0, |total, bucket| total.saturating_add(bucket.count))
    }

    /// The time that a part of them, from 0 to 1, took at most: the bound of a bucket. `None` if
    /// there were none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Quantile> {
        // Counts beyond 2^53 are no matter.
        let wanted = (self.count as f64 * part).ceil().max(1.0);
        let mut seen = 0.0;
        let reached = self.buckets.iter().find(|bucket| {
            seen += bucket.count as f64;
            seen >= wanted
        });
        Some(reached?.up_to_ns.map_or(Quantile::Over(BOUNDS[FINITE - 1]), Quantile::UpTo))
    }

    /// What was added since an earlier one of the same; all of it if it has begun anew since then.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = |of: &Self| {
            let mut counts = [0_u64; BUCKETS];
            for bucket in &of.buckets {
                let at = bucket.up_to_ns.map_or(FINITE, bucket_of);
                counts[at] = counts[at].saturating_add(bucket.count);
            }
            counts
        };
        let (now, then) = (counts(self), counts(earlier));
        let is_older = now.iter().zip(&then).all(|(now, then)| now >= then);
        if !is_older {
            return self.clone();
        }
        let mut added = now;
        added.iter_mut().zip(then).for_each(|(now, then)| *now -= then);
        Self::new(&added, self.sum_ns.saturating_sub(earlier.sum_ns))
    }
}

/// What is known of a time by the bucket it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantile {
    /// So many nanoseconds at most.
    UpTo(u64),
    /// Longer than the last bound.
    Over(u64),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_rise_from_half_a_microsecond_to_a_second() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
        assert_eq!((BOUNDS[0], BOUNDS[1], BOUNDS[2]), (512, 768, 1024));
        assert_eq!(BOUNDS.last(), Some(&(1 << 30)));
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        for (bucket, bound) in BOUNDS.into_iter().enumerate() {
            assert_eq!((bucket_of(bound), bucket_of(bound + 1)), (bucket, bucket + 1), "{bound} ns");
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, FINITE));
    }

    proptest! {
        #[test]
        fn what_is_in_a_bucket_is_within_its_bounds(ns: u64) {
            let bucket = bucket_of(ns);
            prop_assert!(BOUNDS.get(bucket).is_none_or(|bound| ns <= *bound));
            prop_assert!(bucket == 0 || ns > BOUNDS[bucket - 1]);
        }
    }

    fn histogram(times: &[u64]) -> Histogram {
        let mut counts = [0; BUCKETS];
        times.iter().for_each(|ns| counts[bucket_of(*ns)] += 1);
        Histogram::new(&counts, times.iter().sum())
    }

    #[test]
    fn empty_buckets_are_left_out() {
        let histogram = histogram(&[100, 900, 1000, 1 << 40]);
        let buckets: Vec<_> = histogram.buckets.iter().map(|bucket| (bucket.up_to_ns, bucket.count)).collect();
        assert_eq!(buckets, [(Some(512), 1), (Some(1024), 2), (None, 1)]);
        assert_eq!((histogram.up_to(768), histogram.up_to(1024), histogram.count), (1, 3, 4));
    }

    #[test]
    fn a_quantile_is_a_bound() {
        let histogram = histogram(&[100, 100, 900, 1 << 40]);
        assert_eq!(histogram.quantile(0.0), Some(Quantile::UpTo(512)));
        assert_eq!(histogram.quantile(0.5), Some(Quantile::UpTo(512)));
        assert_eq!(histogram.quantile(0.75), Some(Quantile::UpTo(1024)));
        assert_eq!(histogram.quantile(1.0), Some(Quantile::Over(1 << 30)));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn what_was_added_is_the_difference() {
        let (earlier, later) = (histogram(&[100, 900]), histogram(&[100, 900, 900, 5000]));
        assert_eq!(later.since(&earlier), histogram(&[900, 5000]));
        assert_eq!(earlier.since(&later), earlier, "it has begun anew");
    }
}
