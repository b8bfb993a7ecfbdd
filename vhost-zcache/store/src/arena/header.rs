// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a segment says of itself, so that a later process can make sense of the arena.

use twox_hash::XxHash3_64;
use zerocopy::IntoBytes;

use super::memory::Segment;
use super::word::{pair, split};
use crate::accounting::Use;

/// Words of a segment's header.
pub(crate) const HEADER_WORDS: usize = 6;
/// First word of a segment in use: "zcacheS" and the version of the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"zcacheS\x02");

/// What is put into a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Pages, and names if the heap is small or there is no room for them elsewhere.
    Pages = 0,
    /// Names of objects.
    Names = 1,
}

impl Lane {
    pub(crate) const ALL: [Self; 2] = [Self::Pages, Self::Names];
}

/// What a segment's header says besides its heap; the same for all segments of a shard.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    /// Shard within the domain.
    pub(crate) shard: u16,
    /// Shards of the domain.
    pub(crate) shards: u16,
    /// Seed of the hash that spreads keys over them.
    pub(crate) seed: [u64; 2],
    /// Whether a later process can make sense of the segment.
    pub(crate) recoverable: bool,
}

/// The words a segment of a heap starts with: magic; guest and shard; purpose, lane and number of
/// shards; the seed of the hash; a checksum.
pub(crate) fn header(label: Label, guest: u32, purpose: Use, lane: Lane) -> [u64; HEADER_WORDS] {
    let evictable = u32::from(purpose == Use::Evictable);
    let names = u32::from(lane == Lane::Names);
    let flags = evictable | u32::from(label.recoverable) << 1 | names << 2;
    let mut words = [
        MAGIC,
        pair(guest, u32::from(label.shard)),
        pair(flags, u32::from(label.shards)),
        label.seed[0],
        label.seed[1],
        0,
    ];
    words[HEADER_WORDS - 1] = sum(&words);
    words
}

fn sum(words: &[u64; HEADER_WORDS]) -> u64 {
    XxHash3_64::oneshot(words[..HEADER_WORDS - 1].as_bytes())
}

/// What a segment's header says, if it is one of a segment that can be made sense of.
pub(crate) struct Origin {
    pub(crate) guest: u32,
    pub(crate) purpose: Use,
    pub(crate) lane: Lane,
    pub(crate) label: Label,
}

impl Origin {
    /// Reads a segment's header. Segments of shared pools are not recovered: their pages may
    /// have been put by guests that are gone, and may be dropped at any time.
    pub(crate) fn read(segment: &Segment) -> Option<Self> {
        let words: [u64; HEADER_WORDS] = *segment.words().first_chunk()?;
        if words[0] != MAGIC || words[HEADER_WORDS - 1] != sum(&words) {
            return None;
        }
        let (guest, shard) = split(words[1]);
        let (flags, shards) = split(words[2]);
        let (shard, shards) = (u16::try_from(shard).ok()?, u16::try_from(shards).ok()?);
        let recoverable = flags >> 1 & 1 == 1;
        let valid = recoverable && shards.is_power_of_two() && shard < shards;
        let purpose = if flags & 1 == 1 { Use::Evictable } else { Use::Kept };
        let lane = if flags >> 2 & 1 == 1 { Lane::Names } else { Lane::Pages };
        let label = Label { shard, shards, seed: [words[3], words[4]], recoverable };
        valid.then_some(Self { guest, purpose, lane, label })
    }
}
