// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! LUKS and LVM, under and over a zcache device, each with a filesystem that is mounted at boot.
//! Pages of a filesystem on something over a device are not that device's, so nothing of them is
//! cached: there it is shown that they come back.

use anyhow::{Context, Result, ensure};
use zcache_tests::Debian;

use crate::on_each_debian;
use crate::system::{System, with_debian};

/// A passphrase that is read from a file: nobody sits there.
const KEY: &str = "\
echo -n secret >/etc/key
chmod 600 /etc/key";

on_each_debian! {
    /// The host sees nothing: pages are encrypted above it.
    fn luks_over_a_device;
    /// The host sees what is decrypted.
    fn a_device_over_luks;
    /// A volume group whose only disk is a zcache device; LVM is told to leave the origin out.
    fn lvm_over_a_device;
    /// A logical volume has a zcache device.
    fn a_device_over_lvm;
}

fn luks_over_a_device(debian: Debian) {
    with_debian("luks_over", debian, &[1024], |system| {
        system.sh(KEY)?;
        system.sh("zcachesetup open /dev/vdb low
             cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/mapper/low /etc/key
             cryptsetup open --key-file /etc/key /dev/mapper/low top
             mkfs.ext4 -q /dev/mapper/top
             echo 'low /dev/vdb' >>/etc/zcachetab
             echo 'top /dev/mapper/low /etc/key luks' >>/etc/crypttab
             echo '/dev/mapper/top /srv ext4 defaults 0 2' >>/etc/fstab")?;
        comes_back(system, "top", None)
    });
}

fn a_device_over_luks(debian: Debian) {
    with_debian("luks_under", debian, &[1024], |system| {
        system.sh(KEY)?;
        system.sh("cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/vdb /etc/key
             cryptsetup open --key-file /etc/key /dev/vdb low
             zcachesetup open /dev/mapper/low top
             mkfs.ext4 -q /dev/mapper/top
             echo 'top /dev/mapper/low' >>/etc/zcachetab
             echo 'low /dev/vdb /etc/key luks' >>/etc/crypttab
             echo '/dev/mapper/top /srv ext4 defaults 0 2' >>/etc/fstab")?;
        comes_back(system, "top", Some("top"))
    });
}

fn lvm_over_a_device(debian: Debian) {
    with_debian("lvm_over", debian, &[1024], |system| {
        // As for every device over another: LVM itself finds its label on both.
        system.sh(r#"echo 'devices { global_filter = [ "r|^/dev/vdb$|" ] }' >/etc/lvm/lvmlocal.conf"#)?;
        system.sh("zcachesetup open /dev/vdb low
             vgcreate vg /dev/mapper/low
             lvcreate -q -y -n top -l 100%FREE vg
             mkfs.ext4 -q /dev/vg/top
             echo 'low /dev/vdb' >>/etc/zcachetab
             echo '/dev/vg/top /srv ext4 defaults 0 2' >>/etc/fstab")?;
        // LVM of the initramfs would take the volume, too.
        system.build("update-initramfs -u -k all")?;
        comes_back(system, "vg-top", None)?;
        let volumes = system.sh("pvs --noheadings -o pv_name 2>&1")?;
        ensure!(volumes.trim() == "/dev/mapper/low", "LVM takes something else for its volume: {volumes}");
        Ok(())
    });
}

fn a_device_over_lvm(debian: Debian) {
    with_debian("lvm_under", debian, &[1024], |system| {
        system.sh("vgcreate vg /dev/vdb
             lvcreate -q -y -n low -l 100%FREE vg
             zcachesetup open /dev/vg/low top
             mkfs.ext4 -q /dev/mapper/top
             echo 'top /dev/vg/low' >>/etc/zcachetab
             echo '/dev/mapper/top /srv ext4 defaults 0 2' >>/etc/fstab")?;
        comes_back(system, "top", Some("top"))
    });
}

/// Mounts /srv as it is in fstab, fills it, reboots twice, and looks at it. `device` is what it is
/// mounted from, `cached` the zcache device that has its pages.
fn comes_back(system: &System, device: &str, cached: Option<&str>) -> Result<()> {
    system.sh("systemctl daemon-reload; mount /srv
         head -c 16M /dev/urandom >/srv/file; sha256sum /srv/file >/srv/sum")?;
    for round in 0..2 {
        system.reboot()?;
        let place = || format!("After reboot number {round}");
        system.sh("sha256sum --quiet -c /srv/sum").with_context(place)?;
        system.is_mounted_from("/srv", &format!("/dev/mapper/{device}")).with_context(place)?;
        if let Some(cached) = cached {
            system.serves_hits(cached, "/srv/file").with_context(place)?;
        }
    }
    Ok(())
}
