// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What one worker writes down for the next, in memory that both and the keeper map.
//!
//! The pages, and which private pools there are, are in the store's arena. What is here is the
//! rest that a guest could notice: its session ([`session`]), the chain that each of its queues has
//! in service ([`service`]), and counters. A worker may be killed between any two instructions, so
//! nothing here is believed that was written by half: what fits a word is a word, and what does not
//! is a [`record`].
//!
//! The memory is a file of a fixed size, which the keeper makes and hands to each worker. The
//! keeper looks in it only for chains that take too long.

mod adopt;
mod atomic;
mod before;
#[cfg(all(test, feature = "loom"))]
mod interleavings;
pub mod record;
pub mod restore;
pub mod service;
pub mod session;
mod word;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use self::record::Record;
use self::restore::RestoreLedger;
use self::service::QueueLedger;
use self::session::SessionState;

/// Says what the file is: "zcacheL" and the version of its layout.
pub const LAYOUT: u64 = u64::from_le_bytes(*b"zcacheL\x04");

/// Entries of the layout are aligned to a cache line, so that queues do not share one.
const LINE: usize = 64;

#[derive(Debug)]
#[repr(C, align(64))]
struct Header {
    magic: u64,
    guests: u64,
    queues: u64,
    /// When the daemon started, on the clock that never jumps.
    started_ns: u64,
}

/// The mapped ledger. The mapping stays for as long as the process, so that counters can be held
/// by anybody.
#[derive(Debug, Clone, Copy)]
pub struct Ledger {
    header: &'static Header,
    sessions: &'static [Record<SessionState>],
    restores: &'static [RestoreLedger],
    queues: &'static [QueueLedger],
}

// The file's bytes are used as these types by whoever maps it.
const _: () = assert!(align_of::<Record<SessionState>>() <= LINE && align_of::<QueueLedger>() <= LINE);
const _: () = assert!(align_of::<RestoreLedger>() <= LINE);

/// Where the parts of a ledger lie.
struct Layout {
    restores_at: usize,
    queues_at: usize,
    bytes: usize,
}

impl Layout {
    /// `queue` are the bytes of a queue.
    fn of(guests: usize, queues: usize, queue: usize) -> Option<Self> {
        let sessions = guests.checked_mul(size_of::<Record<SessionState>>())?;
        let restores_at = size_of::<Header>().checked_add(sessions)?.checked_next_multiple_of(LINE)?;
        let restores = guests.checked_mul(size_of::<RestoreLedger>())?;
        let queues_at = restores_at.checked_add(restores)?.checked_next_multiple_of(LINE)?;
        let queues = guests.checked_mul(queues)?.checked_mul(queue)?;
        Some(Self { restores_at, queues_at, bytes: queues_at.checked_add(queues)? })
    }
}

impl Ledger {
    /// Makes an empty ledger for so many guests with so many queues each; the file, too.
    ///
    /// # Errors
    ///
    /// When the host does not give the memory.
    pub fn create(guests: usize, queues: u16) -> io::Result<(Self, File)> {
        let layout = Layout::of(guests, queues.into(), size_of::<QueueLedger>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let file = File::from(memfd_create("zcache-ledger", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        ftruncate(&file, layout.bytes as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let start = map(&file, layout.bytes)?;
        let header = Header { magic: LAYOUT, guests: guests as u64, queues: queues.into(), started_ns: now_ns() };
        // SAFETY: the mapping is large enough, aligned to a page, and nobody else has it yet.
        unsafe { start.cast::<Header>().write(header) };
        Ok((Self::open(&file)?, file))
    }

    /// Maps the ledger that another process made.
    ///
    /// # Errors
    ///
    /// When it is none of this layout, or cannot be mapped.
    pub fn open(file: &File) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not a ledger of this version");
        let bytes = usize::try_from(fstat(file)?.st_size).map_err(|_| wrong())?;
        if bytes < size_of::<Header>() {
            return Err(wrong());
        }
        let start = map(file, bytes)?;
        // SAFETY: the mapping has at least a header, is aligned to a page, is never unmapped, and
        // the header is not changed after it was made.
        let header: &'static Header = unsafe { &*start.cast::<Header>() };
        let (guests, queues) = (usize::try_from(header.guests), usize::try_from(header.queues));
        let (Ok(guests), Ok(queues)) = (guests, queues) else { return Err(wrong()) };
        let layout = Layout::of(guests, queues, size_of::<QueueLedger>());
        let layout = layout.filter(|layout| layout.bytes == bytes).ok_or_else(wrong)?;
        if header.magic != LAYOUT {
            return Err(wrong());
        }
        let sessions_at = start.wrapping_byte_add(size_of::<Header>());
        let restores_at = start.wrapping_byte_add(layout.restores_at);
        let queues_at = start.wrapping_byte_add(layout.queues_at);
        // SAFETY: the file is sealed, so the mapping is and stays as large as the layout says. All
        // that these types consist of are atomic integers, of which any bytes are valid ones.
        let sessions = unsafe { std::slice::from_raw_parts(sessions_at.cast(), guests) };
        // SAFETY: as above.
        let restores = unsafe { std::slice::from_raw_parts(restores_at.cast(), guests) };
        // SAFETY: as above.
        let queues = unsafe { std::slice::from_raw_parts(queues_at.cast(), guests * queues) };
        Ok(Self { header, sessions, restores, queues })
    }

    /// Nanoseconds since the daemon started, over all its workers.
    #[must_use]
    pub fn uptime_ns(&self) -> u64 {
        now_ns().saturating_sub(self.header.started_ns)
    }

    /// A guest's session.
    #[must_use]
    pub fn session(&self, guest: usize) -> &'static Record<SessionState> {
        &self.sessions[guest]
    }

    /// How it goes with taking a guest over.
    #[must_use]
    pub fn restore(&self, guest: usize) -> &'static RestoreLedger {
        &self.restores[guest]
    }

    /// That of all guests.
    #[must_use]
    pub fn all_restores(&self) -> &'static [RestoreLedger] {
        self.restores
    }

    /// A guest's queues.
    #[must_use]
    pub fn queues(&self, guest: usize) -> &'static [QueueLedger] {
        let queues = self.queues.len() / self.sessions.len().max(1);
        &self.queues[guest * queues..(guest + 1) * queues]
    }

    /// All queues of all guests.
    #[must_use]
    pub fn all_queues(&self) -> &'static [QueueLedger] {
        self.queues
    }
}

fn map(file: &File, bytes: usize) -> io::Result<*mut u8> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: without an address the kernel takes a free range, so nothing else is touched.
    let start = unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, file.as_fd(), 0) }?;
    Ok(start.cast())
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::session::SessionState;

    #[test]
    fn what_one_process_writes_another_reads() {
        let (mine, file) = Ledger::create(3, 2).unwrap();
        let theirs = Ledger::open(&file).unwrap();
        let state = SessionState::new(7, 1);
        mine.session(2).write(&state);
        assert_eq!(theirs.session(2).read().map(|state| state.life), Some(7));
        assert_eq!(theirs.session(1).read(), None, "a record that was never written");
        mine.queues(2)[1].quarantine();
        assert!(theirs.queues(2)[1].is_quarantined());
        assert!(!theirs.queues(2)[0].is_quarantined() && !theirs.queues(1)[1].is_quarantined());
    }

    #[test]
    fn what_is_no_ledger_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(Ledger::open(&file).is_err(), "an empty file");
        ftruncate(&file, 1 << 20).unwrap();
        assert!(Ledger::open(&file).is_err(), "zeros");
    }
}
