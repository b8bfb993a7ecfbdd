// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bare codec, on the same pages.

use anyhow::Result;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use zcache_store::{PAGE_SIZE, Page};

/// Above it the store keeps a page as it is.
const RAW: usize = 3072;

pub(super) struct Codec {
    table: CompressTable,
    out: Vec<u8>,
    page: Page,
    compressed: Vec<Vec<u8>>,
}

impl Codec {
    pub(super) fn new(pages: &[Page]) -> Result<Self> {
        let mut codec = Self {
            table: CompressTable::small(),
            out: vec![0; get_maximum_output_size(PAGE_SIZE)],
            page: [0; PAGE_SIZE],
            compressed: Vec::new(),
        };
        for page in pages {
            let length = codec.compress(page)?;
            let kept = if length > RAW { &page[..] } else { &codec.out[..length] };
            codec.compressed.push(kept.to_vec());
        }
        Ok(codec)
    }

    pub(super) fn compress(&mut self, page: &Page) -> Result<usize> {
        Ok(compress_into_with_table(page, &mut self.out, &mut self.table)?)
    }

    pub(super) fn decompress(&mut self, number: usize) -> Result<()> {
        match &self.compressed[number][..] {
            raw if raw.len() == PAGE_SIZE => self.page.copy_from_slice(raw),
            compressed => {
                decompress_into(compressed, &mut self.page)?;
            }
        }
        Ok(())
    }
}
