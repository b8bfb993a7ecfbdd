// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a run has shown.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// The figures of a run. `docs/testing.md` says what each means.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Decides what has happened when.
    pub seed: u64,
    /// How long it went on.
    pub minutes: f64,
    /// The guests that behaved.
    pub guests: Vec<String>,
    /// Pages compared with what they had to be.
    pub verified: u64,
    /// Of these, pages that were something else.
    pub wrong: u64,
    /// Swapped pages that a driver has given up, and pages that the store has found damaged.
    pub lost: u64,
    /// Workers that have died.
    pub kills: u64,
    /// Of these, those that have died at a named place.
    pub kills_at_places: BTreeMap<String, u64>,
    /// Workers that have made room for another.
    pub upgrades: u64,
    /// Devices that were unplugged and plugged in again.
    pub devices_away: u64,
    /// Machines that were stopped and continued.
    pub machines_stopped: u64,
    /// Limits that became others.
    pub limits_changed: u64,
    /// Connections of the guest that misbehaves.
    pub misbehaviour: u64,
    /// Its rings and chains that the daemon has found to make no sense.
    pub refused: u64,
    /// Seconds of which the longest operation is known.
    pub stall_samples: usize,
    /// In 99 of 100 seconds of a guest no operation of its probe took longer.
    pub stall_p99_ms: f64,
    /// The longest operation of all.
    pub stall_max_ms: f64,
    /// What was wrong, in words; empty if all was well.
    pub faults: Vec<String>,
}

impl Report {
    /// Whether nothing was wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && self.wrong == 0 && self.lost == 0
    }

    /// One line that says what was wrong; the first fault is in it, as far as it is short.
    #[must_use]
    pub fn verdict(&self) -> String {
        let first: String = self.faults.first().map_or("", String::as_str).chars().take(160).collect();
        let (wrong, lost, faults, seed) = (self.wrong, self.lost, self.faults.len(), self.seed);
        format!("{wrong} pages wrong, {lost} lost, {faults} faults with seed {seed}: {first}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.1} minutes, seed {}, guests {}: {} pages verified, {} wrong, {} lost",
            self.minutes,
            self.seed,
            self.guests.join(" "),
            self.verified,
            self.wrong,
            self.lost
        )?;
        writeln!(
            f,
            "{} workers have died, {} of them at {} named places; {} were upgraded",
            self.kills,
            self.kills_at_places.values().sum::<u64>(),
            self.kills_at_places.len(),
            self.upgrades
        )?;
        writeln!(
            f,
            "devices were away {} times, machines stopped {} times, limits changed {} times; one guest misbehaved {} times",
            self.devices_away, self.machines_stopped, self.limits_changed, self.misbehaviour
        )?;
        writeln!(
            f,
            "longest operation of a second: 99 % within {:.1} ms, all within {:.1} ms",
            self.stall_p99_ms, self.stall_max_ms
        )
    }
}

/// The longest of these, and what 99 of 100 do not exceed, in milliseconds.
pub(super) fn stalls(mut microseconds: Vec<u64>) -> (f64, f64) {
    microseconds.sort_unstable();
    let of = |index: usize| microseconds.get(index).map_or(0.0, |us| Duration::from_micros(*us).as_secs_f64() * 1e3);
    let last = microseconds.len().saturating_sub(1);
    (of((microseconds.len() * 99).div_ceil(100).saturating_sub(1)), of(last))
}

#[cfg(test)]
mod tests {
    use super::stalls;

    #[test]
    fn stalls_are_ranked() {
        assert_eq!(stalls((1..=200).rev().map(|n| n * 1000).collect()), (198.0, 200.0));
        assert_eq!(stalls(vec![7000]), (7.0, 7.0));
        assert_eq!(stalls(Vec::new()), (0.0, 0.0));
    }
}
