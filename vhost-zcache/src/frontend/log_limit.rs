// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keeps a guest from filling the log.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, log};

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
    /// Logs a line, if it is time, with the number of those that were not logged since the last.
    pub fn log(&self, level: Level, text: fmt::Arguments<'_>) {
        match self.pass_at(Instant::now()) {
            None => {}
            Some(0) => log!(target: TARGET, level, "{text}"),
            Some(suppressed) => log!(target: TARGET, level, "{text} ({suppressed} such messages not shown)"),
        }
    }

    /// Whether to log a message now: then the number of messages suppressed since the last one.
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

/// Under what the lines are logged, whichever module they come from.
const TARGET: &str = "vhost_zcache::frontend";

/// What a socket has to tell. Each kind has a limit of its own, so that none hides another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A VMM connected.
    Connected,
    /// A connection ended.
    Ended,
    /// A VMM was turned away.
    Refused,
    /// A connection could not be accepted.
    AcceptFailed,
    /// A message was answered with an error, or ignored.
    Message,
    /// A ring is not where it could be served.
    Placement,
    /// A file that is no event was passed for one.
    Event,
}

impl Occasion {
    const COUNT: usize = 7;

    fn level(self) -> Level {
        match self {
            Self::Connected | Self::Ended => Level::Info,
            Self::Refused | Self::AcceptFailed | Self::Message | Self::Placement | Self::Event => Level::Warn,
        }
    }
}

/// The limits of one socket's messages.
#[derive(Debug, Default)]
pub struct SocketLog([LogLimit; Occasion::COUNT]);

impl SocketLog {
    /// Logs a line about the socket of a name, if it is time.
    pub fn say(&self, name: &str, occasion: Occasion, text: fmt::Arguments<'_>) {
        self.0[occasion as usize].log(occasion.level(), format_args!("{name}: {text}"));
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
