// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the guest driver says about itself in debugfs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::guest::Guest;

/// The driver's `stats` file.
#[derive(Debug, Clone)]
pub struct DriverStats {
    /// `unattached`, `attached`, `draining` or `lost`.
    pub state: String,
    counters: BTreeMap<String, u64>,
}

/// One line of the driver's `pools` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverPool {
    /// Its number, for the kernel and for the device.
    pub id: u32,
    /// `ephemeral` or `persistent`.
    pub kind: String,
    /// `private` or `shared`.
    pub sharing: String,
    /// It exists on the attached device.
    pub active: bool,
    /// All zeros unless shared.
    pub uuid: String,
    /// The swap area's number, -1 if it is none.
    pub swap_type: i32,
    counters: BTreeMap<String, u64>,
}

impl DriverStats {
    /// A counter by its name in the file; see `guest-driver/README.md`.
    pub fn count(&self, name: &str) -> Result<u64> {
        self.counters.get(name).copied().with_context(|| format!("The driver has no counter '{name}'"))
    }
}

impl DriverPool {
    /// A counter by its column in the file.
    pub fn count(&self, name: &str) -> Result<u64> {
        self.counters.get(name).copied().with_context(|| format!("The driver's pools have no counter '{name}'"))
    }
}

impl Guest {
    /// What the loaded driver counts.
    pub fn driver_stats(&self) -> Result<DriverStats> {
        parse_stats(&self.sh("cat /sys/kernel/debug/zcache/stats")?)
    }

    /// The driver's pools, by number.
    pub fn driver_pools(&self) -> Result<Vec<DriverPool>> {
        parse_pools(&self.sh("cat /sys/kernel/debug/zcache/pools")?)
    }

    /// Waits until the driver is in this state.
    pub fn await_driver_state(&self, state: &str, limit: Duration) -> Result<()> {
        let script = format!("until grep -qx 'state {state}' /sys/kernel/debug/zcache/stats; do sleep 0.02; done");
        self.sh_within(&script, limit).with_context(|| format!("The driver does not become '{state}'"))?;
        Ok(())
    }

    pub(crate) fn has_driver(&self) -> Result<bool> {
        let answer = self.sh("[ -d /sys/module/zcache_virtio ] && echo yes || echo no")?;
        Ok(answer.trim() == "yes")
    }
}

fn parse_stats(text: &str) -> Result<DriverStats> {
    let mut state = None;
    let mut counters = BTreeMap::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        if key == "state" {
            state = Some(value.to_owned());
        } else if let Ok(value) = value.parse() {
            counters.insert(key.to_owned(), value);
        }
    }
    Ok(DriverStats { state: state.context("The driver's statistics name no state")?, counters })
}

fn parse_pools(text: &str) -> Result<Vec<DriverPool>> {
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().context("The driver's pool list is empty")?.split(' ').collect();
    lines
        .map(|line| {
            let mut row: BTreeMap<&str, &str> = columns.iter().copied().zip(line.split(' ')).collect();
            let mut take =
                |name: &str| row.remove(name).with_context(|| format!("The driver's pool list has no column '{name}'"));
            Ok(DriverPool {
                id: take("id")?.parse()?,
                kind: take("kind")?.to_owned(),
                sharing: take("sharing")?.to_owned(),
                active: take("active")? == "1",
                uuid: take("uuid")?.to_owned(),
                swap_type: take("swap_type")?.parse()?,
                counters: row
                    .into_iter()
                    .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
                    .collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistics_are_parsed() {
        let stats = parse_stats("state attached\nputs 12\nswap_loss wait\n").expect("statistics");
        assert_eq!(stats.state, "attached");
        assert_eq!(stats.count("puts").expect("a counter"), 12);
        assert!(stats.count("nonsense").is_err(), "a counter that is not there");
    }

    #[test]
    fn the_pool_list_is_parsed() {
        let pools = parse_pools(
            "id kind sharing active uuid swap_type poison puts\n\
             1 ephemeral private 1 00000000-0000-0000-0000-000000000000 -1 0 7\n\
             4 persistent private 0 00000000-0000-0000-0000-000000000000 0 0 0\n",
        )
        .expect("pools");
        assert_eq!(pools.len(), 2);
        assert!(pools[0].active && !pools[1].active);
        assert_eq!(pools[0].count("puts").expect("a counter"), 7);
        assert_eq!(pools[1].swap_type, 0);
    }
}
