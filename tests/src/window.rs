// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How far the host may be ahead of a guest that reads slowly.
//!
//! A serial line of user-mode Linux whose buffer fills up goes deaf for good, so what has been
//! sent and not been read is bounded: the agent says what it has read.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Most bytes on their way to the guest; `images/guest/README.md` says why.
const SIZE: usize = 2048;

/// The bytes on their way to the guest, and who waits to send more.
#[derive(Debug)]
pub(crate) struct Window {
    /// `None` once the connection has ended.
    on_their_way: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { on_their_way: Mutex::new(Some(0)), changed: Condvar::new() }
    }

    /// Waits until some bytes may be sent, and says how many of those `wanted` may.
    pub(crate) fn take(&self, wanted: usize, limit: Duration) -> Result<usize> {
        let full = |on_their_way: &mut Option<usize>| *on_their_way == Some(SIZE);
        let (mut state, waited) =
            self.changed.wait_timeout_while(self.lock(), limit, full).unwrap_or_else(PoisonError::into_inner);
        ensure!(!waited.timed_out(), "The guest's agent has read nothing for {limit:?}");
        let on_their_way = state.as_mut().context("The connection to the guest's agent was lost")?;
        let taken = wanted.min(SIZE - *on_their_way);
        *on_their_way += taken;
        Ok(taken)
    }

    /// The guest has read so many bytes.
    pub(crate) fn arrived(&self, bytes: usize) {
        self.update(|on_their_way| Some(on_their_way.saturating_sub(bytes)));
    }

    /// The guest has begun anew: nothing is on its way to it.
    pub(crate) fn restart(&self) {
        self.update(|_| Some(0));
    }

    /// The connection has ended; whoever waits is told.
    pub(crate) fn close(&self) {
        self.update(|_| None);
    }

    fn update(&self, change: impl FnOnce(usize) -> Option<usize>) {
        let mut state = self.lock();
        *state = state.and_then(change);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Option<usize>> {
        self.on_their_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    #[test]
    fn no_more_is_sent_than_the_guest_can_take() {
        let window = Window::new();
        assert_eq!(window.take(2000, SOON).expect("an empty window"), 2000);
        assert_eq!(window.take(2000, SOON).expect("the rest of it"), 48);
        window.take(1, SOON).expect_err("nothing was read");
        window.arrived(1024);
        assert_eq!(window.take(2000, SOON).expect("what was read"), 1024);
        window.restart();
        assert_eq!(window.take(5000, SOON).expect("a guest that began anew"), SIZE);
    }

    #[test]
    fn a_lost_connection_ends_the_wait() {
        let window = Window::new();
        window.take(SIZE, SOON).expect("an empty window");
        window.close();
        let error = window.take(1, Duration::from_secs(30)).expect_err("the connection is gone");
        assert!(error.to_string().contains("lost"), "{error}");
        window.restart();
        window.take(1, SOON).expect_err("it does not come back");
    }
}
