// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The configuration space: 32 constant bytes, and zeros as far as anybody reads.

use zcache_protocol::{Config, MAGIC, PAGE_SIZE, VERSION};
use zcache_store::MAX_POOLS_PER_GUEST;
use zerocopy::IntoBytes;

use super::batch::MAX_BATCH;
use super::request::OFFERED;

/// Contents of the configuration space, which do not change while the daemon runs.
#[derive(Debug, Clone, Copy)]
pub struct ConfigSpace {
    config: Config,
}

impl ConfigSpace {
    /// The configuration of a device with that many queues.
    #[must_use]
    pub fn new(num_queues: u16) -> Self {
        const {
            assert!(PAGE_SIZE <= u32::MAX as usize);
            assert!(MAX_POOLS_PER_GUEST <= u32::MAX as usize);
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        let (page_size, max_pools) = (PAGE_SIZE as u32, MAX_POOLS_PER_GUEST as u32);
        Self {
            config: Config {
                magic: MAGIC.into(),
                version: VERSION.into(),
                features: OFFERED.into(),
                num_queues: u32::from(num_queues).into(),
                max_batch: u32::from(MAX_BATCH).into(),
                max_pools: max_pools.into(),
                page_size: page_size.into(),
                reserved: 0.into(),
            },
        }
    }

    /// `length` bytes from `offset`, zeros where there is nothing. Never fails, because Cloud
    /// Hypervisor ends the virtual machine when a read does.
    #[must_use]
    pub fn read(&self, offset: u32, length: u32) -> Vec<u8> {
        let bytes = self.config.as_bytes();
        // Where u32 does not fit usize there is nothing to read at such an offset either.
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut read = bytes.get(offset..).unwrap_or_default().to_vec();
        read.resize(length, 0);
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_with_magic_and_version() {
        let space = ConfigSpace::new(8);
        assert_eq!(space.read(0, 8), *b"ZCCH\x01\0\0\0");
        assert_eq!(space.read(8, 4), 1u32.to_le_bytes(), "features");
        assert_eq!(space.read(12, 4), 8u32.to_le_bytes(), "num_queues");
        assert_eq!(space.read(16, 4), 32u32.to_le_bytes(), "max_batch");
        assert_eq!(space.read(24, 4), 4096u32.to_le_bytes(), "page_size");
    }

    #[test]
    fn any_offset_and_length_is_answered_with_zeros_beyond_the_end() {
        let space = ConfigSpace::new(8);
        assert_eq!(space.read(0, 256)[..32], space.read(0, 32));
        assert_eq!(space.read(0, 256)[32..], [0; 224]);
        assert_eq!(space.read(30, 4), [0; 4]);
        assert_eq!(space.read(1, 2), *b"CC");
        assert_eq!(space.read(32, 3), [0; 3]);
        assert_eq!(space.read(u32::MAX, 4), [0; 4]);
        assert_eq!(space.read(5, 0), [0; 0]);
    }
}
