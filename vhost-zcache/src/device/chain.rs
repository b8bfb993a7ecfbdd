// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Follows a chain of descriptors.

use thiserror::Error;
use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

use super::guest_memory::{self, Buffer, Memory, MemoryError};

/// Bytes of a descriptor: le64 address, le32 length, le16 flags, le16 next.
const DESCRIPTOR_SIZE: u32 = 16;

/// Why the descriptors of a chain make no sense. A ring with such a chain is no longer served:
/// ZC-DEV-43.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChainError {
    /// A head or next index is not in its table.
    #[error("descriptor {index} is outside its table of {entries}")]
    Index {
        /// The index.
        index: u16,
        /// Entries in the table.
        entries: u32,
    },
    /// More descriptors than queue entries, as a loop has.
    #[error("the chain has a loop or more than {limit} descriptors")]
    TooLong {
        /// Entries of the queue.
        limit: u16,
    },
    /// An indirect descriptor although the driver declined the feature.
    #[error("an indirect descriptor, which the driver did not negotiate")]
    IndirectDeclined,
    /// An indirect descriptor in an indirect table, or one that is not the last of its chain.
    #[error("an indirect descriptor is inside an indirect table or not the last of its chain")]
    NestedIndirect,
    /// An indirect table of zero or broken length.
    #[error("an indirect table has a length of {0} bytes")]
    IndirectLength(u32),
    /// A device-readable descriptor after a device-writable one.
    #[error("a readable descriptor follows a writable one")]
    Direction,
    /// A table or buffer outside the guest's memory, or in memory that has gone away.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

#[derive(Debug, Clone, Copy)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn has(self, flag: u32) -> bool {
        u32::from(self.flags) & flag != 0
    }
}

/// Table of descriptors in guest memory.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Guest-physical address.
    pub address: u64,
    /// Number of descriptors.
    pub entries: u32,
}

impl Table {
    fn descriptor(self, memory: &Memory, index: u16) -> Result<Descriptor, ChainError> {
        if u32::from(index) >= self.entries {
            let entries = self.entries;
            return Err(ChainError::Index { index, entries });
        }
        let offset = u64::from(DESCRIPTOR_SIZE) * u64::from(index);
        let address = self.address.checked_add(offset).ok_or(MemoryError::Unmapped {
            address: self.address,
            length: u64::from(self.entries) * u64::from(DESCRIPTOR_SIZE),
        })?;
        let mut raw = [0; 16];
        guest_memory::read(memory, address, &mut raw)?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = raw;
        Ok(Descriptor {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        })
    }
}

/// Whether the driver may use indirect descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indirect {
    /// It has acknowledged the feature.
    Negotiated,
    /// It has not.
    Declined,
}

/// Buffers of one chain, in order. Reused from chain to chain to save allocations.
#[derive(Debug, Default)]
pub struct Chain {
    readable: Vec<Buffer>,
    writable: Vec<Buffer>,
}

impl Chain {
    /// Replaces the contents by the chain that starts at `head`. Each descriptor is read once.
    ///
    /// # Errors
    ///
    /// [`ChainError`] when the descriptors make no sense; the contents are then of no use.
    pub fn collect(
        &mut self,
        memory: &Memory,
        ring_table: Table,
        head: u16,
        queue_size: u16,
        indirect: Indirect,
    ) -> Result<(), ChainError> {
        self.readable.clear();
        self.writable.clear();

        let mut table = ring_table;
        let mut in_indirect = false;
        let mut writable_seen = false;
        let mut index = head;
        let mut seen = 0;
        loop {
            let descriptor = table.descriptor(memory, index)?;
            if descriptor.has(VRING_DESC_F_INDIRECT) {
                if indirect == Indirect::Declined {
                    return Err(ChainError::IndirectDeclined);
                }
                if in_indirect || descriptor.has(VRING_DESC_F_NEXT) {
                    return Err(ChainError::NestedIndirect);
                }
                if descriptor.length == 0 || descriptor.length % DESCRIPTOR_SIZE != 0 {
                    return Err(ChainError::IndirectLength(descriptor.length));
                }
                // All of the table has to be in memory, entries that no chain reaches included.
                Buffer::new(memory, descriptor.address, descriptor.length)?;
                table = Table { address: descriptor.address, entries: descriptor.length / DESCRIPTOR_SIZE };
                in_indirect = true;
                index = 0;
                continue;
            }

            seen += 1;
            if seen > queue_size {
                return Err(ChainError::TooLong { limit: queue_size });
            }
            let buffer = Buffer::new(memory, descriptor.address, descriptor.length)?;
            if descriptor.has(VRING_DESC_F_WRITE) {
                writable_seen = true;
                self.writable.extend(buffer);
            } else if writable_seen {
                return Err(ChainError::Direction);
            } else {
                self.readable.extend(buffer);
            }

            if !descriptor.has(VRING_DESC_F_NEXT) {
                return Ok(());
            }
            index = descriptor.next;
        }
    }

    /// Buffers the device reads.
    #[must_use]
    pub fn readable(&self) -> &[Buffer] {
        &self.readable
    }

    /// Buffers the device writes.
    #[must_use]
    pub fn writable(&self) -> &[Buffer] {
        &self.writable
    }
}

/// Bytes of a stream of buffers.
#[must_use]
pub fn stream_length(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|b| u64::from(b.length())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    const TABLE: Table = Table { address: 0x1000, entries: 8 };
    const INDIRECT_TABLE: u64 = 0x2000;
    const NEXT: u32 = VRING_DESC_F_NEXT;
    const WRITE: u32 = VRING_DESC_F_WRITE;
    const INDIRECT: u32 = VRING_DESC_F_INDIRECT;

    fn memory() -> Memory {
        guest_memory::test_memory(&[(0x1000, 0x9000)])
    }

    fn write(memory: &Memory, table: u64, index: u64, address: u64, length: u32, flags: u32, next: u16) {
        let flags = u16::try_from(flags).unwrap();
        let mut raw = [0; 16];
        raw[0..8].copy_from_slice(&address.to_le_bytes());
        raw[8..12].copy_from_slice(&length.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..16].copy_from_slice(&next.to_le_bytes());
        memory.write_slice(&raw, GuestAddress(table + 16 * index)).unwrap();
    }

    /// Follows the chain at descriptor 0 and gives the lengths of its buffers.
    fn collect(memory: &Memory) -> Result<(Vec<u32>, Vec<u32>), ChainError> {
        let mut chain = Chain::default();
        chain.collect(memory, TABLE, 0, 8, Indirect::Negotiated)?;
        let lengths = |buffers: &[Buffer]| buffers.iter().map(|b| b.length()).collect();
        Ok((lengths(chain.readable()), lengths(chain.writable())))
    }

    #[test]
    fn readable_then_writable_and_empty_ones_are_left_out() {
        let memory = memory();
        write(&memory, 0x1000, 0, 0x3000, 10, NEXT, 3);
        write(&memory, 0x1000, 3, 0, 0, NEXT, 2);
        write(&memory, 0x1000, 2, 0x3000, 20, NEXT | WRITE, 1);
        write(&memory, 0x1000, 1, 0x9fff, 1, WRITE, 99);
        assert_eq!(collect(&memory), Ok((vec![10], vec![20, 1])));
    }

    #[test]
    fn indirect_tables_are_followed_in_their_own_order_after_direct_ones() {
        let memory = memory();
        write(&memory, 0x1000, 0, 0x3000, 1, NEXT, 1);
        write(&memory, 0x1000, 1, INDIRECT_TABLE, 3 * 16, INDIRECT | WRITE, 0);
        write(&memory, INDIRECT_TABLE, 0, 0x3000, 2, NEXT, 2);
        write(&memory, INDIRECT_TABLE, 2, 0x3000, 3, NEXT | WRITE, 1);
        write(&memory, INDIRECT_TABLE, 1, 0x3000, 4, WRITE, 0);
        assert_eq!(collect(&memory), Ok((vec![1, 2], vec![3, 4])));
    }

    #[test]
    fn indirect_descriptors_have_to_be_negotiated() {
        let memory = memory();
        write(&memory, 0x1000, 0, INDIRECT_TABLE, 16, INDIRECT, 0);
        write(&memory, INDIRECT_TABLE, 0, 0x3000, 1, 0, 0);
        let error = Chain::default().collect(&memory, TABLE, 0, 8, Indirect::Declined);
        assert_eq!(error, Err(ChainError::IndirectDeclined));
    }

    #[test]
    fn a_chain_may_use_every_entry_but_not_one_more() {
        let memory = memory();
        for index in 0..8 {
            let next = u16::try_from(index + 1).unwrap();
            write(&memory, 0x1000, index, 0x3000, 1, if index < 7 { NEXT } else { 0 }, next);
        }
        assert_eq!(collect(&memory), Ok((vec![1; 8], vec![])));
        write(&memory, 0x1000, 7, 0x3000, 1, NEXT, 0);
        assert_eq!(collect(&memory), Err(ChainError::TooLong { limit: 8 }), "a loop");

        write(&memory, 0x1000, 0, INDIRECT_TABLE, 9 * 16, INDIRECT, 0);
        for index in 0..9 {
            let next = u16::try_from(index + 1).unwrap();
            write(&memory, INDIRECT_TABLE, index, 0x3000, 1, if index < 8 { NEXT } else { 0 }, next);
        }
        assert_eq!(collect(&memory), Err(ChainError::TooLong { limit: 8 }), "a long table");
        write(&memory, INDIRECT_TABLE, 7, 0x3000, 1, 0, 0);
        assert_eq!(collect(&memory), Ok((vec![1; 8], vec![])), "a long table of which 8 are used");
    }

    #[test]
    fn nonsense_is_refused() {
        type Spoil = fn(&Memory);
        let cases: [(&str, Spoil, ChainError); 10] = [
            (
                "next outside the table",
                |memory| write(memory, 0x1000, 0, 0x3000, 1, NEXT, 8),
                ChainError::Index { index: 8, entries: 8 },
            ),
            (
                "next outside the indirect table",
                |memory| {
                    write(memory, 0x1000, 0, INDIRECT_TABLE, 16, INDIRECT, 0);
                    write(memory, INDIRECT_TABLE, 0, 0x3000, 1, NEXT, 1);
                },
                ChainError::Index { index: 1, entries: 1 },
            ),
            (
                "an indirect table in an indirect table",
                |memory| {
                    write(memory, 0x1000, 0, INDIRECT_TABLE, 16, INDIRECT, 0);
                    write(memory, INDIRECT_TABLE, 0, INDIRECT_TABLE, 16, INDIRECT, 0);
                },
                ChainError::NestedIndirect,
            ),
            (
                "an indirect descriptor with a next one",
                |memory| write(memory, 0x1000, 0, INDIRECT_TABLE, 16, INDIRECT | NEXT, 1),
                ChainError::NestedIndirect,
            ),
            (
                "an empty indirect table",
                |memory| write(memory, 0x1000, 0, INDIRECT_TABLE, 0, INDIRECT, 0),
                ChainError::IndirectLength(0),
            ),
            (
                "half an entry in an indirect table",
                |memory| write(memory, 0x1000, 0, INDIRECT_TABLE, 24, INDIRECT, 0),
                ChainError::IndirectLength(24),
            ),
            (
                "an indirect table outside memory",
                |memory| write(memory, 0x1000, 0, u64::MAX - 15, 32, INDIRECT, 0),
                ChainError::Memory(MemoryError::Unmapped { address: u64::MAX - 15, length: 32 }),
            ),
            (
                "an indirect table that ends outside memory, beyond the entries that are used",
                |memory| {
                    write(memory, 0x1000, 0, 0x9ff0, 32, INDIRECT, 0);
                    write(memory, 0x9ff0, 0, 0x3000, 1, 0, 0);
                },
                ChainError::Memory(MemoryError::Unmapped { address: 0x9ff0, length: 32 }),
            ),
            (
                "a readable descriptor after a writable one",
                |memory| {
                    write(memory, 0x1000, 0, 0x3000, 1, NEXT | WRITE, 1);
                    write(memory, 0x1000, 1, 0x3000, 1, 0, 0);
                },
                ChainError::Direction,
            ),
            (
                "a buffer that ends outside memory",
                |memory| write(memory, 0x1000, 0, 0x9fff, 2, 0, 0),
                ChainError::Memory(MemoryError::Unmapped { address: 0x9fff, length: 2 }),
            ),
        ];
        for (what, spoil, error) in cases {
            let memory = memory();
            spoil(&memory);
            assert_eq!(collect(&memory), Err(error), "{what}");
        }
    }
}
