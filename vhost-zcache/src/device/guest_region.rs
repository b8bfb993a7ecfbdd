// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One region of guest memory, mapped from the VMM's file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::fs::{FileType, fstat, fstatfs};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use thiserror::Error;
use vm_memory::{
    GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes, GuestMemoryResult, GuestUsize,
    MemoryRegionAddress, VolatileSlice,
};

use super::dirty_log::{DirtyLog, LogSlice, RegionLog};
use super::memory_fault::Registration;

/// File system type of hugetlbfs, `HUGETLBFS_MAGIC` of linux/magic.h.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Why a region cannot be mapped.
#[derive(Debug, Error)]
pub enum RegionError {
    /// Nothing, or more than fits this process or the guest's address space.
    #[error("a memory region of {length:#x} bytes at {start:#x} is empty or beyond the guest's address space")]
    Range {
        /// First guest-physical address.
        start: u64,
        /// Length in bytes.
        length: u64,
    },
    /// The file ends before the region does, and the first access behind its end would fault.
    #[error("a memory region needs {needed} bytes of a file that has {size}")]
    TooShort {
        /// Where the region ends in the file.
        needed: u64,
        /// Size of the file.
        size: u64,
    },
    /// Neither a regular file (memfd, tmpfs, hugetlbfs) nor a character device (device DAX).
    #[error("a memory region is in something that is no memory file")]
    Kind,
    /// The system refuses to map it.
    #[error("a memory region cannot be mapped: {0}")]
    Map(#[from] io::Error),
}

/// A mapped region. It holds no file descriptor, and is unmapped when dropped.
pub struct GuestRegion {
    start: GuestAddress,
    length: usize,
    /// Where what is written is logged.
    log: RegionLog,
    // Dropped in this order.
    fault: Registration,
    mapping: Mapping,
}

impl GuestRegion {
    /// Maps `length` bytes of a file from `offset` on as guest memory from `start` on.
    ///
    /// # Errors
    ///
    /// [`RegionError`].
    pub fn map(file: &File, offset: u64, start: GuestAddress, length: u64) -> Result<Self, RegionError> {
        let range = RegionError::Range { start: start.0, length };
        let (Some(end), Some(_)) = (offset.checked_add(length), start.0.checked_add(length)) else {
            return Err(range);
        };
        let Some(size) = usize::try_from(length).ok().filter(|size| *size > 0) else {
            return Err(range);
        };
        check_size(file, end)?;
        let mapping = Mapping::new(file, offset, size)?;
        // SAFETY: the mapping is this region's own, is used through volatile slices only, and is
        // unmapped after the registration was dropped.
        let fault = unsafe { Registration::new(mapping.start.as_ptr().cast(), mapping.length) };
        let log = RegionLog::new(DirtyLog::default(), start.0);
        Ok(Self { start, length: size, log, fault, mapping })
    }

    /// The same region, of which writes are logged.
    #[must_use]
    pub fn with_log(self, log: &DirtyLog) -> Self {
        Self { log: RegionLog::new(log.clone(), self.start.0), ..self }
    }

    /// Whether its memory went away, so that what is read from it are not the guest's bytes and
    /// what is written to it does not reach the guest.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.fault.is_lost()
    }
}

impl std::fmt::Debug for GuestRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}+{:#x}", self.start.0, self.length)
    }
}

impl GuestMemoryRegion for GuestRegion {
    type B = RegionLog;

    fn len(&self) -> GuestUsize {
        self.length as GuestUsize
    }

    fn start_addr(&self) -> GuestAddress {
        self.start
    }

    fn bitmap(&self) -> LogSlice<'_> {
        self.log.at(0)
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> GuestMemoryResult<VolatileSlice<'_, LogSlice<'_>>> {
        let from = usize::try_from(offset.0).ok().filter(|from| *from <= self.length);
        let Some(from) = from.filter(|from| count <= self.length - from) else {
            return Err(GuestMemoryError::InvalidBackendAddress);
        };
        // SAFETY: the offset was found to be inside the mapping.
        let start = unsafe { self.mapping.start.as_ptr().add(from) };
        // SAFETY: `count` bytes from there are inside the mapping, which stays for as long as the
        // slice borrows the region.
        Ok(unsafe { VolatileSlice::with_bitmap(start, count, self.log.at(offset.0), None) })
    }
}

impl GuestMemoryRegionBytes for GuestRegion {}

/// A file must be long enough when it is mapped. One that shrinks later is what
/// [`super::memory_fault`] is for, and so are devices, which do not say how long they are.
fn check_size(file: &File, needed: u64) -> Result<(), RegionError> {
    let status = fstat(file).map_err(io::Error::from)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => match u64::try_from(status.st_size) {
            Ok(size) if size >= needed => Ok(()),
            size => Err(RegionError::TooShort { needed, size: size.unwrap_or(0) }),
        },
        FileType::CharacterDevice => Ok(()),
        _ => Err(RegionError::Kind),
    }
}

/// A shared mapping of a file.
struct Mapping {
    start: NonNull<u8>,
    /// In whole pages of the file, as unmapping takes them.
    length: usize,
}

// SAFETY: the mapping belongs to the process, and what is behind the pointer is accessed as
// volatile memory that others change anyway.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, offset: u64, length: usize) -> io::Result<Self> {
        let page = page_size(file)?;
        let length = length.checked_next_multiple_of(page).ok_or(io::ErrorKind::OutOfMemory)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: without an address the kernel takes a free range, so nothing else is touched.
        let start = unsafe { mmap(ptr::null_mut(), length, access, flags, file.as_fd(), offset) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and nothing borrows it any more.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "a mapping is not unmapped: {unmapped:?}");
    }
}

/// Size of the pages that a file is mapped in.
fn page_size(file: &File) -> io::Result<usize> {
    let system = fstatfs(file)?;
    // The types of the fields differ between architectures.
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    let huge = u64::try_from(system.f_type).is_ok_and(|magic| magic == HUGETLBFS_MAGIC);
    let huge_page = usize::try_from(system.f_bsize).ok().filter(|size| huge && *size > 0);
    Ok(huge_page.unwrap_or_else(rustix::param::page_size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::unix::net::UnixStream;
    use vm_memory::Bytes;

    fn memfd(size: u64) -> File {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, size).unwrap();
        file.into()
    }

    #[test]
    fn a_region_longer_than_its_file_is_refused() {
        let file = memfd(0x3000);
        let map = |offset, length| GuestRegion::map(&file, offset, GuestAddress(0x1000), length);
        assert!(map(0x1000, 0x2000).is_ok());
        assert!(matches!(map(0x1000, 0x3000), Err(RegionError::TooShort { needed: 0x4000, size: 0x3000 })));
        assert!(matches!(map(0, 0x3001), Err(RegionError::TooShort { .. })));
        assert!(matches!(map(0, 0), Err(RegionError::Range { .. })));
        assert!(matches!(map(u64::MAX, 0x1000), Err(RegionError::Range { .. })));
        let beyond = GuestRegion::map(&file, 0, GuestAddress(u64::MAX - 0xfff), 0x1000);
        assert!(matches!(beyond, Err(RegionError::Range { .. })));
        let (socket, _) = UnixStream::pair().unwrap();
        let socket = File::from(std::os::fd::OwnedFd::from(socket));
        assert!(matches!(GuestRegion::map(&socket, 0, GuestAddress(0), 1), Err(RegionError::Kind)));
    }

    #[test]
    fn memory_that_goes_away_is_lost_and_other_memory_is_not() {
        super::super::memory_fault::install().unwrap();
        let (file, other) = (memfd(0x3000), memfd(0x1000));
        let victim = GuestRegion::map(&file, 0, GuestAddress(0x1000), 0x3000).unwrap();
        let bystander = GuestRegion::map(&other, 0, GuestAddress(0x8000), 0x1000).unwrap();
        victim.write_obj(0x11u8, MemoryRegionAddress(0)).unwrap();
        bystander.write_obj(0x22u8, MemoryRegionAddress(0)).unwrap();
        assert_eq!(victim.read_obj::<u8>(MemoryRegionAddress(0)).unwrap(), 0x11);
        assert!(!victim.is_lost());

        ftruncate(&file, 0x1000).unwrap();
        assert_eq!(victim.read_obj::<u8>(MemoryRegionAddress(0x2fff)).unwrap(), 0, "zeros are there instead");
        assert!(victim.is_lost(), "the loss was not noticed");
        assert!(super::super::memory_fault::any_lost());
        assert_eq!(victim.read_obj::<u8>(MemoryRegionAddress(0)).unwrap(), 0, "the whole region is replaced");
        victim.write_obj(0x33u8, MemoryRegionAddress(0x2000)).unwrap();

        assert_eq!(bystander.read_obj::<u8>(MemoryRegionAddress(0)).unwrap(), 0x22);
        assert!(!bystander.is_lost());
        drop(victim);
        let again = GuestRegion::map(&other, 0, GuestAddress(0x1000), 0x1000).unwrap();
        assert!(!again.is_lost(), "a new region takes over the loss of an old one");
    }
}
