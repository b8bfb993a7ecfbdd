// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that nothing is in any more, on its way back to the host. Giving it back takes the kernel
//! some ten microseconds for a segment, so it is not done within the request that freed it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::shard::retire::Detached;

/// What was taken away from shards, each with the number of the guest that caused it.
#[derive(Default)]
pub(crate) struct Garbage(Mutex<VecDeque<(u32, Detached)>>);

impl Garbage {
    fn queue(&self) -> MutexGuard<'_, VecDeque<(u32, Detached)>> {
        // Whole whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was taken away from a guest.
    pub(super) fn add(&self, guest: u32, detached: impl IntoIterator<Item = Detached>) {
        self.queue().extend(detached.into_iter().map(|detached| (guest, detached)));
    }

    /// Gives back about `most` segments, of one guest if one is named; returns how many bytes that
    /// were, if there was anything to give back.
    pub(crate) fn release(&self, guest: Option<u32>, most: usize) -> Option<u64> {
        let taken = {
            let mut queue = self.queue();
            let at = queue.iter().position(|(owner, _)| guest.is_none_or(|guest| guest == *owner));
            at.and_then(|at| queue.remove(at))
        };
        let (owner, mut detached) = taken?;
        let (bytes, is_all) = detached.release(most);
        if !is_all {
            self.queue().push_back((owner, detached));
        }
        Some(bytes)
    }

    /// Whether nothing waits to be given back.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue().is_empty()
    }

    /// Bytes that are still charged.
    pub(super) fn bytes(&self) -> u64 {
        self.queue().iter().map(|(_, detached)| detached.bytes()).sum()
    }
}
