// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What holds a boot up, and what must not.

use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use zcache_tests::Debian;

use crate::on_each_debian;
use crate::system::with_debian;

/// How long somebody looks for a passphrase: longer than systemd by default waits for a disk.
const SLOW: Duration = Duration::from_secs(120);

on_each_debian! {
    /// Who types a passphrase has all the time there is.
    fn a_passphrase_may_come_late;
    /// A line that may be absent does not hold the boot up.
    fn a_nofail_disk_may_be_absent;
    /// A line that may not be absent keeps back what is mounted from it, and nothing else.
    fn an_absent_disk_is_reported;
    /// All lines of a long table are opened.
    fn two_hundred_lines_are_opened;
    /// Nor do two hundred that may be absent hold it up.
    fn two_hundred_disks_may_be_absent;
}

fn a_passphrase_may_come_late(debian: Debian) {
    with_debian("late", debian, &[1024], |system| {
        system.sh("rm /etc/systemd/system.conf.d/slow.conf
             echo -n secret |
             cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/vdb -
             echo -n secret | cryptsetup open --key-file - /dev/vdb low
             zcachesetup open /dev/mapper/low srv
             mkfs.ext4 -q /dev/mapper/srv
             echo 'srv /dev/mapper/low' >>/etc/zcachetab
             echo 'low /dev/vdb none luks' >>/etc/crypttab
             echo '/dev/mapper/srv /srv ext4 defaults 0 2' >>/etc/fstab
             systemctl daemon-reload; mount /srv; head -c 16M /dev/urandom >/srv/file")?;
        system.vm.reboot()?;
        let console = system.vm.console()?;
        console.await_text("passphrase for disk", Duration::from_secs(300))?;
        system.step("a passphrase is asked for");
        thread::sleep(SLOW);
        console.type_line("wrong")?;
        console.await_text("passphrase for disk", Duration::from_secs(300))?;
        console.type_line("secret")?;
        system.is_up()?;
        system.is_cached("/srv", "srv", "/srv/file")
    });
}

fn a_nofail_disk_may_be_absent(debian: Debian) {
    with_debian("nofail", debian, &[], |system| {
        // Whoever waits for the disk does so for longer than the test.
        system.sh("patience=nofail,x-systemd.device-timeout=3600
             echo \"gone UUID=11111111-2222-3333-4444-555555555555 $patience\" >>/etc/zcachetab
             mkdir /gone; echo \"/dev/mapper/gone /gone ext4 $patience 0 2\" >>/etc/fstab")?;
        system.vm.reboot()?;
        system
            .sh("until systemctl is-active -q multi-user.target; do sleep 0.2; done")
            .context("The boot waits for a disk that may be absent")?;
        system.step(system.sh("systemctl list-jobs --no-pager")?.trim());
        Ok(())
    });
}

fn an_absent_disk_is_reported(debian: Debian) {
    with_debian("absent", debian, &[], |system| {
        system
            .sh("echo 'gone UUID=11111111-2222-3333-4444-555555555555 x-systemd.device-timeout=20' >>/etc/zcachetab
             mkdir /gone; echo '/dev/mapper/gone /gone ext4 defaults 0 2' >>/etc/fstab")?;
        system.vm.reboot()?;
        let state = system.vm.await_boot()?;
        ensure!(state == "maintenance", "A disk that is needed is not there, and the guest is {state}");
        let log = system.sh("journalctl --no-pager -b")?;
        ensure!(log.contains("gone"), "Nobody says which line it is: {log}");
        system.sh("sed -i /gone/d /etc/zcachetab /etc/fstab")?;
        system.reboot().context("With the line taken out in emergency mode")
    });
}

fn two_hundred_lines_are_opened(debian: Debian) {
    with_debian("lines", debian, &[256, 256], |system| {
        system.sh("for disk in vdb vdc; do
                 { echo label: gpt; for n in $(seq 100); do echo \"size=1MiB, name=$disk-$n\"; done; } |
                     sfdisk -q /dev/$disk
             done
             for disk in vdb vdc; do
                 for n in $(seq 100); do echo \"$disk-$n PARTLABEL=$disk-$n\"; done
             done >>/etc/zcachetab")?;
        system.reboot()?;
        let open = system.sh("dmsetup ls --target zcache | wc -l")?;
        system.step(&format!("{} devices are open; {}", open.trim(), system.sh("systemd-analyze")?.trim()));
        ensure!(open.trim() == "200", "Of 200 lines {} were opened", open.trim());
        Ok(())
    });
}

fn two_hundred_disks_may_be_absent(debian: Debian) {
    with_debian("absent_lines", debian, &[], |system| {
        system.step(system.sh("systemd-analyze time")?.trim());
        system.sh("for n in $(seq 200); do
                 printf 'gone%d UUID=11111111-2222-3333-4444-%012d nofail,x-systemd.device-timeout=3600\\n' $n $n
             done >>/etc/zcachetab")?;
        system.vm.reboot()?;
        system.sh("until systemctl is-active -q multi-user.target; do sleep 0.2; done")?;
        system.step(
            system
                .sh("systemctl show -P UserspaceTimestampMonotonic -P FinishTimestampMonotonic; \
                               systemd-analyze critical-chain --no-pager | head -n 12")?
                .trim(),
        );
        let waiting = system.sh("systemctl list-jobs --no-pager --no-legend 'zcache@gone*' | wc -l")?;
        ensure!(waiting.trim() == "200", "Of 200 lines {} are waited for", waiting.trim());
        Ok(())
    });
}
