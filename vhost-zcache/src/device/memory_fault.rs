// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Survives guest memory that goes away while it is mapped.
//!
//! The files of guest memory belong to the VMMs. One that is truncated, a hugetlb file without
//! pages behind it, or memory that fails, raises SIGBUS at the next access, which would end the
//! service of all guests. [`install`] handles the signal instead: the whole region that the
//! address is in is replaced by zeros that belong to nobody, and marked as lost. Whoever copies
//! from or to guest memory looks at the mark afterwards ([`any_lost`] is the quick look), and
//! stops to serve that guest.
//!
//! The handler runs at any instruction of a thread that copies, so all it does is async-signal
//! safe: it reads atomics and makes one system call.

use std::ffi::c_void;
use std::io;
use std::iter::successors;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{SIG_DFL, SIGBUS, c_int, siginfo_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use vmm_sys_util::signal::register_signal_handler;

/// Slots that are allocated at once.
const BLOCK_SLOTS: usize = 64;

/// The first slots. Blocks are appended and never freed, so that the handler can walk them while
/// others are added: there are as many as once were needed at the same time.
static FIRST: Block = Block::free();

/// Held while a slot is taken or given back. The handler does without.
static CHANGES: Mutex<()> = Mutex::new(());

/// Registered mappings that are lost.
static LOST: AtomicUsize = AtomicUsize::new(0);

struct Block {
    slots: [Slot; BLOCK_SLOTS],
    next: OnceLock<Box<Block>>,
}

impl Block {
    const fn free() -> Self {
        Self { slots: [const { Slot::free() }; BLOCK_SLOTS], next: OnceLock::new() }
    }
}

/// A place for one mapping. `version` is odd while the others change.
struct Slot {
    version: AtomicUsize,
    start: AtomicUsize,
    /// 0 in a slot that is free.
    length: AtomicUsize,
    lost: AtomicBool,
}

impl Slot {
    const fn free() -> Self {
        Self {
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }

    /// Changes where the mapping is. Only with [`CHANGES`] held.
    fn set(&self, start: usize, length: usize) {
        self.version.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.length.store(length, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Start and length, if the address is in this slot's mapping. Never half of a change: a
    /// slot that is being changed is of another mapping than the one that faulted, whose user
    /// keeps it registered.
    fn find(&self, address: usize) -> Option<(usize, usize)> {
        let version = self.version.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let length = self.length.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let steady = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        let inside = address.checked_sub(start).is_some_and(|offset| offset < length);
        (steady && inside).then_some((start, length))
    }
}

/// All blocks there are.
fn blocks() -> impl Iterator<Item = &'static Block> {
    successors(Some(&FIRST), |block| block.next.get().map(Box::as_ref))
}

/// A slot that is free. Only with [`CHANGES`] held.
fn free_slot() -> &'static Slot {
    let mut block = &FIRST;
    loop {
        if let Some(slot) = block.slots.iter().find(|slot| slot.length.load(Ordering::Relaxed) == 0) {
            return slot;
        }
        block = block.next.get_or_init(|| Box::new(Block::free()));
    }
}

/// A mapping in which faults are survived, for as long as this exists.
pub struct Registration(&'static Slot);

impl Registration {
    /// Registers a mapping. When it faults, all `length` bytes from `start` are replaced.
    ///
    /// # Safety
    ///
    /// The range is a mapping of the caller's that nothing but volatile accesses refer to, and
    /// stays one until the registration is dropped.
    #[must_use]
    pub unsafe fn new(start: *mut c_void, length: usize) -> Self {
        let _changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = free_slot();
        slot.lost.store(false, Ordering::Relaxed);
        slot.set(start.expose_provenance(), length);
        Self(slot)
    }

    /// Whether the mapping faulted and is of zeros now.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.set(0, 0);
        if self.is_lost() {
            LOST.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether any mapping of the process is lost. To be called after copying: a copy that saw the
/// zeros of a lost mapping sees this, too.
#[must_use]
pub fn any_lost() -> bool {
    fence(Ordering::Acquire);
    LOST.load(Ordering::Acquire) > 0
}

/// Survives faults in registered mappings from now on. Faults elsewhere end the process as
/// before.
///
/// # Errors
///
/// When the system refuses the signal's handler.
pub fn install() -> io::Result<()> {
    register_signal_handler(SIGBUS, on_sigbus).map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

extern "C" fn on_sigbus(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler of this kind.
    let info = unsafe { &*info };
    // A signal that somebody sent has no address.
    if info.si_code > 0 {
        // SAFETY: a SIGBUS of the kernel's has an address.
        let address = unsafe { info.si_addr() };
        if replace(address.addr()) {
            return;
        }
    }
    // SAFETY: resetting a handler and raising a signal are allowed in a handler. The signal
    // arrives when this one has returned, and ends the process.
    unsafe { libc::signal(SIGBUS, SIG_DFL) };
    // SAFETY: as above.
    unsafe { libc::raise(SIGBUS) };
}

/// Replaces the registered mapping that an address is in; whether there was one.
fn replace(address: usize) -> bool {
    for slot in blocks().flat_map(|block| &block.slots) {
        let Some((start, length)) = slot.find(address) else {
            continue;
        };
        // Marked before it is replaced, so that whoever reads zeros finds the mark.
        if !slot.lost.swap(true, Ordering::AcqRel) {
            LOST.fetch_add(1, Ordering::AcqRel);
        }
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let start = ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is a mapping whose owner registered it to be replaced, and which
        // is not unmapped before the thread that faulted in it goes on.
        return unsafe { mmap_anonymous(start, length, access, flags) }.is_ok();
    }
    false
}
