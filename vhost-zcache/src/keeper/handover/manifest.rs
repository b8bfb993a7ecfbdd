// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The file that says what all other files are for.
//!
//! It has one record for the daemon and one for each guest. Each is text in two copies, of which
//! the last whole one counts ([`Record`]). The keeper may be killed while it does what a VMM has
//! asked for, and then nobody knows whether the VMM was answered: a guest that is *touched* is in
//! the middle of something that the record does not have.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::note::{DaemonNote, GuestNote};
use crate::ledger::record::Record;

/// Says what the file is, and which version of it: "zcacheM" and the version, which is another
/// whenever what is noted is.
pub const LAYOUT: u64 = u64::from_le_bytes(*b"zcacheM\x03");

/// Words of a record. What is known of a guest with all rings, the most regions and the longest
/// message is less than 200 KiB; memory is only used for what is there.
const WORDS: usize = (256 << 10) / 8;

type Text = Record<[u8], WORDS>;

#[repr(C, align(64))]
struct Header {
    layout: AtomicU64,
    guests: AtomicU64,
}

/// A record, and whether something goes on that it does not have.
#[repr(C, align(64))]
struct Slot {
    touched: AtomicU64,
    text: Text,
}

/// The mapped manifest. The mapping stays for as long as the process.
#[derive(Clone)]
pub struct Manifest {
    file: Rc<File>,
    daemon: &'static Slot,
    guests: &'static [Slot],
}

/// Why there is no manifest to go by.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is of another version.
    #[error("it is of version {0}, and this program knows version {1}")]
    Version(u8, u8),
    /// It is none.
    #[error("it is damaged")]
    Damaged,
}

impl Manifest {
    /// An empty manifest for so many guests.
    ///
    /// # Errors
    ///
    /// When the host does not give the memory.
    pub fn create(guests: usize) -> io::Result<Self> {
        let file = File::from(memfd_create("zcache-manifest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        let bytes = bytes(guests).ok_or(io::ErrorKind::OutOfMemory)?;
        ftruncate(&file, bytes as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let manifest = Self::map(file, bytes, guests)?;
        manifest.header().layout.store(LAYOUT, Ordering::Relaxed);
        manifest.header().guests.store(guests as u64, Ordering::Relaxed);
        Ok(manifest)
    }

    /// The manifest that another keeper has left.
    ///
    /// # Errors
    ///
    /// When it is none that can be gone by.
    pub fn open(file: File) -> Result<Self, ManifestError> {
        let damaged = |_| ManifestError::Damaged;
        let size = fstat(&file).ok().and_then(|status| usize::try_from(status.st_size).ok()).unwrap_or(0);
        if Some(size) < bytes(0) {
            return Err(ManifestError::Damaged);
        }
        let manifest = Self::map(file, size, 0).map_err(damaged)?;
        let layout = manifest.header().layout.load(Ordering::Relaxed).to_le_bytes();
        let known = LAYOUT.to_le_bytes();
        match (layout[..7] == known[..7], layout[7]) {
            (false, _) => return Err(ManifestError::Damaged),
            (true, version) if version != known[7] => return Err(ManifestError::Version(version, known[7])),
            _ => {}
        }
        let guests = usize::try_from(manifest.header().guests.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        if bytes(guests) != Some(size) {
            return Err(ManifestError::Damaged);
        }
        let Self { file, .. } = manifest;
        let file = Rc::try_unwrap(file).map_err(|_| ManifestError::Damaged)?;
        Self::map(file, size, guests).map_err(damaged)
    }

    /// Maps a file of so many bytes, which is sealed, and has room for so many guests.
    fn map(file: File, bytes: usize, guests: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without an address the kernel takes a free range, so nothing else is touched.
        let start = unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, file.as_fd(), 0) }?;
        let slots = start.wrapping_byte_add(size_of::<Header>()).cast::<Slot>();
        // SAFETY: the mapping has the slots of the daemon and of so many guests, is aligned to a
        // page, and is never unmapped; all that a slot consists of are atomic integers, of which
        // any bytes are valid ones.
        let daemon = unsafe { &*slots };
        // SAFETY: as above.
        let guests = unsafe { std::slice::from_raw_parts(slots.wrapping_add(1), guests) };
        Ok(Self { file: Rc::new(file), daemon, guests })
    }

    fn header(&self) -> &'static Header {
        let header = ptr::from_ref(self.daemon).wrapping_byte_sub(size_of::<Header>()).cast::<Header>();
        // SAFETY: it lies in front of the slots, see `map`.
        unsafe { &*header }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> Rc<File> {
        Rc::clone(&self.file)
    }

    /// Guests there is room for.
    #[must_use]
    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    /// Something of a guest's begins to change.
    pub fn touch(&self, guest: usize) {
        self.guests[guest].touched.store(1, Ordering::Release);
    }

    /// Notes what is known of the daemon; whether there was room.
    pub fn note_daemon(&self, note: &DaemonNote) -> bool {
        self.daemon.note(note)
    }

    /// Notes what is known of a guest; whether there was room.
    pub fn note_guest(&self, guest: usize, note: &GuestNote) -> bool {
        self.guests[guest].note(note)
    }

    /// What is known of the daemon.
    #[must_use]
    pub fn daemon(&self) -> Option<DaemonNote> {
        self.daemon.get().map(|(note, _)| note)
    }

    /// What is known of a guest, and whether it was in the middle of something.
    #[must_use]
    pub fn guest(&self, guest: usize) -> Option<(GuestNote, bool)> {
        self.guests.get(guest)?.get()
    }
}

impl Slot {
    fn note(&self, note: &impl Serialize) -> bool {
        let text = serde_json::to_vec(note).unwrap_or_default();
        let fits = self.text.write_text(&text);
        if !fits {
            self.text.write_text(b"");
        }
        self.touched.store(0, Ordering::Release);
        fits
    }

    fn get<T: DeserializeOwned>(&self) -> Option<(T, bool)> {
        let text = self.text.read_text()?;
        let note = serde_json::from_slice(&text).ok()?;
        Some((note, self.touched.load(Ordering::Acquire) != 0))
    }
}

fn bytes(guests: usize) -> Option<usize> {
    guests.checked_add(1)?.checked_mul(size_of::<Slot>())?.checked_add(size_of::<Header>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn note(lives: u64) -> GuestNote {
        GuestNote { lives, connection: None }
    }

    #[test]
    fn what_one_keeper_notes_the_next_reads() {
        let first = Manifest::create(2).unwrap();
        assert!(first.guest(0).is_none(), "a guest that was never noted");
        assert!(first.note_guest(1, &note(7)));
        first.touch(0);
        let next = Manifest::open(first.file().try_clone().unwrap()).unwrap();
        assert_eq!(next.guests(), 2);
        assert_eq!(next.guest(1), Some((note(7), false)));
        first.touch(1);
        assert_eq!(next.guest(1), Some((note(7), true)), "it changes");
        assert!(next.note_guest(1, &note(8)));
        assert_eq!(first.guest(1), Some((note(8), false)));
    }

    #[test]
    fn another_version_is_said_to_be_one() {
        let manifest = Manifest::create(1).unwrap();
        manifest.file().write_all_at(&[9], 7).unwrap();
        let error = Manifest::open(manifest.file().try_clone().unwrap()).err();
        assert_eq!(error, Some(ManifestError::Version(9, 3)));
        manifest.file().write_all_at(b"x", 0).unwrap();
        let error = Manifest::open(manifest.file().try_clone().unwrap()).err();
        assert_eq!(error, Some(ManifestError::Damaged));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Manifest::open(file.try_clone().unwrap()).err(), Some(ManifestError::Damaged), "an empty file");
        file.set_len(1 << 20).unwrap();
        assert_eq!(Manifest::open(file).err(), Some(ManifestError::Damaged), "zeros");
    }
}
