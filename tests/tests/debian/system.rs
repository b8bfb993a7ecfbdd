// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A Debian guest, and what can be said of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use zcache_tests::{DaemonOptions, Debian, Installed, Presence, Scenario, Vm, VmOptions, scenario};

/// For what compiles modules or packs an initramfs: both are emulated.
pub(crate) const BUILD_LIMIT: Duration = Duration::from_secs(3000);

/// For one test, which measures no speed: beside a compiler a guest is six times as slow as alone.
const LIMIT: Duration = Duration::from_secs(10_500);

/// Runs a test with a guest of this release in which the package is installed, with test disks of
/// so many MiB. A filesystem of less than 512 MiB has blocks smaller than a page, of which nothing
/// is put.
pub(crate) fn with_debian(name: &str, debian: Debian, disks: &[u64], body: impl FnOnce(&System) -> Result<()>) {
    let name = format!("debian_{name}_{debian}");
    // Takes a quarter of an hour when it is not there yet, which is not the scenario's time.
    let installed = Installed::with_driver(debian).expect("an image of the release");
    scenario(&name, LIMIT, |s| {
        let system = System { vm: boot(s, installed, disks)?, started: Instant::now() };
        system.is_up()?;
        body(&system)
    });
}

fn boot(s: &Scenario, installed: Installed, disks: &[u64]) -> Result<Arc<Vm>> {
    let daemon = s.daemon(DaemonOptions::usual()?)?;
    let options = VmOptions::installed("guest", installed);
    let mut options = disks.iter().fold(options, |options, size| options.disk_mib(*size)).daemon(&daemon, 0);
    options.presence = Presence::ColdPlugged;
    s.vm(options)
}

/// A guest that is up, or was told to reboot.
pub(crate) struct System {
    pub(crate) vm: Arc<Vm>,
    started: Instant,
}

impl System {
    /// Runs a script that has to succeed.
    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        self.vm.guest().sh(script)
    }

    /// Runs a script that builds something.
    pub(crate) fn build(&self, script: &str) -> Result<String> {
        self.vm.guest().sh_within(script, BUILD_LIMIT)
    }

    /// Notes when the test got here, for whoever reads its output.
    pub(crate) fn step(&self, what: &str) {
        eprintln!("[{:6.1} s] {what}", self.started.elapsed().as_secs_f32());
    }

    /// Reboots, and waits until the guest is up.
    pub(crate) fn reboot(&self) -> Result<()> {
        self.vm.reboot().context("The guest did not come up again")?;
        self.is_up()
    }

    /// Waits until all units have started, none of which may fail.
    pub(crate) fn is_up(&self) -> Result<()> {
        let state = self.vm.await_boot()?;
        self.step(&format!("{state}, {}", self.sh("uname -r")?.trim()));
        if state == "running" {
            return Ok(());
        }
        let failed = self.sh("systemctl --no-pager --failed; journalctl --no-pager -b -p warning | tail -n 40")?;
        anyhow::bail!("The guest is {state}:\n{failed}")
    }

    /// That this is mounted from the zcache device of this name, and that what is read there again
    /// comes from the host. `files` is what to read.
    pub(crate) fn is_cached(&self, mount: &str, name: &str, files: &str) -> Result<()> {
        self.is_mounted_from(mount, &format!("/dev/mapper/{name}"))?;
        self.serves_hits(name, files)
    }

    pub(crate) fn is_mounted_from(&self, mount: &str, device: &str) -> Result<()> {
        let source = self.sh(&format!("findmnt -no SOURCE {mount}"))?;
        ensure!(source.trim() == device, "{mount} should be mounted from {device}, not from {}", source.trim());
        Ok(())
    }

    /// That what is read there again comes from the host. What has less memory than it reads evicts
    /// pages; dropping the caches alone puts none.
    pub(crate) fn serves_hits(&self, name: &str, files: &str) -> Result<()> {
        let read = format!(
            "echo 3 >/proc/sys/vm/drop_caches
             systemd-run --scope -q -p MemoryMax=12M bash -c 'cat {files} >/dev/null'"
        );
        self.sh(&format!("{read}\n{read}"))?;
        let before = self.hits(name)?;
        self.sh(&format!("{read}\n{read}"))?;
        let hits = self.hits(name)? - before;
        ensure!(hits > 0, "Nothing that was read from {name} again came from the host");
        self.step(&format!("{name}: {hits} pages came from the host"));
        Ok(())
    }

    fn hits(&self, name: &str) -> Result<u64> {
        let status = self.sh(&format!("dmsetup status --noflush {name}"))?;
        let hits = status.split_whitespace().find_map(|word| word.strip_prefix("hits="));
        hits.and_then(|hits| hits.parse().ok()).with_context(|| format!("{name} counts no hits: {status}"))
    }

    /// The swap disk that is swapped to.
    pub(crate) fn swap(&self) -> Result<Option<String>> {
        let swaps = self.sh("cat /proc/swaps")?;
        let disk = swaps.lines().find_map(|line| line.split_whitespace().next()?.strip_prefix("/dev/zcswap"));
        Ok(disk.map(|number| format!("zcswap{number}")))
    }
}
