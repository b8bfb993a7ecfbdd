// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything at once, for a while: guests check all that they read, while workers die at random
//! and at named places, devices come and go, machines stand still, limits change, and one guest
//! misbehaves.
//!
//! | module | what it is |
//! |---|---|
//! | `schedule` | what happens when: a seed decides it |
//! | `places` | when workers pass the places at which they can die |
//! | `clock` | the time of a run, its end, and what was wrong |
//! | `loads` | what works in guests and checks what it reads |
//! | `machines` | the guests that behave, and what happens to their machines |
//! | `kills` | the ends of workers |
//! | `limits` | limits that become others |
//! | `misbehaving` | the guest that does not behave |
//! | `report` | what came of it |

mod clock;
mod kills;
mod limits;
mod loads;
mod machines;
mod misbehaving;
mod places;
mod report;
mod schedule;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use zcache_images::{Kernel, Sabotage};

pub use self::report::Report;

use self::clock::Clock;
use self::loads::Found;
use self::machines::Happened;
use self::misbehaving::misbehave;
use self::schedule::Schedule;
use crate::daemon::{Daemon, DaemonOptions, SocketOptions};
use crate::load::STOP_LOAD;
use crate::scenario::Scenario;
use crate::vm::Vm;

/// What is to happen.
#[derive(Debug, Clone)]
pub struct Chaos {
    /// Decides what happens when.
    pub seed: u64,
    /// How long loads work.
    pub length: Duration,
    /// One guest for each, at a socket of its own.
    pub kernels: Vec<Kernel>,
    /// What the guests' driver lacks, to see that it would be noticed.
    pub sabotage: Option<Sabotage>,
    /// A build whose workers die where they are told to: one with assertions.
    pub daemon: PathBuf,
}

/// A seed that nobody has chosen.
#[must_use]
pub fn new_seed() -> u64 {
    fastrand::u32(..).into()
}

/// What a guest that misbehaves may have.
const ITS_LIMIT: &str = "48M";
/// Room for the other guests' pages, and not for all of their files.
const LIMIT: &str = "384M";

/// Runs it. Something wrong with a page, a guest or the daemon is in the report; an error is what
/// kept it from being run at all.
///
/// # Errors
///
/// When a daemon or a guest cannot be started.
pub fn run(s: &Scenario, chaos: &Chaos) -> Result<Report> {
    let vmms: Vec<_> = chaos.kernels.iter().map(|kernel| kernel.vmm()).collect();
    let schedule = Schedule::new(chaos.seed, chaos.length, &vmms);
    fs::write(s.dir().join("schedule.txt"), schedule.to_string()).context("Cannot write the schedule")?;
    let daemon = s.daemon(daemon_options(chaos, &schedule)?)?;
    let mut vms = Vec::new();
    for (socket, kernel) in chaos.kernels.iter().enumerate() {
        vms.push(machines::boot(s, &daemon, (*kernel, chaos.sabotage), socket)?);
    }
    let clock = Clock::start(chaos.length, s.dir())?;
    let course = perform(&clock, chaos, &schedule, &daemon, &vms);
    let minutes = clock.elapsed().as_secs_f64() / 60.0;
    let seen = clock.check("The daemon", look_at_daemon(&clock, &daemon, vms.len())).unwrap_or_default();
    let lost = seen.corrupt + vms.iter().map(|vm| machines::close(&clock, vm)).sum::<u64>();
    let ends = clock.check("The daemon", daemon.log().and_then(|log| kills::ends(&log, &schedule.workers)));
    let ends = ends.unwrap_or_default();
    let stall_samples = course.found.stalls_us.len();
    let (stall_p99_ms, stall_max_ms) = report::stalls(course.found.stalls_us);
    Ok(Report {
        seed: chaos.seed,
        minutes,
        guests: vms.iter().map(|vm| vm.options().name.clone()).collect(),
        verified: course.found.verified,
        wrong: course.found.wrong,
        lost,
        kills: ends.kills,
        kills_at_places: ends.at_places,
        upgrades: ends.upgrades,
        devices_away: course.happened.away,
        machines_stopped: course.happened.stopped,
        limits_changed: course.limits_changed,
        misbehaviour: course.misbehaviour,
        refused: seen.refused,
        stall_samples,
        stall_p99_ms,
        stall_max_ms,
        faults: clock.faults(),
    })
}

/// What has come of the time in which everything happened.
#[derive(Debug, Default)]
struct Course {
    found: Found,
    happened: Happened,
    limits_changed: u64,
    misbehaviour: u64,
}

/// Lets everything happen at once, until the time is up or something is wrong.
fn perform(clock: &Clock, chaos: &Chaos, schedule: &Schedule, daemon: &Daemon, vms: &[Arc<Vm>]) -> Course {
    let mut course = Course::default();
    thread::scope(|scope| {
        let mut loads = Vec::new();
        for (number, vm) in (0..).zip(vms) {
            for load in loads::all(vm.options().memory_mib, chaos.seed.wrapping_add(number << 32)) {
                loads.push(scope.spawn(move || machines::work(clock, vm, &load, chaos.length)));
            }
        }
        let mut lives = Vec::new();
        for (vm, events) in vms.iter().zip(&schedule.machines) {
            lives.push(scope.spawn(move || clock.check(&vm.options().name, machines::live(clock, vm, events))));
        }
        scope.spawn(|| clock.check("The daemon", kills::end_workers(clock, daemon, &schedule.workers)));
        let misbehaving = scope.spawn(|| misbehave(clock, &daemon.socket(vms.len()), &schedule.mischief));
        let limits = scope.spawn(|| clock.check("The daemon", limits::change(clock, daemon, &schedule.limits)));
        clock.wait_for_end();
        // Who panics has its own message, and is not heard here.
        course.misbehaviour = misbehaving.join().unwrap_or_default();
        course.limits_changed = limits.join().ok().flatten().unwrap_or_default();
        for life in lives {
            course.happened.add(life.join().ok().flatten().unwrap_or_default());
        }
        for vm in vms {
            clock.check(&vm.options().name, vm.guest().sh(STOP_LOAD));
        }
        for load in loads {
            course.found.add(load.join().unwrap_or_default());
        }
    });
    course
}

/// What the daemon says of its guests.
#[derive(Debug, Default)]
struct Seen {
    /// Pages of guests that behave, damaged when they were got.
    corrupt: u64,
    /// Rings and chains of the guest that does not.
    refused: u64,
}

fn look_at_daemon(clock: &Clock, daemon: &Daemon, behaving: usize) -> Result<Seen> {
    let (stats, mut seen) = (daemon.stats()?, Seen::default());
    let guests = stats["guests"].as_array().context("The daemon's statistics have no guests")?;
    for (number, guest) in guests.iter().enumerate() {
        let queues = guest["queues"].as_array().context("A guest has no queues")?;
        if number == behaving {
            let refused = ["ring_errors", "malformed_chains"];
            seen.refused = queues.iter().flat_map(|queue| refused.map(|key| queue[key].as_u64().unwrap_or(0))).sum();
            continue;
        }
        seen.corrupt += guest["requests"]["get"]["corrupt"].as_u64().unwrap_or(0);
        if guest["quarantined"] == true || queues.iter().any(|queue| queue["stopped"] == true) {
            clock.fault(format!("The daemon does not serve guest {number} any more"));
        }
    }
    Ok(seen)
}

fn daemon_options(chaos: &Chaos, schedule: &Schedule) -> Result<DaemonOptions> {
    let mut sockets = vec![SocketOptions::default(); chaos.kernels.len()];
    sockets.push(SocketOptions {
        memory_limit: Some(ITS_LIMIT.to_owned()),
        allow_shared: vec![misbehaving::SHARED_UUID.to_owned()],
    });
    Ok(DaemonOptions {
        binary: chaos.daemon.clone(),
        sockets,
        memory_limit: Some(LIMIT.to_owned()),
        queues: 2,
        workers: None,
        die_at: Some(schedule.die_at()),
        arguments: Vec::new(),
    })
}
