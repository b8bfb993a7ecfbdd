// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files never have a wrong byte, and what the device has of a disk is what the disk has.
//!
//! Two ways to get it wrong are built on purpose (`Sabotage`), and must be noticed. A third makes
//! the driver slow where others could get in between.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{DaemonOptions, Exit, Kernel, Running, Sabotage, Scenario, Vm};

use crate::volume::{FILESYSTEMS, Volume};

const LIMIT: Duration = Duration::from_secs(240);

/// How long files are worked on, and how much fio writes to each volume then.
#[derive(Debug, Clone, Copy)]
struct Work {
    seconds: u32,
    fio_mib: u32,
}

impl Work {
    const LONG: Self = Self { seconds: 15, fio_mib: 24 };

    /// For kernels that are emulated and the same as another that is not but for what their
    /// distribution has changed, which shows early.
    const SHORT: Self = Self { seconds: 8, fio_mib: 8 };

    fn on(kernel: Kernel) -> Self {
        if Kernel::STOCK.contains(&kernel) { Self::SHORT } else { Self::LONG }
    }
}

crate::on_kernels! {
    /// Files change in every way there is on ext4, xfs and btrfs at once, clones are hammered, the
    /// page cache is dropped, memory is compacted and the mapped devices are read raw meanwhile.
    fn files_stay_coherent: on_debian_12 = Debian12, extra_on_debian_13 = Debian13,
        extra_on_debian_13_backports = Debian13Backports;
}

#[test]
fn files_stay_coherent_on_uml() {
    files_stay_coherent(Kernel::Uml);
}

#[test]
fn extra_files_stay_coherent_under_kasan_and_lockdep() {
    files_stay_coherent(Kernel::Debian13Debug);
}

#[test]
fn extra_files_stay_coherent_on_uml_under_kasan_and_lockdep() {
    files_stay_coherent(Kernel::UmlDebug);
}

fn files_stay_coherent(kernel: Kernel) {
    crate::with_kernel("coherence", kernel, Duration::from_secs(600), |s| {
        let vm = boot(s, kernel, None)?;
        let volumes = mount_all(&vm)?;
        vm.attach()?;
        hammer(&vm, &volumes, Work::on(kernel))?;
        for volume in volumes {
            ensure!(
                volume.count("hits")? > 0 && volume.count("invalidates")? > 0,
                "{}: neither hits nor invalidations: nothing was tested: {:?}",
                volume.filesystem(),
                volume.counters()?
            );
            volume.verify_and_close()?;
        }
        compare_kept_files(&vm)
    });
}

crate::on_kernels! {
    /// Without invalidation the same work has to end with wrong bytes.
    fn the_check_notices_a_missing_invalidation: extra_on_debian_13 = Debian13, on_uml = Uml;
    /// Without the comparison of contents, what zeroing leaves that is refused gets to the device.
    fn the_check_notices_contents_that_no_block_has: extra_on_debian_13 = Debian13, on_uml = Uml;
}

fn the_check_notices_a_missing_invalidation(kernel: Kernel) {
    crate::with_kernel("control_invalidate", kernel, Duration::from_secs(300), |s| {
        let vm = boot(s, kernel, Some(Sabotage::Invalidate))?;
        let volume = Volume::mount(&vm, "ext4", 0)?;
        vm.attach()?;
        let output = spawn_coherence(&vm, &volume, 20)?.wait(LIMIT)?;
        ensure!(
            output.exit == Exit::Status(1) && output.stdout.contains("wrong="),
            "Stale pages went unnoticed: {output:?}"
        );
        // Damage of the filesystem's own blocks is in its log.
        vm.guest().sh("dmesg --clear").map(drop)
    });
}

fn the_check_notices_contents_that_no_block_has(kernel: Kernel) {
    crate::with_kernel("control_content", kernel, Duration::from_secs(300), |s| {
        let vm = boot(s, kernel, Some(Sabotage::Content))?;
        let volume = Volume::mount(&vm, "ext4", 0)?;
        vm.attach()?;
        vm.guest().sh(&format!("head -c 16M /dev/urandom >{}/file", volume.folder()))?;
        let Err(error) = volume.verify_and_close() else { bail!("Wrong contents went unnoticed") };
        let error = format!("{error:#}");
        ensure!(error.contains("refused: left="), "Something else than contents was found wrong: {error}");
        Ok(())
    });
}

/// A block of a file is read through the device's own page cache while the file is written. In the
/// moments between the steps of the driver, which it waits in, others must not get in between.
#[test]
fn no_older_page_outlives_a_write() {
    crate::with_kernel("alias", Kernel::Debian13, Duration::from_secs(300), |s| {
        let vm = boot(s, Kernel::Debian13, Some(Sabotage::Dawdle))?;
        let volume = Volume::mount(&vm, "ext4", 0)?;
        vm.attach()?;
        let run = format!("aliased {}/file {} 20", volume.folder(), volume.mapped());
        let output = vm.guest().spawn(&run)?.wait(LIMIT)?;
        ensure!(output.exit == Exit::Status(0), "A page from before a write came back after it: {output:?}");
        let counters = volume.counters()?;
        ensure!(
            ["hits", "puts", "forgotten"].iter().all(|name| counters[*name] > 0),
            "The block did not pass through the pool while it was written: {counters:?}"
        );
        Ok(())
    });
}

fn boot(s: &Scenario, kernel: Kernel, sabotage: Option<Sabotage>) -> Result<std::sync::Arc<Vm>> {
    let daemon = s.daemon(DaemonOptions::usual()?)?;
    let mut options = crate::guest(kernel).daemon(&daemon, 0);
    options.sabotage = sabotage;
    for _ in FILESYSTEMS {
        options = options.disk_mib(320);
    }
    s.vm(options)
}

fn mount_all(vm: &Vm) -> Result<Vec<Volume<'_>>> {
    (0..).zip(FILESYSTEMS).map(|(disk, filesystem)| Volume::mount(vm, filesystem, disk)).collect()
}

/// Works on all volumes at once, then lets fio write and verify.
fn hammer(vm: &Vm, volumes: &[Volume], work: Work) -> Result<()> {
    let guest = vm.guest();
    let patience = vm.options().patience();
    let background = guest.spawn(&disturbance(volumes))?;
    let mut runs = Vec::new();
    for volume in volumes {
        runs.push((volume.filesystem(), spawn_coherence(vm, volume, work.seconds)?));
        // The others cannot clone.
        if volume.filesystem() != "ext4" {
            runs.push((volume.filesystem(), spawn_clones(vm, volume, work.seconds)?));
        }
    }
    for (filesystem, run) in runs {
        run.success(LIMIT * patience).with_context(|| format!("Wrong contents on {filesystem}"))?;
    }
    for volume in volumes {
        let fio = format!(
            "fio --name=v --directory={} --size={}M --rw=randrw --bsrange=4k-64k --ioengine=psync --fallocate=none \
             --verify=crc32c --verify_interval=4k --verify_fatal=1 --fsync=64 >/tmp/fio 2>&1 || {{ cat /tmp/fio >&2; exit 1; }}",
            volume.folder(),
            work.fio_mib
        );
        guest.sh_within(&fio, LIMIT * patience).with_context(|| format!("fio on {}", volume.filesystem()))?;
    }
    guest.sh("touch /tmp/stop")?;
    background.success(LIMIT * patience)?;
    // What was read before the device had it, and after it: both have to be what was written.
    guest.sh("cd /mnt && find . -type f -path '*/c/*' | sort | xargs -r sha256sum >/tmp/kept && test -s /tmp/kept")?;
    Ok(())
}

/// Reclaim, aliases and migration, until told to stop.
fn disturbance(volumes: &[Volume]) -> String {
    let devices: Vec<_> = volumes.iter().map(Volume::mapped).collect();
    format!(
        "while [ ! -e /tmp/stop ]; do
             {DROP_CACHES}; sleep 1
             for device in {}; do dd if=$device of=/dev/null bs=64k count=512 skip=$((RANDOM % 4096)) status=none; done
             echo 1 >/proc/sys/vm/compact_memory; sleep 1
         done",
        devices.join(" ")
    )
}

fn spawn_coherence<'a>(vm: &'a Vm, volume: &Volume, seconds: u32) -> Result<Running<'a>> {
    let folder = format!("{}/c", volume.folder());
    vm.guest().spawn(&format!(
        "mkdir -p {folder}
         ( while sleep 0.5; do {DROP_CACHES}; done ) &
         trap 'kill %1' EXIT
         coherence --dir {folder} --procs 2 --touchers 1 --seconds {seconds} --kib 4096 --keep"
    ))
}

fn spawn_clones<'a>(vm: &'a Vm, volume: &Volume, seconds: u32) -> Result<Running<'a>> {
    let folder = format!("{}/r", volume.folder());
    vm.guest().spawn(&format!("mkdir -p {folder}; clones --dir {folder} --seconds {seconds} --procs 1"))
}

/// The disks, without any target, have what was there at the end.
fn compare_kept_files(vm: &Vm) -> Result<()> {
    vm.guest()
        .sh_within(
            "for disk in b:ext4 c:xfs d:btrfs; do mount -o ro /dev/vd${disk%:*} /mnt/${disk#*:}; done
             cd /mnt; sha256sum --quiet --strict -c /tmp/kept; cd /
             umount /mnt/ext4 /mnt/xfs /mnt/btrfs",
            LIMIT,
        )
        .context("A file on the disk is not what was read through the target")
        .map(drop)
}
