// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! That a device was never away: one session, which goes on serving.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::daemon::Daemon;
use crate::stats::GuestStats;
use crate::vm::Vm;

/// Longest that a guest under load may take to get a page of each kind of pool from the device.
const PROGRESS_LIMIT: Duration = Duration::from_secs(120);

/// Longest that the driver may take to see that the daemon answers again, and to attach it.
const RESUME_LIMIT: Duration = Duration::from_secs(120);

/// A guest's session, as daemon and driver counted it when it was looked at first.
#[derive(Debug)]
pub struct Continuity<'a> {
    vm: &'a Vm,
    daemon: Arc<Daemon>,
    socket: usize,
    hellos: u64,
    attaches: u64,
    losses: u64,
}

impl<'a> Continuity<'a> {
    /// The session that is open now.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn of(vm: &'a Vm) -> Result<Self> {
        let (daemon, socket) = vm.options().daemon.clone().context("This guest was started without a daemon")?;
        let mut session = Self { vm, daemon, socket, hellos: 0, attaches: 0, losses: 0 };
        session.hellos = session.daemon()?.answers("hello", "ok");
        let driver = session.vm.guest().driver_stats()?;
        session.attaches = driver.count("attaches")?;
        session.losses = driver.count("losses")?;
        session.check()?;
        Ok(session)
    }

    /// The daemon's word alone: the session is open, and is the same. A machine that stands still
    /// can be asked no more.
    pub fn check_daemon(&self) -> Result<()> {
        let stats = self.daemon()?;
        ensure!(stats.connected, "The daemon has lost the connection");
        let refused: u64 = stats.requests.values().filter_map(|row| row.get("no_session")).sum();
        ensure!(refused == 0, "{refused} requests were answered NO_SESSION: stopping the rings has ended the session");
        ensure!(stats.session, "The daemon has closed the session");
        let hellos = stats.answers("hello", "ok");
        ensure!(hellos == self.hellos, "The driver has opened {} more sessions", hellos - self.hellos);
        Ok(())
    }

    /// Daemon and driver agree that the session is the same, and nothing of it was lost.
    pub fn check(&self) -> Result<()> {
        self.check_daemon()?;
        let driver = self.vm.guest().driver_stats()?;
        ensure!(driver.state == "attached", "The driver is '{}'", driver.state);
        for (counter, expected) in [("losses", self.losses), ("swap_pages_lost", 0), ("attaches", self.attaches)] {
            let found = driver.count(counter)?;
            ensure!(found == expected, "The driver counts {found} {counter}, not {expected}");
        }
        Ok(())
    }

    /// Waits until pages have come back from a pool of each kind that the guest has.
    pub fn await_hits(&self) -> Result<()> {
        let before = hits(&self.daemon()?);
        let deadline = Instant::now() + PROGRESS_LIMIT;
        loop {
            let now = hits(&self.daemon()?);
            let still = before.iter().find(|(kind, hits)| now.get(*kind).is_none_or(|now| now <= hits));
            let Some((kind, _)) = still else { return Ok(()) };
            ensure!(
                Instant::now() < deadline,
                "No page came back from a pool that is {kind} within {PROGRESS_LIMIT:?}"
            );
            // Nothing tells of a page that comes back.
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the machine so many times for random lengths and lets it go on, under a load that
    /// swaps and reads files. `while_stopped` is called each time with the number of the round.
    pub fn survives_stops(&self, rounds: u32, while_stopped: impl Fn(u32) -> Result<()>) -> Result<()> {
        self.await_hits().context("Before the machine was stopped")?;
        for round in 0..rounds {
            let (stopped, running) = (random_ms(300), random_ms(400));
            self.vm.pause()?;
            thread::sleep(stopped);
            let checked = self.check_daemon().and_then(|()| while_stopped(round));
            self.vm.resume()?;
            thread::sleep(running);
            checked.and_then(|()| self.check()).with_context(|| {
                format!("In round {round}, when the machine had stood still for {stopped:?} and run for {running:?}")
            })?;
        }
        self.await_hits().context("After the machine was stopped")?;
        self.check()
    }

    /// Has the daemon stand still for so long under the same load. The driver may give it up
    /// meanwhile, but nothing is lost: when it is well again the session is resumed.
    pub fn survives_stall(&mut self, length: Duration) -> Result<()> {
        self.await_hits().context("Before the daemon stood still")?;
        self.daemon.stand_still(length)?;
        self.vm
            .guest()
            .await_driver_state("attached", RESUME_LIMIT)
            .with_context(|| format!("The daemon stood still for {length:?}, is well again, and is not used"))?;
        let now = Self::of(self.vm).with_context(|| format!("After the daemon stood still for {length:?}"))?;
        ensure!(
            now.attaches - self.attaches == now.losses - self.losses,
            "The driver has lost the device {} times, but attached it {} times",
            now.losses - self.losses,
            now.attaches - self.attaches
        );
        *self = now;
        self.await_hits().with_context(|| format!("After the daemon stood still for {length:?}"))
    }

    /// How often the driver has lost the device so far.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses
    }

    fn daemon(&self) -> Result<GuestStats> {
        self.daemon.guest_stats(self.socket)
    }
}

/// Pages that came back, by kind of pool.
fn hits(stats: &GuestStats) -> BTreeMap<String, u64> {
    let mut hits = BTreeMap::new();
    for pool in &stats.pools {
        *hits.entry(pool.kind.clone()).or_default() += pool.hits;
    }
    hits
}

/// Up to so many milliseconds.
#[must_use]
pub fn random_ms(most: u64) -> Duration {
    Duration::from_millis(RandomState::new().build_hasher().finish() % most)
}
