// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! 32-bit numbers, and the 64-bit words of the arena that hold two of them.

/// Puts two numbers into a word.
pub(crate) fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Returns the two numbers of a word, the low one first.
pub(crate) fn split(word: u64) -> (u32, u32) {
    (low(word), low(word >> 32))
}

/// Returns the low half of a word.
pub(crate) fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// Makes a `u32` of a count of words, pages or granules, which are far below 2^32 wherever one
/// holds them.
pub(crate) fn count(number: usize) -> u32 {
    low(number as u64)
}
