// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `zcachesetup`: what it makes works, and what a user does wrong is said in one line.

use std::time::Duration;

use anyhow::{Result, ensure};
use zcache_tests::{DaemonOptions, Exit, Kernel, Vm, scenario};

#[test]
fn mistakes_are_one_line_and_an_exit_status() {
    scenario("stock_setup_mistakes", Duration::from_secs(240), |s| {
        let vm = s.vm(crate::guest(Kernel::Uml).disk_mib(64).disk_mib(64))?;
        vm.guest().sh(
            "mkfs.ext4 -q /dev/vdb; mount /dev/vdb /mnt
             zcachesetup open /dev/vdc files; mkfs.ext4 -q /dev/mapper/files; mkdir -p /mnt1; mount /dev/mapper/files /mnt1",
        )?;
        for (command, reason) in [
            ("open /dev/vdb other", "mounted on /mnt"),
            ("open /dev/vdc other", "in use"),
            ("open /dev/mapper/files other", "itself a zcache device"),
            ("open /dev/nothing other", "no such block device"),
            ("open /dev/vdb files", "exists"),
            ("open /dev/vdb ../x", "a name has"),
            ("open --put sometimes /dev/vdb x", "evict or read"),
            ("close files", "mounted on /mnt1"),
            ("close nothing", "not open"),
            ("flush nothing", "not open"),
            ("status nothing", "nothing"),
            ("swap on --backing /dev/vdb", "mounted on /mnt"),
            ("swap on --backing /dev/vdc", "in use"),
            ("swap off /dev/vdb", "no such swap disk"),
            ("nonsense", "nonsense"),
        ] {
            refuses(&vm, command, reason)?;
        }
        Ok(())
    });
}

/// Two targets over the same sectors would serve what the other has changed.
#[test]
fn an_origin_has_one_target() {
    scenario("stock_setup_one", Duration::from_secs(240), |s| {
        let vm = s.vm(crate::guest(Kernel::Uml).disk_mib(64))?;
        let guest = vm.guest();
        for round in 0..10 {
            let output = guest.sh("for name in a b; do zcachesetup open /dev/vdb $name 2>/tmp/$name & done; wait
                 for name in a b; do [ ! -e /dev/mapper/$name ] || echo $name; done")?;
            let opened: Vec<_> = output.split_whitespace().collect();
            ensure!(opened.len() == 1, "Round {round}: of two that open an origin at once one may: {opened:?}");
            let other = if opened[0] == "a" { "b" } else { "a" };
            let error = guest.sh(&format!("cat /tmp/{other}; zcachesetup close {}", opened[0]))?;
            ensure!(error.contains("/dev/vdb: in use"), "Who comes second should be told: {error}");
        }
        guest
            .sh("dmsetup create a --table '0 1024 zcache /dev/vdb 0'
             ! dmsetup create b --table '0 1024 zcache /dev/vdb 1016' 2>/tmp/error
             grep 'resource busy' /tmp/error; dmesg | grep 'Another zcache device lies over this origin'
             dmsetup create b --table '0 1024 zcache /dev/vdb 1024'; dmsetup remove b
             dmsetup reload a --table '0 2048 zcache /dev/vdb 0'; dmsetup suspend a; dmsetup resume a
             ! dmsetup create b --table '0 1024 zcache /dev/vdb 1024' 2>/dev/null
             ! dmsetup reload a --table '0 8 zcache /dev/vdb 0
8 8 zcache /dev/vdb 8
16 8 zcache /dev/vdb 8' 2>/dev/null
             dmsetup remove a; dmesg --clear")
            .map(drop)
    });
}

fn refuses(vm: &Vm, command: &str, reason: &str) -> Result<()> {
    let output = vm.guest().try_sh(&format!("zcachesetup {command}"))?;
    ensure!(
        matches!(output.exit, Exit::Status(1 | 2)) && output.stderr.lines().count() == 1,
        "'zcachesetup {command}' should fail with one line: {output:?}"
    );
    ensure!(output.stderr.contains(reason), "'zcachesetup {command}' should say '{reason}': {}", output.stderr);
    Ok(())
}

/// Filesystem and swap by name from the table, and all of it away again.
#[test]
fn the_table_is_set_up_and_taken_down() {
    scenario("stock_setup_table", Duration::from_secs(180), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(Kernel::Uml).daemon(&daemon, 0).disk_mib(64).disk_mib(128))?;
        let guest = vm.guest();
        guest.sh(
            "mkfs.ext4 -q -L files /dev/vdb
             printf '%s\\n' '# name device options' 'data LABEL=files put=evict' 'swap /dev/vdc swap,priority=7' >/etc/zcachetab
             zcachesetup start --all; mount /dev/mapper/data /mnt; echo hello >/mnt/file
             # No user holds up who has to open something.
             [ $(stat -c %a /run/zcache/lock) = 700 ]",
        )?;
        vm.attach()?;
        let status = guest.sh("zcachesetup status; zcachesetup swap status; cat /proc/swaps")?;
        for word in ["data", "attached", "zcswap0", "/dev/vdc"] {
            ensure!(status.contains(word), "The status does not name '{word}':\n{status}");
        }
        ensure!(daemon.guest_stats(0)?.pools.len() == 2, "Both lines of the table should have a pool on the device");
        guest.sh("umount /mnt; zcachesetup stop --all
             ! zcachesetup status data 2>/dev/null; ! grep zcswap /proc/swaps
             mount /dev/vdb /mnt; grep hello /mnt/file")?;
        ensure!(daemon.guest_stats(0)?.pools.is_empty(), "Pools are left after the end");
        Ok(())
    });
}

/// The disk below grows under a mounted filesystem, and the target with it.
#[test]
fn a_target_grows_with_its_origin() {
    scenario("stock_setup_resize", Duration::from_secs(180), |s| {
        let vm = s.vm(crate::guest(Kernel::Debian13).disk_mib(64))?;
        vm.guest()
            .sh("DM_DISABLE_UDEV=1 dmsetup create --noudevsync below --table '0 65536 linear /dev/vdb 0'
             zcachesetup open /dev/mapper/below files; mkfs.ext4 -q /dev/mapper/files; mount /dev/mapper/files /mnt
             echo hello >/mnt/file; zcachesetup resize files
             dmsetup reload below --table '0 131072 linear /dev/vdb 0'; dmsetup resume below
             zcachesetup status | grep 'zcachesetup resize files'
             zcachesetup resize files; ! zcachesetup status | grep 'zcachesetup resize'
             resize2fs /dev/mapper/files 2>/dev/null; [ $(df --output=size /mnt | tail -1) -gt 40000 ]
             grep hello /mnt/file; dd if=/dev/zero of=/mnt/big bs=1M count=45 2>/dev/null; sync; umount /mnt
             e2fsck -fn /dev/mapper/files >/dev/null 2>&1
             dmsetup reload below --table '0 65536 linear /dev/vdb 0'; dmsetup resume below")
            .map(drop)?;
        refuses(&vm, "resize files", "smaller than it was")
    });
}

/// Who is at work on one line holds up that line, and no other: neither a disk that is slow nor one
/// that is absent.
#[test]
fn a_slow_line_holds_up_no_other() {
    scenario("stock_setup_slow", Duration::from_secs(180), |s| {
        let vm = s.vm(crate::guest(Kernel::Uml).disk_mib(64).disk_mib(64).disk_mib(64))?;
        vm.guest()
            .sh("printf '%s\n' 'slow /dev/vdb' 'late /dev/late' 'quick /dev/vdc' >/etc/zcachetab
             mkdir -p -m 700 /run/zcache/lock; slow=$(cat /sys/class/block/$(basename $(readlink -f /dev/vdb))/dev)
             exec 9>/run/zcache/lock/origin-$slow; flock 9
             zcachesetup start --wait 100 9>&- & started=$!
             until [ -e /dev/mapper/quick ]; do sleep 0.1; done
             [ ! -e /dev/mapper/slow ]; kill -0 $started
             zcachesetup status | grep 'zcachetab:1: not open: zcachesetup start slow'
             exec 9>&-; until [ -e /dev/mapper/slow ]; do sleep 0.1; done; kill -0 $started
             ln -s $(readlink -f /dev/vdd) /dev/late; wait $started
             [ -e /dev/mapper/late ]; ! zcachesetup status | grep 'not open'
             zcachesetup stop; ! zcachesetup status | grep /dev/vd")
            .map(drop)
    });
}

/// What was opened without the module is cached later, with the filesystem mounted.
#[test]
fn a_device_that_passes_through_becomes_cached() {
    scenario("stock_setup_reload", Duration::from_secs(180), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(Kernel::Uml).daemon(&daemon, 0).disk_mib(64))?;
        let guest = vm.guest();
        guest.sh("DM_DISABLE_UDEV=1 dmsetup create --noudevsync files --uuid ZCACHE-files --table '0 131072 linear /dev/vdb 0'
             mkfs.ext4 -q /dev/mapper/files; mount /dev/mapper/files /mnt; echo hello >/mnt/file")?;
        vm.attach()?;
        let output = guest.sh("zcachesetup status
             zcachesetup reload files; zcachesetup reload files; zcachesetup status files
             grep hello /mnt/file; umount /mnt; zcachesetup close files")?;
        ensure!(output.contains("not cached") && output.contains("reload files"), "What to do is not said:\n{output}");
        ensure!(output.contains("attached"), "The device should be cached after it was reloaded:\n{output}");
        Ok(())
    });
}

/// Whoever removes modules and tool is stopped while somebody needs them. An origin is hidden while
/// it is one, and who sees what was encrypted is told.
#[test]
fn what_is_needed_is_not_removable() {
    scenario("stock_setup_removable", Duration::from_secs(180), |s| {
        let vm = s.vm(crate::guest(Kernel::Uml).disk_mib(64).disk_mib(64))?;
        let guest = vm.guest();
        guest.sh("zcachesetup open /dev/vdb files; mkfs.ext4 -q /dev/mapper/files
             zcachesetup removable; [ -d \"$(readlink -f /run/zcache/origins/*)\" ]
             mount /dev/mapper/files /mnt")?;
        refuses(&vm, "removable", "/dev/mapper/files is in use")?;
        guest.sh("umount /mnt; echo '/dev/mapper/files /srv ext4 defaults 0 0' >/etc/fstab")?;
        refuses(&vm, "removable", "/etc/fstab names /dev/mapper/files")?;
        let warning = guest.sh("rm /etc/fstab; zcachesetup close files; [ -z \"$(ls /run/zcache/origins)\" ]
             DM_DISABLE_UDEV=1 dmsetup create --noudevsync plain --uuid CRYPT-LUKS2-x --table '0 131072 linear /dev/vdc 0'
             zcachesetup open /dev/mapper/plain secret 2>&1; zcachesetup close secret")?;
        ensure!(warning.contains("warning: secret: /dev/mapper/plain is decrypted"), "No warning: {warning}");
        Ok(())
    });
}
