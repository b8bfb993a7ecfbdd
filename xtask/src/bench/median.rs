// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The median, which one disturbed measurement does not move.

/// The median of at least one value, none of which is a NaN.
pub(super) fn median<T: Copy + PartialOrd>(values: impl IntoIterator<Item = T>) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_by(|one, other| one.partial_cmp(other).expect("measured values have an order"));
    values[values.len() / 2]
}
