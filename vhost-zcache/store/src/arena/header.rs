// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a segment says of itself, so that a later process can make sense of the arena.

use std::thread::{self, available_parallelism};

use twox_hash::XxHash3_64;
use zerocopy::IntoBytes;

use super::memory::Segment;
use super::word::{pair, split};
use crate::accounting::Use;

/// Words of a segment's header.
pub(crate) const HEADER_WORDS: usize = 7;
/// Says how a store's memory is laid out, so that another build can tell whether it knows how: the
/// first word of each segment in use, "zcacheS" and the version of the layout.
pub const LAYOUT: u64 = u64::from_le_bytes(*b"zcacheS\x04");

/// Fewest segments whose headers are worth a thread.
const LEAST_PART: usize = 1024;

const EVICTABLE: u32 = 1;
const RECOVERABLE: u32 = 1 << 1;
const NAMES: u32 = 1 << 2;
const ROSTER: u32 = 1 << 3;

/// What is put into a segment of a heap.
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

/// What a segment is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A heap's records.
    Records(Use, Lane),
    /// The list of a guest's pools: [`crate::engine::roster`].
    Roster,
}

/// What a segment's header says besides its role; the same for all segments of a shard.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    /// Number of the guest.
    pub(crate) guest: u32,
    /// Shard within the domain.
    pub(crate) shard: u16,
    /// Shards of the domain.
    pub(crate) shards: u16,
    /// How often all segments of the shard were taken out of service at once. Those of an earlier
    /// era are on their way back to the host, and the numbers of objects in them mean nothing.
    pub(crate) era: u32,
    /// Seed of the hash that spreads keys over them.
    pub(crate) seed: [u64; 2],
    /// Whether a later process can make sense of the segment.
    pub(crate) recoverable: bool,
}

/// The words a segment starts with: magic; guest and shard; flags and number of shards; era; the
/// seed of the hash; a checksum.
pub(crate) fn header(label: Label, role: Role) -> [u64; HEADER_WORDS] {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags = flag(label.recoverable, RECOVERABLE)
        | match role {
            Role::Records(purpose, lane) => {
                flag(purpose == Use::Evictable, EVICTABLE) | flag(lane == Lane::Names, NAMES)
            }
            Role::Roster => ROSTER,
        };
    let mut words = [
        LAYOUT,
        pair(label.guest, u32::from(label.shard)),
        pair(flags, u32::from(label.shards)),
        pair(label.era, 0),
        label.seed[0],
        label.seed[1],
        0,
    ];
    words[HEADER_WORDS - 1] = sum(&words);
    words
}

/// Writes a segment's header, its first word last. The segment's first words must be populated.
pub(crate) fn write(segment: &mut Segment, label: Label, role: Role) {
    let header = header(label, role);
    segment.words_mut()[1..HEADER_WORDS].copy_from_slice(&header[1..]);
    segment.publish(0, header[0]);
}

/// Has a segment say nothing of itself any more.
pub(crate) fn void(segment: &mut Segment) {
    segment.publish(0, 0);
}

fn sum(words: &[u64; HEADER_WORDS]) -> u64 {
    XxHash3_64::oneshot(words[..HEADER_WORDS - 1].as_bytes())
}

/// What a segment's header says, if it is one of a segment that can be made sense of.
pub(crate) struct Origin {
    pub(crate) label: Label,
    pub(crate) role: Role,
}

impl Origin {
    /// Whose segments are that an earlier process wrote, and which can be made sense of. They are
    /// many, so all processors look.
    pub(crate) fn of_all(segments: Vec<Segment>) -> Vec<(Self, Segment)> {
        let look = |part: &[Segment]| -> Vec<Option<Self>> { part.iter().map(Self::of).collect() };
        let threads = available_parallelism().map_or(1, usize::from);
        let part = segments.len().div_ceil(threads).max(LEAST_PART);
        let origins = thread::scope(|scope| {
            let (own, others) = segments.split_at(part.min(segments.len()));
            let helpers: Vec<_> = others
                .chunks(part)
                .map(|part| (part, thread::Builder::new().spawn_scoped(scope, move || look(part)).ok()))
                .collect();
            let mut origins = look(own);
            for (part, helper) in helpers {
                // This thread does what others cannot be had for.
                origins.extend(helper.and_then(|helper| helper.join().ok()).unwrap_or_else(|| look(part)));
            }
            origins
        });
        origins.into_iter().zip(segments).filter_map(|(origin, segment)| Some((origin?, segment))).collect()
    }

    /// What a segment says.
    pub(crate) fn of(segment: &Segment) -> Option<Self> {
        Self::read(&segment.first_words()?)
    }

    /// Reads a segment's header, its first words. Segments of shared pools are not recovered: their
    /// pages may have been put by guests that are gone, and may be dropped at any time.
    fn read(words: &[u64; HEADER_WORDS]) -> Option<Self> {
        if words[0] != LAYOUT || words[HEADER_WORDS - 1] != sum(words) {
            return None;
        }
        let (guest, shard) = split(words[1]);
        let (flags, shards) = split(words[2]);
        let (era, _) = split(words[3]);
        let (shard, shards) = (u16::try_from(shard).ok()?, u16::try_from(shards).ok()?);
        let has = |flag: u32| flags & flag != 0;
        let recoverable = has(RECOVERABLE);
        let valid = recoverable && shards.is_power_of_two() && shard < shards;
        let purpose = if has(EVICTABLE) { Use::Evictable } else { Use::Kept };
        let lane = if has(NAMES) { Lane::Names } else { Lane::Pages };
        let role = if has(ROSTER) { Role::Roster } else { Role::Records(purpose, lane) };
        let label = Label { guest, shard, shards, era, seed: [words[4], words[5]], recoverable };
        valid.then_some(Self { label, role })
    }
}
