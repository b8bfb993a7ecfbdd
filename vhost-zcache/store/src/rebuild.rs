// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a segment says of itself, so that the index can be made again from the arena alone.

use crate::accounting::Use;
use crate::arena::record::pair;
use crate::arena::space::{HEADER_WORDS, Label};

/// First word of a segment in use: "zcacheS" and the version of the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"zcacheS\x01");

/// The words a segment of a heap starts with: magic; guest and shard; purpose and number of
/// shards; the seed of the hash; a checksum.
pub(crate) fn header(label: Label, guest: u32, purpose: Use) -> [u64; HEADER_WORDS] {
    let evictable = u32::from(purpose == Use::Evictable);
    let flags = evictable | u32::from(label.recoverable) << 1;
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
    let mut hasher = crc32fast::Hasher::new();
    for word in &words[..HEADER_WORDS - 1] {
        hasher.update(&word.to_le_bytes());
    }
    u64::from(hasher.finalize())
}
