// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Limits change while everything else happens, as by an operator at the control socket.

use anyhow::{Context, Result};
use serde_json::Value;

use super::clock::Clock;
use super::schedule::{LimitChange, Timed};
use crate::daemon::Daemon;

/// Has limits be others as they are planned to be; how often. The answer comes when a limit holds,
/// also where workers die meanwhile.
pub(super) fn change(clock: &Clock, daemon: &Daemon, changes: &[Timed<LimitChange>]) -> Result<u64> {
    let mut changed = 0;
    for Timed { at, what } in changes {
        if !clock.wait_until(*at) {
            break;
        }
        let answer = daemon.alter(&keys(daemon, what)).with_context(|| format!("{what:?} was not done"))?;
        clock.note(&format!("{what:?}: {answer}"));
        changed += 1;
    }
    Ok(changed)
}

/// What is to be another in the configuration.
fn keys(daemon: &Daemon, change: &LimitChange) -> String {
    match change {
        LimitChange::Store { mib } => format!("memory-limit = '{mib}M'\n"),
        LimitChange::Guest { number, mib, weight } => {
            // A string of JSON is one of TOML.
            let name = Value::from(daemon.socket(*number).display().to_string());
            format!("[guest.{name}]\nmemory-limit = '{mib}M'\nweight = {weight}\n")
        }
    }
}
