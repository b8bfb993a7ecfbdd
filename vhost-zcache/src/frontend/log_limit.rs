// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keeps a guest from filling the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two messages.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one message pass in each interval, and counts the others.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// Whether to log a message now: then the number of messages suppressed since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_in_an_interval() {
        let limit = LogLimit::default();
        let start = Instant::now();
        assert_eq!(limit.pass_at(start), Some(0));
        assert_eq!(limit.pass_at(start), None);
        assert_eq!(limit.pass_at(start + INTERVAL / 2), None);
        assert_eq!(limit.pass_at(start + INTERVAL), Some(2));
        assert_eq!(limit.pass_at(start + INTERVAL), None);
    }
}
