// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counting the pages of a heap or a pool by what their heads say.

use super::space::record::PageHead;
use crate::codec::Codec;
use crate::stats::Contents;

impl Contents {
    /// A page of that head is there.
    pub(in crate::shard) fn add(&mut self, page: PageHead) {
        self.pages += 1;
        self.compressed_bytes += page.length() as u64;
        match page.codec() {
            Codec::Same => self.same_filled += 1,
            Codec::Raw => self.raw += 1,
            Codec::Zstd => self.cold += 1,
            Codec::Lz4 => {}
        }
    }

    /// A page of that head, which was added, is gone.
    pub(in crate::shard) fn sub(&mut self, page: PageHead) {
        self.pages -= 1;
        self.compressed_bytes -= page.length() as u64;
        match page.codec() {
            Codec::Same => self.same_filled -= 1,
            Codec::Raw => self.raw -= 1,
            Codec::Zstd => self.cold -= 1,
            Codec::Lz4 => {}
        }
    }
}
