// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A record in shared memory of which a reader sees the last whole version.
//!
//! There are two copies. A version is written into the copy that the last one is not in, and
//! becomes valid by one store of its number. So whoever is killed while it writes leaves the
//! version before. The checksum is for bytes that were damaged: such a record counts as none.

use std::hash::Hasher;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use twox_hash::XxHash3_64;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::word::store;
use crate::crash::{self, Place};

/// Words of the largest record.
const WORDS: usize = 1056;

/// A record, which one thread of one process writes at a time.
#[repr(C, align(64))]
pub struct Record<T> {
    /// Number of the last version; 0 before the first. Even ones are in the first copy.
    version: AtomicU64,
    copies: [Copy; 2],
    of: PhantomData<T>,
}

#[repr(C)]
struct Copy {
    sum: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl<T: FromBytes + IntoBytes + Immutable> Record<T> {
    const LEN: usize = {
        assert!(size_of::<T>().is_multiple_of(8) && size_of::<T>() / 8 <= WORDS);
        size_of::<T>() / 8
    };

    /// Writes the next version.
    pub fn write(&self, value: &T) {
        let version = self.version.load(Ordering::Relaxed).wrapping_add(1).max(1);
        let copy = &self.copies[usize::from(version % 2 == 1)];
        for (at, bytes) in value.as_bytes().as_chunks::<8>().0.iter().enumerate() {
            store(&copy.words[at], u64::from_ne_bytes(*bytes), Ordering::Relaxed);
            if at == Self::LEN / 2 {
                crash::point(Place::HalfARecord);
            }
        }
        store(&copy.sum, sum(version, value.as_bytes()), Ordering::Relaxed);
        crash::point(Place::RecordWritten);
        store(&self.version, version, Ordering::Release);
        crash::point(Place::RecordValid);
    }

    /// The last whole version; `None` if there is none, or it is damaged.
    #[must_use]
    pub fn read(&self) -> Option<T> {
        let version = self.version.load(Ordering::Acquire);
        if version == 0 {
            return None;
        }
        let copy = &self.copies[usize::from(version % 2 == 1)];
        let mut bytes = Vec::with_capacity(Self::LEN * 8);
        for word in &copy.words[..Self::LEN] {
            bytes.extend(word.load(Ordering::Relaxed).to_ne_bytes());
        }
        if copy.sum.load(Ordering::Relaxed) != sum(version, &bytes) {
            return None;
        }
        T::read_from_bytes(&bytes).ok()
    }
}

impl<T> std::fmt::Debug for Record<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "version {}", self.version.load(Ordering::Relaxed))
    }
}

fn sum(version: u64, bytes: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::with_seed(version);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::word::deaths;

    fn record() -> Box<Record<[u64; 4]>> {
        let copy = || Copy { sum: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] };
        Box::new(Record { version: AtomicU64::new(0), copies: [copy(), copy()], of: PhantomData })
    }

    #[test]
    fn the_last_version_is_read() {
        let record = record();
        assert_eq!(record.read(), None);
        for number in 1..=5 {
            record.write(&[number; 4]);
            assert_eq!(record.read(), Some([number; 4]));
        }
    }

    #[test]
    fn a_death_anywhere_in_a_write_leaves_the_one_or_the_other() {
        // In both copies.
        for writes in 1..=2 {
            let written = || {
                let record = record();
                (1..=writes).for_each(|number| record.write(&[number; 4]));
                record
            };
            deaths::everywhere(
                written,
                |record| record.write(&[9; 4]),
                |record, lived| {
                    assert_eq!(record.read(), Some(if lived { [9; 4] } else { [writes; 4] }));
                    record.write(&[10; 4]);
                    assert_eq!(record.read(), Some([10; 4]), "the next process cannot write");
                },
            );
        }
    }

    #[test]
    fn half_a_version_is_none() {
        let record = record();
        record.write(&[1; 4]);
        // The next one goes into the other copy.
        record.copies[0].words[0].store(2, Ordering::Relaxed);
        record.copies[0].words[1].store(2, Ordering::Relaxed);
        assert_eq!(record.read(), Some([1; 4]));
        record.write(&[3; 4]);
        assert_eq!(record.read(), Some([3; 4]));
    }

    #[test]
    fn a_damaged_record_is_none() {
        let record = record();
        record.write(&[1; 4]);
        record.copies[1].words[2].fetch_xor(4, Ordering::Relaxed);
        assert_eq!(record.read(), None);
        record.write(&[2; 4]);
        assert_eq!(record.read(), Some([2; 4]), "it can be written again");
        record.version.fetch_add(2, Ordering::Relaxed);
        assert_eq!(record.read(), None, "a number that was never reached");
    }
}
