// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guests that behave: their machines, what happens to them, and their state at the end.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use zcache_images::{Kernel, Sabotage};

use super::clock::Clock;
use super::loads::{END_LIMIT, Found, Load, Printed};
use super::schedule::{MachineEvent, Timed};
use crate::daemon::Daemon;
use crate::guest::Exit;
use crate::scenario::Scenario;
use crate::vm::{Vm, VmOptions};

/// A filesystem on a mapped device, and a swap disk with another disk behind it.
const PREPARE: &str = "zcachesetup open --put evict /dev/vdb files; mkfs.ext4 -q -F /dev/mapper/files
    mkdir -p /mnt/files; mount -o noatime /dev/mapper/files /mnt/files
    zcachesetup swap on --backing /dev/vdc >/dev/null";

/// Takes all of it apart; the filesystem's own check looks at it with and without the device.
const CLOSE: &str = "zcachesetup swap off /dev/zcswap0; sync; umount /mnt/files
    check() { e2fsck -f -n $1 >/tmp/check 2>&1 || { cat /tmp/check >&2; exit 1; }; }
    check /dev/mapper/files; zcachesetup close files; check /dev/vdb";

/// What is later than that is left out, so that a device that takes long to leave is not away all
/// the time.
const MOST_LATE: Duration = Duration::from_secs(1);

/// What has happened to a machine.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Happened {
    pub(super) away: u64,
    pub(super) stopped: u64,
}

impl Happened {
    pub(super) fn add(&mut self, other: Self) {
        self.away += other.away;
        self.stopped += other.stopped;
    }
}

/// Boots a guest at the daemon's socket of this number; nothing works in it yet.
pub(super) fn boot(
    s: &Scenario,
    daemon: &Arc<Daemon>,
    (kernel, sabotage): (Kernel, Option<Sabotage>),
    socket: usize,
) -> Result<Arc<Vm>> {
    let mut options = VmOptions::new(&format!("{kernel}-{socket}")).daemon(daemon, socket).disk_mib(320).disk_mib(512);
    options.kernel = kernel;
    options.sabotage = sabotage;
    options.always = true;
    let vm = s.vm(options)?;
    vm.guest().sh(PREPARE)?;
    vm.attach()?;
    Ok(vm)
}

/// Does to the machine what is planned.
pub(super) fn live(clock: &Clock, vm: &Vm, events: &[Timed<MachineEvent>]) -> Result<Happened> {
    let mut happened = Happened::default();
    let name = &vm.options().name;
    for event in events {
        if !clock.wait_until(event.at) {
            break;
        }
        if clock.elapsed() > event.at + MOST_LATE {
            clock.note(&format!("{name}: no time for {:?}", event.what));
            continue;
        }
        match event.what {
            MachineEvent::Away(length) => {
                clock.note(&format!("{name}: its device leaves"));
                vm.detach().context("The device does not leave")?;
                thread::sleep(length);
                vm.attach().context("The device does not come back")?;
                clock.note(&format!("{name}: its device is back"));
                happened.away += 1;
            }
            MachineEvent::Stopped(length) => {
                clock.note(&format!("{name}: stands still for {length:?}"));
                vm.pause()?;
                thread::sleep(length);
                vm.resume()?;
                happened.stopped += 1;
            }
        }
    }
    Ok(happened)
}

/// Lets one load work until it has been told to stop.
pub(super) fn work(clock: &Clock, vm: &Vm, load: &Load, length: Duration) -> Found {
    let what = format!("{}: {}", vm.options().name, load.name);
    let mut printed = Printed::default();
    let exit = vm.guest().spawn(&load.script).and_then(|running| {
        running.stream(length + END_LIMIT, |stream, bytes| {
            for stall in printed.add(stream, bytes) {
                clock.note(&format!("{what}: a stall of {stall:?}"));
            }
        })
    });
    match exit {
        Ok(Exit::Status(0)) if clock.is_over() => {}
        Ok(Exit::Status(0)) => clock.fault(format!("{what} has ended before its time")),
        Ok(exit) => clock.fault(format!("{what} ended with {exit}: {}", printed.last_words())),
        Err(error) => clock.fault(format!("{what}: {error:#}")),
    }
    printed.found()
}

/// Looks at what is left when nothing works any more; returns the swapped pages that were lost.
pub(super) fn close(clock: &Clock, vm: &Vm) -> u64 {
    let name = &vm.options().name;
    let stats = clock.check(name, vm.guest().driver_stats());
    let count = |counter: &str| stats.as_ref().and_then(|stats| stats.count(counter).ok()).unwrap_or(0);
    let lost = count("swap_pages_lost");
    if lost > 0 {
        clock.fault(format!("{name}: {lost} swapped pages are lost"));
    }
    if count("losses") > 0 {
        clock.fault(format!("{name}: its driver has given the device up {} times", count("losses")));
    }
    for counter in ["stores", "loads"] {
        if stats.is_some() && count(counter) == 0 {
            clock.fault(format!("{name}: '{counter}' is zero, nothing was tested"));
        }
    }
    if clock.check(name, hits(vm)) == Some(0) {
        clock.fault(format!("{name}: no page of a file came from the device, nothing was tested"));
    }
    clock.check(&format!("{name} at its end"), vm.guest().sh_within(CLOSE, END_LIMIT));
    for complaint in clock.check(name, vm.complaints()).unwrap_or_default() {
        clock.fault(format!("{name}: its kernel complains: {complaint}"));
    }
    lost
}

/// Pages of files that the device had.
fn hits(vm: &Vm) -> Result<u64> {
    let hits = vm.guest().sh("dmsetup status files | tr ' ' '\\n' | sed -n 's/^hits=//p'")?;
    hits.trim().parse().context("The target's status has no hits")
}
