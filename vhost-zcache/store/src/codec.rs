// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a page becomes the bytes that are stored, and back.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use zstd_safe::{CCtx, DCtx};

use crate::key::{PAGE_SIZE, Page};

/// Compressed pages above this size are stored raw: they save too little to pay for the
/// decompression of every get.
pub(crate) const RAW_ABOVE: usize = 3072;
/// zstd's level for cold pages. Level 3 is 1 % smaller and a tenth slower.
const COLD_LEVEL: i32 = 1;

/// How the stored bytes of a page are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// One 8-byte word, repeated over the page; no bytes for the word 0.
    Same,
    /// The page itself.
    Raw,
    /// An LZ4 block.
    Lz4,
    /// A zstd frame.
    Zstd,
}

/// A page as it is stored, on its way from one store to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPage<'a> {
    /// How its bytes are to be read.
    pub codec: Codec,
    /// Its bytes, at most those of a page.
    pub bytes: &'a [u8],
    /// The XXH3 of its bytes.
    pub sum: u64,
}

/// Buffers of one thread. Every put and get borrows one, so that the hot path allocates nothing.
pub struct Scratch {
    table: CompressTable,
    out: Vec<u8>,
    /// Stored bytes on their way out of the store.
    pub(crate) stored: Box<Page>,
    cold: DCtx<'static>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// Makes the buffers of one thread.
    ///
    /// # Panics
    /// When the host has no memory for them.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: CompressTable::small(),
            out: vec![0; get_maximum_output_size(PAGE_SIZE)],
            stored: Box::new([0; PAGE_SIZE]),
            // Made ahead: a page whose decoder cannot be made would look damaged.
            cold: DCtx::create(),
        }
    }

    /// Encodes a page; the bytes stay valid until the next call.
    pub(crate) fn encode<'a>(&'a mut self, page: &'a Page) -> (Codec, &'a [u8]) {
        if let Some(word) = same_filled(page) {
            let used = if word == [0; 8] { 0 } else { word.len() };
            self.out[..used].copy_from_slice(&word[..used]);
            return (Codec::Same, &self.out[..used]);
        }
        match compress_into_with_table(page, &mut self.out, &mut self.table) {
            Ok(len) if len <= RAW_ABOVE => (Codec::Lz4, &self.out[..len]),
            _ => (Codec::Raw, page),
        }
    }

    /// Decodes the first `length` of `self.stored` into `page`. Never writes beyond a page,
    /// whatever the bytes are.
    pub(crate) fn decode(&mut self, codec: Codec, length: usize, page: &mut Page) -> Result<(), Damaged> {
        let bytes = self.stored.get(..length).ok_or(Damaged)?;
        match codec {
            Codec::Same if bytes.is_empty() => page.fill(0),
            Codec::Same => {
                let word: [u8; 8] = bytes.try_into().map_err(|_| Damaged)?;
                page.as_chunks_mut::<8>().0.fill(word);
            }
            Codec::Raw => *page = *<&Page>::try_from(bytes).map_err(|_| Damaged)?,
            Codec::Lz4 => {
                if !matches!(decompress_into(bytes, page), Ok(PAGE_SIZE)) {
                    return Err(Damaged);
                }
            }
            Codec::Zstd => {
                if self.cold.decompress(&mut page[..], bytes) != Ok(PAGE_SIZE) {
                    return Err(Damaged);
                }
            }
        }
        Ok(())
    }
}

/// The stored bytes are not an encoding of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

/// The slow, dense encoder of the cold tier.
pub(crate) struct ColdEncoder {
    context: CCtx<'static>,
    out: Vec<u8>,
}

impl ColdEncoder {
    pub(crate) fn new() -> Option<Self> {
        let out = vec![0; zstd_safe::compress_bound(PAGE_SIZE)];
        CCtx::try_create().map(|context| Self { context, out })
    }

    /// Encodes a page, if that gives at most `most` bytes.
    pub(crate) fn encode(&mut self, page: &Page, most: usize) -> Option<&[u8]> {
        let length = self.context.compress(&mut self.out[..], page, COLD_LEVEL).ok()?;
        (length <= most).then(|| &self.out[..length])
    }
}

/// The word a page consists of, if it is one repeated.
fn same_filled(page: &Page) -> Option<[u8; 8]> {
    let words = page.as_chunks::<8>().0;
    let first = words[0];
    words.iter().all(|word| *word == first).then_some(first)
}
