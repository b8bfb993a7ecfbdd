// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The system calls under [`super::memory`].

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom, fallocate, fstat, ftruncate, memfd_create, seek};
use rustix::io::{Errno, pread, retry_on_intr};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::host::{HOST_PAGE, HUGE_PAGE, NoMemory};

/// Blocks made of small pages before another huge one is tried.
const PAUSE: u32 = 64;

/// A mapping of this process, unmapped on drop.
struct Mapping {
    base: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread. Access to its bytes is governed by
// the tokens of `memory`, which lend them by Rust's rules.
unsafe impl Send for Mapping {}
// SAFETY: as above; the methods here only pass addresses to the kernel.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves address space that starts where a huge page can, at the end of what the kernel
    /// chooses: it goes from high addresses to low ones, so mappings of one kind come to lie side
    /// by side and count as one.
    fn reserve(bytes: usize) -> io::Result<Self> {
        let more = bytes.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { mmap_anonymous(null_mut(), more, ProtFlags::empty(), flags) }?;
        let behind = start.addr() % HUGE_PAGE;
        let before = HUGE_PAGE - behind;
        let base = start.wrapping_byte_add(before);
        // SAFETY: this is the part of the mapping just made that is before `base`. Failure would
        // only leave it reserved.
        let _ = unsafe { munmap(start, before) };
        // SAFETY: this is the part behind what is asked for; as above.
        let _ = unsafe { (behind > 0).then(|| munmap(base.wrapping_byte_add(bytes), behind)) };
        Ok(Self { base: NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?, bytes })
    }

    fn at(&self, offset: usize) -> *mut c_void {
        self.base.as_ptr().wrapping_byte_add(offset.min(self.bytes))
    }

    /// Keeps huge pages out that nobody asked for, which a host may use for everything
    /// (`shmem_enabled`, `enabled`): the first touch of a page would take 2 MiB, or its kernel
    /// would fill holes later, and only what was asked for is paid for. Huge pages that are there
    /// stay. (Allocating a memory file's pages by fallocate is faster, but does not ask the
    /// mapping.)
    fn keep_small(&self, start: usize, bytes: usize) {
        // SAFETY: the advice covers a part of the mapping and does not change the memory. Kernels
        // without huge pages do not know it.
        let _ = unsafe { madvise(self.at(start), bytes, Advice::LinuxNoHugepage) };
    }

    /// Allows huge pages until `keep_small`; returns whether the kernel knows any.
    fn allow_huge(&self, start: usize, bytes: usize) -> bool {
        // SAFETY: as in `keep_small`.
        unsafe { madvise(self.at(start), bytes, Advice::LinuxHugepage) }.is_ok()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: every token that lends bytes of the mapping keeps it alive, so nobody has a
        // reference into it now. Failure would only leave the range mapped.
        let _ = unsafe { munmap(self.base.as_ptr(), self.bytes) };
    }
}

/// A mapped memory file.
pub(super) struct Shared {
    mapping: Mapping,
    file: OwnedFd,
    /// Blocks until another huge page is tried.
    pause: AtomicU32,
}

impl Shared {
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL;
        let file = memfd_create("zcache-store", flags).or_else(|error| match error {
            // Kernels before 6.3 do not know the flag.
            Errno::INVAL => memfd_create("zcache-store", MemfdFlags::CLOEXEC),
            error => Err(error),
        })?;
        ftruncate(&file, bytes as u64)?;
        let new = Self::map(file, bytes)?;
        new.settle();
        Ok(new)
    }

    /// Maps the file of an earlier process. What is on huge pages in it is mapped as such at the
    /// first touch, until [`Shared::settle`]; nothing else must be touched before that is not kept
    /// small.
    pub(super) fn reopen(file: File, unit: usize) -> io::Result<Self> {
        let file = OwnedFd::from(file);
        let bytes = usize::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if bytes == 0 || !bytes.is_multiple_of(unit) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the memory file of a store"));
        }
        Self::map(file, bytes)
    }

    fn map(file: OwnedFd, bytes: usize) -> io::Result<Self> {
        let mapping = Mapping::reserve(bytes)?;
        let base = mapping.base.as_ptr();
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: this replaces address space that was reserved for it and that nobody else knows.
        unsafe { mmap(base, bytes, prot, flags, &file, 0) }?;
        // SAFETY: the advice changes what core dumps contain, not the memory. It covers the
        // mapping just made.
        unsafe { madvise(base, bytes, Advice::LinuxDontDump) }?;
        Ok(Self { mapping, file, pause: AtomicU32::new(0) })
    }

    /// From here on huge pages are only where they are asked for.
    pub(super) fn settle(&self) {
        self.keep_small(0..self.mapping.bytes);
    }

    /// The same for a part of it.
    pub(super) fn keep_small(&self, part: Range<usize>) {
        self.mapping.keep_small(part.start, part.len());
    }

    pub(super) fn base(&self) -> NonNull<c_void> {
        self.mapping.base
    }

    pub(super) fn bytes(&self) -> usize {
        self.mapping.bytes
    }

    pub(super) fn file(&self) -> io::Result<File> {
        Ok(File::from(self.file.try_clone()?))
    }

    /// Reads a part of the file.
    pub(super) fn read(&self, start: usize, into: &mut [u8]) -> io::Result<()> {
        let read = retry_on_intr(|| pread(&self.file, &mut *into, start as u64))?;
        if read == into.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Allocates and maps a range, so that touching it later cannot fail.
    pub(super) fn populate(&self, start: usize, bytes: usize) -> Result<(), NoMemory> {
        populate(&self.mapping, start, bytes)
    }

    /// Allocates and maps a block of nothing, in one huge page if the host has one and allows it
    /// here.
    ///
    /// That takes a sixth of the time of as many small pages, and whatever the block holds is found
    /// by one step of address translation less. `MADV_COLLAPSE` (Linux 6.1) also does it where huge
    /// pages are off by default; it wants one page to be there.
    pub(super) fn populate_block(&self, start: usize) -> Result<(), NoMemory> {
        let paused = self.pause.fetch_update(Relaxed, Relaxed, |pause| pause.checked_sub(1)).is_ok();
        if !paused {
            let collapsed = self.mapping.allow_huge(start, HUGE_PAGE) && self.collapse(start);
            self.mapping.keep_small(start, HUGE_PAGE);
            if collapsed {
                return Ok(());
            }
            // The host has none free, which takes it long to find out, or does not know how.
            self.pause.store(PAUSE, Relaxed);
        }
        self.populate(start, HUGE_PAGE)
    }

    fn collapse(&self, start: usize) -> bool {
        // SAFETY: collapsing leaves the contents of memory as they are.
        let collapse = || unsafe { libc::madvise(self.mapping.at(start), HUGE_PAGE, libc::MADV_COLLAPSE) };
        self.populate(start, HOST_PAGE).is_ok() && collapse() == 0
    }

    /// Gives a range back to the host; it reads as zeroes afterwards.
    pub(super) fn punch(&self, start: usize, bytes: usize) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, start as u64, bytes as u64)?)
    }

    /// Offset of the first byte at or after `start` that was written.
    pub(super) fn next_data(&self, start: usize) -> Option<usize> {
        usize::try_from(seek(&self.file, SeekFrom::Data(start as u64)).ok()?).ok()
    }

    /// Whether the last page of a range was written.
    pub(super) fn ends_in_data(&self, start: usize, bytes: usize) -> bool {
        let last = start + bytes - HOST_PAGE;
        self.next_data(last) == Some(last)
    }

    /// Bytes from `start` up to the first page that was never written, at most `bytes`; what was
    /// written is one piece. (Asking for the next hole would go through all that follows.)
    pub(super) fn resident_prefix(&self, start: usize, bytes: usize) -> usize {
        let (mut low, mut high) = (0, bytes / HOST_PAGE);
        // Mostly all of it.
        if self.ends_in_data(start, bytes) {
            low = high;
        }
        while low < high {
            let middle = low.midpoint(high);
            let at = start + middle * HOST_PAGE;
            if self.next_data(at) == Some(at) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low * HOST_PAGE
    }
}

/// Private zeroed memory.
pub(super) struct Private {
    mapping: Mapping,
    /// It may be on a huge page.
    huge: bool,
}

impl Private {
    pub(super) fn new(bytes: usize) -> Result<Self, NoMemory> {
        let mapping = Mapping::reserve(bytes).map_err(|_| NoMemory)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: this replaces address space that was reserved for it and that nobody else knows.
        unsafe { mmap_anonymous(mapping.base.as_ptr(), bytes, prot, flags) }.map_err(|_| NoMemory)?;
        // Keys of guests are in the index, so core dumps leave it out too. That is best effort.
        // SAFETY: the advice covers the mapping just made and does not change the memory.
        let _ = unsafe { madvise(mapping.base.as_ptr(), bytes, Advice::LinuxDontDump) };
        mapping.keep_small(0, bytes);
        Ok(Self { mapping, huge: false })
    }

    /// Memory that is resident as a whole, on huge pages if the host has any.
    pub(super) fn new_huge(bytes: usize) -> Result<Self, NoMemory> {
        let new = Self { huge: true, ..Self::new(bytes)? };
        new.mapping.allow_huge(0, bytes);
        // The kernel takes milliseconds to clear a huge page, and everybody who maps memory would
        // wait for `populate` to end. A touch locks nothing but this mapping (from Linux 6.4 on).
        // SAFETY: the mapping was just made, is writable, and nobody else knows it.
        unsafe { new.base().cast::<u8>().write_volatile(0) };
        new.populate(0, bytes)?;
        new.mapping.keep_small(0, bytes);
        Ok(new)
    }

    pub(super) fn base(&self) -> NonNull<c_void> {
        self.mapping.base
    }

    pub(super) fn populate(&self, start: usize, bytes: usize) -> Result<(), NoMemory> {
        populate(&self.mapping, start, bytes)
    }

    pub(super) fn discard(&mut self, start: usize, bytes: usize) {
        if self.huge {
            // A part of a huge page would stay with it, but to mark it as free the kernel splits
            // the page.
            // SAFETY: `&mut self` means that no reference into the private mapping exists; the
            // range reads as zeroes afterwards or as before, and both are valid for the plain
            // integers it is used for.
            let _ = unsafe { madvise(self.mapping.at(start), bytes, Advice::LinuxFree) };
        }
        // SAFETY: as above; it reads as zeroes afterwards.
        let _ = unsafe { madvise(self.mapping.at(start), bytes, Advice::LinuxDontNeed) };
    }
}

fn populate(mapping: &Mapping, start: usize, bytes: usize) -> Result<(), NoMemory> {
    // SAFETY: populating leaves the contents of memory as they are.
    let populate = || unsafe { madvise(mapping.at(start), bytes, Advice::LinuxPopulateWrite) };
    // Of the calls here the one that a signal interrupts.
    match retry_on_intr(populate) {
        // Kernels before 5.14 do not know the advice; the first touch then allocates.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(_) => Err(NoMemory),
    }
}
