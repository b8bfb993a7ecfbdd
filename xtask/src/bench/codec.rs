// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bare codec, to compare with.

use anyhow::Result;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use zcache_store::{PAGE_SIZE, Page};

/// The limit above which the store keeps a page as it is, in bytes.
const RAW: usize = 3072;

/// A compressed page as the bare codec keeps it; raw pages as they are.
pub(super) enum Encoded {
    Lz4(Vec<u8>),
    Raw(Box<Page>),
}

/// The codec, with memory of its own.
pub(super) struct Codec {
    table: CompressTable,
    out: Vec<u8>,
}

impl Codec {
    pub(super) fn new() -> Self {
        Self { table: CompressTable::small(), out: vec![0; get_maximum_output_size(PAGE_SIZE)] }
    }

    pub(super) fn encode(&mut self, page: &Page) -> Result<&[u8]> {
        let length = compress_into_with_table(page, &mut self.out, &mut self.table)?;
        Ok(&self.out[..length])
    }

    pub(super) fn keep(&mut self, page: &Page) -> Result<Encoded> {
        let bytes = self.encode(page)?;
        Ok(if bytes.len() > RAW { Encoded::Raw(Box::new(*page)) } else { Encoded::Lz4(bytes.to_vec()) })
    }
}

impl Encoded {
    pub(super) fn decode(&self, page: &mut Page) -> Result<()> {
        match self {
            Self::Lz4(bytes) => {
                decompress_into(bytes, page)?;
            }
            Self::Raw(bytes) => *page = **bytes,
        }
        Ok(())
    }
}
