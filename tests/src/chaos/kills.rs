// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ends of workers: by SIGKILL, at named places, and by upgrades.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::clock::Clock;
use super::schedule::{Timed, Way, WorkerEnd};
use crate::daemon::{Daemon, WITHOUT_RULE};

/// How long a worker may take to come to its place, once its passes count.
const PLACE_LIMIT: Duration = Duration::from_secs(2);
/// Longest that an upgrade may take, or that there may be no worker.
const NEXT_LIMIT: Duration = Duration::from_secs(30);

/// How workers have ended.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Deaths of any kind.
    pub(super) kills: u64,
    /// Of these, deaths at a place, by its name.
    pub(super) at_places: BTreeMap<String, u64>,
    /// Workers that have made room for another.
    pub(super) upgrades: u64,
}

/// Ends one worker after another as they are planned to. Each number is of one worker, so whatever
/// happens between two looks, nobody meets another's end.
pub(super) fn end_workers(clock: &Clock, daemon: &Daemon, workers: &[Timed<WorkerEnd>]) -> Result<()> {
    for (worker, end) in (1..).zip(workers) {
        if !clock.wait_until(end.at) {
            return Ok(());
        }
        let ended = match &end.what {
            WorkerEnd::Killed => has_ended(daemon, worker),
            WorkerEnd::AtPlace(_) => await_end(daemon, worker, PLACE_LIMIT),
            WorkerEnd::Upgraded => {
                if !has_ended(daemon, worker) {
                    daemon.upgrade()?;
                }
                await_end(daemon, worker, NEXT_LIMIT)
            }
        };
        clock.note(&format!("worker {worker}: {:?}{}", end.what, if ended { "" } else { ", SIGKILL" }));
        if !ended {
            daemon.kill_worker()?;
        }
        if !await_end(daemon, worker, NEXT_LIMIT) {
            bail!("There is no worker after number {worker}");
        }
    }
    Ok(())
}

/// Reads from the daemon's log how workers have ended; an error if one has in a way that nobody has
/// planned.
pub(super) fn ends(log: &str, workers: &[Timed<WorkerEnd>]) -> Result<Ends> {
    let mut ends = Ends::default();
    for line in log.lines() {
        if let Some(why) = UNPLANNED.iter().find(|why| line.contains(*why)) {
            bail!("The daemon says '{why}': {line}");
        }
        if line.contains("has made room") {
            ends.upgrades += 1;
        }
        if let Some((_, rest)) = line.split_once("This worker ends at ") {
            let place = rest.split(',').next().unwrap_or_default();
            *ends.at_places.entry(place.to_owned()).or_default() += 1;
        }
        if let Some((worker, how)) = death(line) {
            ends.kills += 1;
            let planned = match worker.checked_sub(1).and_then(|index| workers.get(index)).map(|end| &end.what) {
                Some(WorkerEnd::AtPlace(fate)) => fate.way != Way::Kill,
                _ => false,
            };
            if !planned && how != "was killed by signal 9" {
                bail!("A worker has died that nobody has killed: {line}");
            }
        }
    }
    Ok(ends)
}

/// What the daemon says of a worker that was no more able to work, or of a guest that it gives up.
const UNPLANNED: [&str; 6] = [
    "does not answer, and is replaced",
    "does not come to the end of a chain",
    "does not make sense, and is killed",
    WITHOUT_RULE,
    "workers have died when they took over",
    "No upgrade",
];

/// The number of a worker whose death a line of the log tells of, and how it has died.
fn death(line: &str) -> Option<(usize, &str)> {
    let (_, rest) = line.split_once("Worker ")?;
    let (number, rest) = rest.split_once(' ')?;
    let (how, _) = rest.split_once(" with ")?;
    rest.contains("chains in service").then_some((number.parse().ok()?, how))
}

fn await_end(daemon: &Daemon, worker: u64, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while !has_ended(daemon, worker) {
        if Instant::now() >= end {
            return false;
        }
        // Nothing tells of the next worker.
        thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Whether a later worker answers. One that dies as it answers says nothing.
fn has_ended(daemon: &Daemon, worker: u64) -> bool {
    let restarts = daemon.stats().ok().and_then(|stats| stats["worker_restarts"].as_u64());
    restarts.is_some_and(|restarts| restarts >= worker)
}

#[cfg(test)]
mod tests {
    use vhost_zcache::crash::Place;

    use super::*;
    use crate::chaos::schedule::Fate;

    const KILLED: &str =
        "[... WARN] Worker 1 was killed by signal 9 with 2 chains in service; the next one starts in 0 ms";

    fn fate(way: Way) -> Vec<Timed<WorkerEnd>> {
        let fate = Fate { place: Place::Executed, passes: 1, way, after: Duration::ZERO };
        vec![Timed { at: Duration::ZERO, what: WorkerEnd::AtPlace(fate) }]
    }

    #[test]
    fn deaths_are_counted() {
        let log = format!(
            "[... WARN] This worker ends at executed, as a test has asked for\n{KILLED}\n[... INFO] Worker 2 has made room"
        );
        let ends = ends(&log, &fate(Way::Kill)).expect("as planned");
        assert_eq!((ends.kills, ends.upgrades, ends.at_places["executed"]), (1, 1, 1));
    }

    #[test]
    fn a_death_of_its_own_is_an_error() {
        let aborted = KILLED.replace("signal 9", "signal 6");
        ends(&aborted, &fate(Way::Abort)).expect("as planned");
        ends(&aborted, &fate(Way::Kill)).expect_err("it was to be killed");
        ends(&aborted, &[]).expect_err("nothing was planned for it");
    }
}
