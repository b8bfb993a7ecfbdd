// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a page becomes the bytes that are stored, and back.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::key::{PAGE_SIZE, Page};

/// Compressed pages above this size are stored raw: they save too little to pay for the
/// decompression of every get.
const RAW_ABOVE: usize = 3072;

/// How the stored bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// One 8-byte word, repeated over the page.
    Same,
    /// The page itself.
    Raw,
    /// An LZ4 block.
    Lz4,
}

/// Buffers of one thread. Every put and get borrows one, so that the hot path allocates nothing.
pub struct Scratch {
    table: CompressTable,
    out: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// Makes the buffers of one thread.
    #[must_use]
    pub fn new() -> Self {
        Self { table: CompressTable::small(), out: vec![0; get_maximum_output_size(PAGE_SIZE)] }
    }

    /// Encodes a page; the bytes stay valid until the next call.
    pub(crate) fn encode<'a>(&'a mut self, page: &'a Page) -> (Codec, &'a [u8]) {
        if let Some(word) = same_filled(page) {
            self.out[..8].copy_from_slice(&word);
            return (Codec::Same, &self.out[..8]);
        }
        match compress_into_with_table(page, &mut self.out, &mut self.table) {
            Ok(len) if len <= RAW_ABOVE => (Codec::Lz4, &self.out[..len]),
            _ => (Codec::Raw, page),
        }
    }
}

/// The stored bytes are not an encoding of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

/// Decodes stored bytes into `page`. Never writes beyond a page, whatever the bytes are.
pub(crate) fn decode(codec: Codec, bytes: &[u8], page: &mut Page) -> Result<(), Damaged> {
    match codec {
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
    }
    Ok(())
}

/// The word a page consists of, if it is one repeated.
fn same_filled(page: &Page) -> Option<[u8; 8]> {
    let words = page.as_chunks::<8>().0;
    let first = words[0];
    words.iter().all(|word| *word == first).then_some(first)
}
