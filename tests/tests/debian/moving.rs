// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a user does with a server: moves /srv, swap and the root filesystem, upgrades the kernel,
//! removes the package; and reboots after each.

use anyhow::{Context, Result, ensure};
use zcache_tests::{Debian, Exit};

use crate::on_each_debian;
use crate::system::{BUILD_LIMIT, System, with_debian};

/// Adds /srv on `/dev/vdb` and swap on `/dev/vdc` as the distribution has them.
const BEFORE: &str = "\
mkfs.ext4 -q /dev/vdb
mount /dev/vdb /srv
head -c 24M /dev/urandom >/srv/file
sha256sum /srv/file >/srv/sum
umount /srv";

/// What README.md says to do for /srv and swap.
const MOVE_DATA: &str = "\
cat >>/etc/zcachetab <<EOF
srv   UUID=$(blkid -s UUID -o value /dev/vdb)
swap  /dev/vdc  swap,priority=100
EOF
echo '/dev/mapper/srv /srv ext4 defaults 0 2' >>/etc/fstab
systemctl daemon-reload";

/// What it says to do for the root filesystem, before the initramfs is made anew. The boot loader's
/// configuration stays as it is.
const ROOT_LINE: &str = "echo \"root UUID=$(findmnt -no UUID /) initramfs\" >>/etc/zcachetab";

/// What an upgrade of GRUB does: it is installed on its disk, and dpkg then tells those who want to
/// know that its files have changed.
const UPGRADE_GRUB: &str = "\
dpkg-reconfigure grub-pc 2>&1
dpkg-trigger --no-await --by-package=grub-pc-bin /usr/lib/grub/i386-pc
dpkg --configure --pending 2>&1";

/// What it says to do before all that is gone.
const MOVE_BACK: &str = "\
sed -i '/mapper.srv/d' /etc/fstab
umount /srv
zcachesetup stop";

on_each_debian! {
    /// The modules are there once apt is done, for the kernel that runs.
    fn the_package_installs;
    /// The life of a server, from its first move to the package's removal.
    fn everything_moves_and_moves_back;
    /// A kernel whose headers come later has an initramfs already, without the modules.
    fn modules_that_come_late_reach_the_initramfs;
    /// It goes on with the kernel of backports.
    fn a_newer_kernel_finds_everything;
    /// The same with an initramfs of dracut, in which systemd mounts the root filesystem.
    fn dracut_finds_the_root_filesystem;
}

fn the_package_installs(debian: Debian) {
    with_debian("installs", debian, &[], |system| {
        let status = system.sh("dkms status -k $(uname -r)")?;
        ensure!(status.contains("vhost-zcache") && status.contains("installed"), "DKMS has built nothing: {status}");
        system.sh("for module in zcache zcache_virtio dm_zcache zcache_swap; do modinfo -n $module; done")?;
        system.sh("[ -d /sys/module/zcache_virtio ]").context("udev did not load the driver of the device")?;
        system.sh("zcachesetup status")?;
        Ok(())
    });
}

fn everything_moves_and_moves_back(debian: Debian) {
    with_debian("moves", debian, &[1024, 256], |system| {
        move_everything(system)?;
        system.build(UPGRADE_GRUB)?;
        system.step("GRUB was upgraded");
        remove_under_root(system)?;
        system.reboot().context("After an upgrade of GRUB and a removal that was refused")?;
        root_is_cached(system)?;

        // What the refusal says to do.
        system.build("sed -i /initramfs/d /etc/zcachetab; update-initramfs -u -k all")?;
        system.reboot().context("With root out of the table")?;
        system.is_mounted_from("/", "/dev/vda1")?;
        system.sh(MOVE_BACK)?;
        system.build("apt-get remove -y vhost-zcache-dkms 2>&1")?;
        system.step("the package is removed");
        system.reboot().context("Without the package")?;
        system.is_mounted_from("/", "/dev/vda1")
    });
}

fn a_newer_kernel_finds_everything(debian: Debian) {
    with_debian("kernel", debian, &[1024, 256], |system| {
        move_everything(system)?;
        let before = system.sh("uname -r")?;
        system.build(
            "mkdir /more; mount -o ro /dev/disk/by-id/virtio-zcache-more /more
             apt-get install -y /more/kernel/*.deb 2>&1",
        )?;
        system.step("a newer kernel is installed");
        system.reboot()?;
        ensure!(system.sh("uname -r")? != before, "The newer kernel was not booted");
        root_is_cached(system).context("With the newer kernel")?;
        data_is_cached(system).context("With the newer kernel")
    });
}

fn modules_that_come_late_reach_the_initramfs(debian: Debian) {
    with_debian("late_modules", debian, &[], |system| {
        // Nothing is compiled again: DKMS keeps what it has built.
        system.build(&format!(
            "module=$(dkms status -k $(uname -r) | sed -n '/^vhost-zcache/s/,.*//p')
             dkms uninstall $module -k $(uname -r)
             {ROOT_LINE}
             dkms install $module -k $(uname -r) 2>&1"
        ))?;
        system.step("the modules came after the line");
        system.reboot()?;
        root_is_cached(system)
    });
}

fn dracut_finds_the_root_filesystem(debian: Debian) {
    with_debian("dracut", debian, &[], |system| {
        system.build(
            "mkdir /more; mount -o ro /dev/disk/by-id/virtio-zcache-more /more
             apt-get install -y /more/dracut/*.deb 2>&1
             ! dpkg-query -W -f '${Status}' initramfs-tools | grep -q ' installed$'",
        )?;
        system.step("dracut has taken the place of initramfs-tools");
        system.build(&format!("{ROOT_LINE}\ndracut -f --regenerate-all 2>&1"))?;
        system.step("root is in the table");
        system.reboot()?;
        root_is_cached(system)?;
        system.build("sed -i /initramfs/d /etc/zcachetab; dracut -f --regenerate-all 2>&1")?;
        system.reboot().context("With root out of the table")?;
        system.is_mounted_from("/", "/dev/vda1")
    });
}

/// /srv, swap and root, with a reboot.
fn move_everything(system: &System) -> Result<()> {
    system.sh(BEFORE)?;
    system.sh(MOVE_DATA)?;
    system.build(&format!("{ROOT_LINE}\nupdate-initramfs -u -k all"))?;
    system.step("all is in the tables");
    system.reboot()?;
    root_is_cached(system)?;
    data_is_cached(system)
}

fn data_is_cached(system: &System) -> Result<()> {
    system.sh("cd / && sha256sum --quiet -c /srv/sum").context("What is on /srv has changed")?;
    system.is_cached("/srv", "srv", "/srv/file")?;
    ensure!(system.swap()?.is_some(), "Nothing is swapped to the host");
    Ok(())
}

fn root_is_cached(system: &System) -> Result<()> {
    system.is_cached("/", "root", "/usr/bin/*")
}

/// The package stays as long as anything needs it, and says what.
fn remove_under_root(system: &System) -> Result<()> {
    let removed = system.vm.guest().spawn("apt-get remove -y vhost-zcache-dkms 2>&1")?.wait(BUILD_LIMIT)?;
    ensure!(removed.exit != Exit::Status(0), "The package was removed under the root filesystem");
    for obstacle in ["/dev/mapper/root is in use", "/dev/mapper/srv is in use", "/etc/fstab names", "zcswap0 is in use"]
    {
        ensure!(removed.stdout.contains(obstacle), "apt does not say '{obstacle}': {}", removed.stdout);
    }
    system.step("the removal was refused");
    Ok(())
}
