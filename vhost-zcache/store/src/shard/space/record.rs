// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the arena is made of, word by word. Everything starts with a head word:
//!
//! ```text
//! bits   0..3    kind: 0 end, 1 hole, 2 page, 3 object
//! hole   3..32   size in words
//! page   3..5    codec        5..18  length of the payload in bytes
//!        18      linked: a queue word follows the key
//!        19..21  frequency    21     queue 0 small, 1 main
//!        22      settled: recompressing it was tried   24..32 epoch of the last use
//! object 3..32   life of the pool
//! page, object   32..64 checksum
//! ```
//!
//! ```text
//! hole    head | next hole, previous hole of its bin (32 bits each; if 3 words or more) | ...
//! page    head | object number, generation | index | [next, previous in queue] | payload
//! object  head | object number, pool | 192 bits of name
//! ```
//!
//! The checksum covers what a record says for good: kind, codec, length, linked, key,
//! generation and payload. What changes while it lies there (frequency, queue, epoch, links) is
//! left out; losing it costs speed, not data. A change of the head is one store, so whoever
//! reads the arena after a crash finds either the old or the new state of it.

use twox_hash::XxHash3_64;
use zerocopy::IntoBytes;

use crate::arena::word::{low, pair, split};
use crate::codec::Codec;
use crate::key::{ObjectId, PAGE_SIZE};
use crate::shard::index::nodes::Node;

/// Words of an object record.
pub(crate) const OBJECT_WORDS: u32 = 5;
/// Words of the largest record: a linked raw page.
pub(crate) const MAX_WORDS: u32 = 4 + 512;
const _: () = assert!(MAX_WORDS as usize == 4 + PAGE_SIZE / 8);
/// Holes below this size hold no record, and are in no bin.
pub(crate) const MIN_HOLE: u32 = 3;

const KIND: u64 = 0b111;
const CODEC: u32 = 3;
const LENGTH: u32 = 5;
const LENGTH_MASK: u64 = 0x1fff;
const LINKED: u64 = 1 << 18;
const FREQUENCY: u32 = 19;
const MAIN: u64 = 1 << 21;
const SETTLED: u64 = 1 << 22;
const EPOCH: u32 = 24;
const CHECKSUM: u32 = 32;
const LIFE: u32 = 3;
/// Bits of a page's head that the checksum covers.
const COVERED: u64 = KIND | 0b11 << CODEC | LENGTH_MASK << LENGTH | LINKED;

/// Most hits a record remembers.
pub(crate) const MAX_FREQUENCY: u8 = 3;

/// What a head word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Nothing was written here or beyond.
    End,
    /// Free space of so many words.
    Hole(u32),
    /// A page.
    Page(PageHead),
    /// An object's name.
    Object,
    /// No head word that this code writes.
    Unknown,
}

impl Head {
    pub(crate) fn read(word: u64) -> Self {
        match word & KIND {
            0 if word == 0 => Self::End,
            1 => Self::Hole(low(word) >> 3),
            2 => Self::Page(PageHead(word)),
            3 => Self::Object,
            _ => Self::Unknown,
        }
    }

    /// Words up to the next head, 0 if there is none.
    pub(crate) fn words(self) -> u32 {
        match self {
            Self::End | Self::Unknown => 0,
            Self::Hole(words) => words,
            Self::Page(head) => head.words(),
            Self::Object => OBJECT_WORDS,
        }
    }
}

/// The head of a hole.
pub(crate) fn hole(words: u32) -> u64 {
    1 | u64::from(words) << 3
}

/// The head word of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageHead(pub(crate) u64);

impl PageHead {
    pub(crate) fn new(codec: Codec, length: usize, linked: bool, epoch: u8) -> Self {
        let codec = match codec {
            Codec::Same => 0u64,
            Codec::Raw => 1,
            Codec::Lz4 => 2,
            Codec::Zstd => 3,
        };
        let linked = if linked { LINKED } else { 0 };
        let length = (length as u64 & LENGTH_MASK) << LENGTH;
        Self(2 | codec << CODEC | length | linked | u64::from(epoch) << EPOCH)
    }

    pub(crate) fn codec(self) -> Codec {
        match (self.0 >> CODEC) & 0b11 {
            0 => Codec::Same,
            1 => Codec::Raw,
            2 => Codec::Lz4,
            _ => Codec::Zstd,
        }
    }

    /// Bytes of payload.
    pub(crate) fn length(self) -> usize {
        low(self.0 >> LENGTH & LENGTH_MASK) as usize
    }

    pub(crate) fn is_linked(self) -> bool {
        self.0 & LINKED != 0
    }

    /// Word of the payload's start, counted from the head.
    pub(crate) fn payload_at(self) -> u32 {
        3 + u32::from(self.is_linked())
    }

    pub(crate) fn words(self) -> u32 {
        self.payload_at() + low(self.length().div_ceil(8) as u64)
    }

    pub(crate) fn frequency(self) -> u8 {
        (self.0 >> FREQUENCY & 0b11) as u8
    }

    pub(crate) fn with_frequency(self, frequency: u8) -> Self {
        Self(self.0 & !(0b11 << FREQUENCY) | u64::from(frequency.min(MAX_FREQUENCY)) << FREQUENCY)
    }

    pub(crate) fn is_main(self) -> bool {
        self.0 & MAIN != 0
    }

    pub(crate) fn with_main(self, main: bool) -> Self {
        Self(if main { self.0 | MAIN } else { self.0 & !MAIN })
    }

    pub(crate) fn is_settled(self) -> bool {
        self.0 & SETTLED != 0
    }

    pub(crate) fn with_settled(self) -> Self {
        Self(self.0 | SETTLED)
    }

    pub(crate) fn epoch(self) -> u8 {
        (self.0 >> EPOCH & 0xff) as u8
    }

    pub(crate) fn with_epoch(self, epoch: u8) -> Self {
        Self(self.0 & !(0xff << EPOCH) | u64::from(epoch) << EPOCH)
    }

    pub(crate) fn checksum(self) -> u32 {
        low(self.0 >> CHECKSUM)
    }

    pub(crate) fn with_checksum(self, checksum: u32) -> Self {
        Self(self.0 & 0xffff_ffff | u64::from(checksum) << CHECKSUM)
    }
}

/// The words that name a page: object and generation, then index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageName {
    /// Number of the object within its shard.
    pub(in crate::shard) object: Node,
    /// Counts the shard's puts; tells a rewritten page from the one before.
    pub(crate) generation: u32,
    /// Page within the object.
    pub(crate) index: u64,
}

impl PageName {
    pub(crate) fn words(self) -> [u64; 2] {
        [pair(self.object.cell(), self.generation), self.index]
    }

    pub(crate) fn read(words: [u64; 2]) -> Self {
        let (object, generation) = split(words[0]);
        Self { object: Node::from_cell(object), generation, index: words[1] }
    }
}

/// The XXH3 of a payload, into which head and name are mixed when they are known. Chosen for its
/// speed on payloads of this size: every put and get computes one.
///
/// Each step of the mixing is a bijection of the state, so a change of any one word changes the
/// 64-bit state for certain, and the 32 bits that are kept but for one case in 2^32.
#[derive(Clone, Copy)]
pub(crate) struct PayloadSum(u64);

impl PayloadSum {
    pub(crate) fn new(payload: &[u8]) -> Self {
        Self(XxHash3_64::oneshot(payload))
    }

    /// The payload's part of it, which is the same wherever the page is stored.
    pub(crate) fn of_payload(self) -> u64 {
        self.0
    }

    pub(crate) fn finish(self, head: PageHead, name: PageName) -> u32 {
        let [first, second] = name.words();
        let mix = |state: u64, word: u64| {
            let product = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            product ^ product >> 32
        };
        let state = [head.0 & COVERED, first, second].into_iter().fold(self.0, mix);
        low(mix(state, 0))
    }
}

/// Which life of a pool an object belongs to: a pool that is flushed or made anew begins another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Life(pub(crate) u32);

impl Life {
    /// Bits of a life. A guest that flushes a million pools in a second comes round in nine
    /// minutes, long after what was left of the first life has gone.
    pub(crate) const BITS: u32 = 29;

    /// The life in the low bits of a word.
    pub(crate) fn of(word: u64) -> Self {
        Self(low(word & ((1 << Self::BITS) - 1)))
    }

    /// The life after this one.
    pub(crate) fn next(self) -> Self {
        Self::of(u64::from(self.0) + 1)
    }
}

/// What an object's record says: its number in the shard, and the guest's pool it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectName {
    pub(in crate::shard) object: Node,
    pub(crate) pool: u32,
    pub(crate) life: Life,
}

impl ObjectName {
    /// The object's number, by the second word of its record.
    pub(in crate::shard) fn object(word: u64) -> Node {
        Node::from_cell(split(word).0)
    }
}

/// An object's record.
pub(crate) fn object_words(name: ObjectName, id: &ObjectId) -> [u64; OBJECT_WORDS as usize] {
    let id = id_words(id);
    let head = 3 | u64::from(name.life.0) << LIFE;
    let word = pair(name.object.cell(), name.pool);
    let sum = object_sum(head, word, id);
    [head | u64::from(sum) << CHECKSUM, word, id[0], id[1], id[2]]
}

/// What an object record says, if it is undamaged.
pub(crate) fn check_object(words: [u64; OBJECT_WORDS as usize]) -> Option<ObjectName> {
    let [head, word, a, b, c] = words;
    let (object, pool) = split(word);
    let whole = low(head >> CHECKSUM) == object_sum(head & 0xffff_ffff, word, [a, b, c]);
    whole.then_some(ObjectName { object: Node::from_cell(object), pool, life: Life::of(head >> LIFE) })
}

fn object_sum(head: u64, word: u64, id: [u64; 3]) -> u32 {
    low(XxHash3_64::oneshot([head, word, id[0], id[1], id[2]].as_bytes()))
}

/// An object's name as the words of its record.
pub(crate) fn id_words(id: &ObjectId) -> [u64; 3] {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(id.0.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// The name in an object's record.
pub(crate) fn id_of(words: [u64; 3]) -> ObjectId {
    let mut id = [0; 24];
    for (bytes, word) in id.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    ObjectId(id)
}
