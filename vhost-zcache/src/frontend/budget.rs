// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the process has of what the system limits, and how much of it each guest gets.
//!
//! File descriptors, mappings and address space belong to the process, so a guest that took what
//! it could would take it from the others. Each guest's share is known before it is admitted, and
//! a guest whose share is not there is not admitted.

use std::cell::Cell;
use std::fs;
use std::io;
use std::rc::Rc;

use log::warn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most files that may come with one message of the vhost-user protocol.
pub const MAX_MESSAGE_FILES: usize = 32;

/// Descriptors that a queue may use: kick and call, their successors while they are exchanged,
/// and what its thread needs to wait for them and to be woken.
const QUEUE_DESCRIPTORS: u64 = 6;

/// Files of memory that each guest may share. Where there are descriptors left it may share more.
const MEMORY_FILES: u64 = 32;

/// Descriptors while what was saved of a guest is taken back: the process that reads it, what the
/// keeper hears it by, and both ends of a pipe.
const SAVER_DESCRIPTORS: u64 = 4;

/// Descriptors of a connection besides those of its queues: the socket, a message's files until it
/// is answered, the files of its memory and of the log of that, which the keeper holds for the
/// next worker, and those of its saver.
const CONNECTION_DESCRIPTORS: u64 = 1 + MAX_MESSAGE_FILES as u64 + MEMORY_FILES + 1 + SAVER_DESCRIPTORS;

/// Readers of the statistics that may be slow at the same time.
pub const MAX_STATS_READERS: usize = 8;

/// Those who may be about to say something at the control socket at the same time.
pub const MAX_ASKERS: usize = 8;

/// Descriptors for what is opened for a moment, besides a connection that is turned away at each
/// socket: readers of the statistics, old and new ones, who ask at the control socket, and files of
/// /proc.
const SPARE_DESCRIPTORS: u64 = 2 * MAX_STATS_READERS as u64 + MAX_ASKERS as u64 + 8;

/// Descriptors for a guest's socket: itself, its lock, and one that is turned away.
const SOCKET_DESCRIPTORS: u64 = 3;

/// Most regions a VMM may share. The limit KVM had for long, which VMMs count on.
const MAX_REGIONS: u64 = 509;

/// Regions that any VMM needs: QEMU's PC has 2 to 4, and some for memory that is plugged.
const MIN_REGIONS: u64 = 8;

/// Mappings a process may have where the system does not say: the kernel's default.
const DEFAULT_MAX_MAPPINGS: u64 = 65530;

/// Address space for guests' memory: half of what a process has on the machines with the least,
/// x86-64 with four levels of page tables (128 TiB).
const ADDRESS_SPACE: u64 = 64 << 40;

/// What one guest may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Regions.
    pub regions: u64,
    /// Bytes of all regions together.
    pub bytes: u64,
}

impl MemoryBudget {
    /// A fair share for each of so many guests, in a process that has descriptors for so many
    /// regions of each.
    #[must_use]
    pub fn share(guests: usize, descriptors: u64) -> Self {
        let mappings = fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(DEFAULT_MAX_MAPPINGS);
        Self::share_of(mappings, guests, descriptors)
    }

    fn share_of(max_mappings: u64, guests: usize, descriptors: u64) -> Self {
        let guests = (guests as u64).max(1);
        // The other half is for the store, threads and libraries.
        let regions = (max_mappings / 2 / guests).min(descriptors).clamp(MIN_REGIONS, MAX_REGIONS);
        Self { regions, bytes: ADDRESS_SPACE / guests }
    }
}

/// File descriptors for connections.
#[derive(Debug)]
pub struct DescriptorBudget {
    /// Descriptors that are not for anything else.
    free: Cell<u64>,
    /// Descriptors of a connection.
    each: u64,
    /// Descriptors of a guest for files of memory.
    memory_files: u64,
    taken: Rc<Cell<u64>>,
}

impl DescriptorBudget {
    /// Plans with the descriptors that are not open yet, and warns when they do not suffice for
    /// all guests at once. There may be more later, up to `room`. To be called when all that stays
    /// open is open, and so many files of connections.
    ///
    /// # Errors
    ///
    /// When the process cannot see its descriptors.
    pub fn plan(guests: usize, room: usize, queues: u16, connected: usize) -> io::Result<Self> {
        let open = (fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(connected as u64);
        let guests = guests as u64;
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let each = CONNECTION_DESCRIPTORS + QUEUE_DESCRIPTORS * u64::from(queues);
        let fixed = open + guests + SPARE_DESCRIPTORS;
        let places = limit.saturating_sub(fixed) / each;
        let needed = fixed + guests * each;
        if places < guests {
            warn!(
                "Only {places} of {guests} guests can be served at the same time: the limit of open files \
                 (RLIMIT_NOFILE, systemd's LimitNOFILE) is {limit} and should be {needed}"
            );
        }
        let spare = limit.saturating_sub(needed) / (room as u64).max(1);
        let free = Cell::new(limit.saturating_sub(fixed));
        Ok(Self { free, each, memory_files: MEMORY_FILES.saturating_add(spare), taken: Rc::default() })
    }

    /// There is a socket more, with its lock, and one that is turned away there.
    pub fn add_guest(&self) {
        self.free.set(self.free.get().saturating_sub(SOCKET_DESCRIPTORS));
    }

    /// There is one less.
    pub fn remove_guest(&self) {
        self.free.set(self.free.get() + SOCKET_DESCRIPTORS);
    }

    /// Files of memory that each guest may share.
    #[must_use]
    pub fn memory_files(&self) -> u64 {
        self.memory_files
    }

    /// Takes the descriptors of one connection, for as long as the admission exists. `None` when
    /// there are not enough.
    #[must_use]
    pub fn admit(&self) -> Option<Admission> {
        let taken = self.taken.get();
        (taken < self.free.get() / self.each).then(|| {
            self.taken.set(taken + 1);
            Admission(Rc::clone(&self.taken))
        })
    }
}

/// A connection's descriptors. Given back when dropped, which must be after they were closed.
#[derive(Debug)]
pub struct Admission(Rc<Cell<u64>>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Lets the process open as many files as it may. The soft limit is low for the sake of programs
/// that use select(2), which this one does not.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!("The limit of open files cannot be raised: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_guests_have_all_regions_and_many_have_some() {
        let budget = |guests| MemoryBudget::share_of(DEFAULT_MAX_MAPPINGS, guests, 1000);
        assert_eq!(budget(1), MemoryBudget { regions: 509, bytes: 64 << 40 });
        assert_eq!(budget(64), MemoryBudget { regions: 509, bytes: 1 << 40 });
        assert_eq!(budget(1024), MemoryBudget { regions: 31, bytes: 64 << 30 });
        assert_eq!(budget(100_000).regions, 8);
        assert_eq!(MemoryBudget::share_of(DEFAULT_MAX_MAPPINGS, 1, 40).regions, 40, "as many as there are files");
    }

    #[test]
    fn places_are_taken_and_given_back() {
        let budget = DescriptorBudget { free: Cell::new(200), each: 100, memory_files: 0, taken: Rc::default() };
        let first = budget.admit();
        let second = budget.admit();
        assert!(first.is_some() && second.is_some());
        assert!(budget.admit().is_none(), "a place too many");
        drop(first);
        assert!(budget.admit().is_some(), "a place is not given back");
        drop(second);
        budget.add_guest();
        let _first = budget.admit().expect("a place");
        assert!(budget.admit().is_none(), "a socket more takes descriptors");
        budget.remove_guest();
        assert!(budget.admit().is_some(), "they are not given back");
    }
}
