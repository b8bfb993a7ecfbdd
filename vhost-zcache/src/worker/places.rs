// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guests there are, by their numbers. They come and go while others are served.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::guest::GuestPlace;

type Map = BTreeMap<usize, Arc<GuestPlace>>;

/// The guests; clones are handles of the same ones.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<Map>>);

impl Places {
    /// These guests.
    #[must_use]
    pub fn new(guests: Map) -> Self {
        Self(Arc::new(Mutex::new(guests)))
    }

    /// A guest.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<Arc<GuestPlace>> {
        self.map().get(&number).cloned()
    }

    /// All of them, in the order of their numbers.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<GuestPlace>> {
        self.map().values().cloned().collect()
    }

    /// Adds one.
    pub fn insert(&self, number: usize, guest: Arc<GuestPlace>) {
        self.map().insert(number, guest);
    }

    /// Lets all others go.
    pub fn retain(&self, stays: impl Fn(usize) -> bool) {
        self.map().retain(|number, _| stays(*number));
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        // The map is whole whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
