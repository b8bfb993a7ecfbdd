// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A record in shared memory of which a reader sees the last whole version.
//!
//! There are two copies. A version is written into the copy that the last one is not in, and
//! becomes valid by one store of its number. So whoever is killed while it writes leaves the
//! version before. The checksum is for bytes that were damaged: such a record counts as none.

use std::hash::Hasher;
use std::marker::PhantomData;

use twox_hash::XxHash3_64;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::atomic::{AtomicU64, Ordering};
use super::word::store;
use crate::crash::{self, Place};

/// Words of the largest record of the ledger.
const WORDS: usize = 1056;

/// A record, which one thread of one process writes at a time: a value, or text that is as long as
/// it is.
#[repr(C, align(64))]
pub struct Record<T: ?Sized, const ROOM: usize = WORDS> {
    /// Number of the last version; 0 before the first. Even ones are in the first copy.
    version: AtomicU64,
    copies: [Copy<ROOM>; 2],
    of: PhantomData<T>,
}

#[repr(C)]
struct Copy<const ROOM: usize> {
    sum: AtomicU64,
    words: [AtomicU64; ROOM],
}

impl<T: ?Sized, const ROOM: usize> Record<T, ROOM> {
    /// One of which there is no version.
    #[cfg(test)]
    pub(super) fn unwritten() -> Self {
        let copy = || Copy { sum: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) };
        Self { version: AtomicU64::new(0), copies: [copy(), copy()], of: PhantomData }
    }

    fn store(&self, bytes: &[u8]) {
        let version = self.version.load(Ordering::Relaxed).wrapping_add(1).max(1);
        let copy = &self.copies[usize::from(version % 2 == 1)];
        let words = bytes.as_chunks::<8>().0;
        for (at, bytes) in words.iter().enumerate() {
            store(&copy.words[at], u64::from_ne_bytes(*bytes), Ordering::Relaxed);
            if at == words.len() / 2 {
                crash::point(Place::HalfARecord);
            }
        }
        store(&copy.sum, sum(version, bytes), Ordering::Relaxed);
        crash::point(Place::RecordWritten);
        store(&self.version, version, Ordering::Release);
        crash::point(Place::RecordValid);
    }

    /// The first bytes of the last whole version, if that is as long.
    pub(super) fn read_first(&self, bytes: usize) -> Option<Vec<u8>> {
        self.load(|_| bytes / 8)
    }

    /// The last version, of which `length` says how many words of which it looks at the first.
    fn load(&self, length: impl FnOnce(u64) -> usize) -> Option<Vec<u8>> {
        let version = self.version.load(Ordering::Acquire);
        if version == 0 {
            return None;
        }
        let copy = &self.copies[usize::from(version % 2 == 1)];
        let length = length(copy.words.first()?.load(Ordering::Relaxed));
        let mut bytes = Vec::with_capacity(length.min(ROOM) * 8);
        for word in copy.words.get(..length)? {
            bytes.extend(word.load(Ordering::Relaxed).to_ne_bytes());
        }
        (copy.sum.load(Ordering::Relaxed) == sum(version, &bytes)).then_some(bytes)
    }
}

impl<const ROOM: usize> Record<[u8], ROOM> {
    /// Writes the next version; whether there was room for it.
    pub fn write_text(&self, text: &[u8]) -> bool {
        let mut bytes = (text.len() as u64).to_ne_bytes().to_vec();
        bytes.extend(text);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let fits = bytes.len() / 8 <= ROOM;
        if fits {
            self.store(&bytes);
        }
        fits
    }

    /// The last whole version; `None` if there is none, or it is damaged.
    #[must_use]
    pub fn read_text(&self) -> Option<Vec<u8>> {
        let words = |length| usize::try_from(length).unwrap_or(usize::MAX).div_ceil(8).saturating_add(1);
        let bytes = self.load(words)?;
        let (length, text) = bytes.split_first_chunk::<8>()?;
        text.get(..usize::try_from(u64::from_ne_bytes(*length)).ok()?).map(<[u8]>::to_vec)
    }
}

impl<T: FromBytes + IntoBytes + Immutable, const ROOM: usize> Record<T, ROOM> {
    const LEN: usize = {
        assert!(size_of::<T>().is_multiple_of(8) && size_of::<T>() / 8 <= ROOM);
        size_of::<T>() / 8
    };

    /// Writes the next version.
    pub fn write(&self, value: &T) {
        self.store(value.as_bytes());
    }

    /// The last whole version; `None` if there is none, or it is damaged.
    #[must_use]
    pub fn read(&self) -> Option<T> {
        let bytes = self.load(|_| Self::LEN)?;
        T::read_from_bytes(&bytes).ok()
    }
}

impl<T: ?Sized, const ROOM: usize> std::fmt::Debug for Record<T, ROOM> {
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
        Box::new(Record::unwritten())
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
    fn text_is_as_long_as_it_is() {
        let record: Record<[u8], 4> = Record::unwritten();
        assert_eq!(record.read_text(), None);
        for text in ["longer than a word", "", "eight..."] {
            assert!(record.write_text(text.as_bytes()));
            assert_eq!(record.read_text().as_deref(), Some(text.as_bytes()));
        }
        assert!(!record.write_text(&[1; 25]), "more than there is room for");
        assert_eq!(record.read_text().as_deref(), Some(&b"eight..."[..]));
        record.copies[1].words[0].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(record.read_text(), None, "a length that is none");
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
