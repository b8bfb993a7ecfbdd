// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Installs a release with what the tests need into an archive.

use std::fs;
use std::path::{Path, PathBuf};

use super::disk;
use super::tools::DiskTools;
use crate::apt::{self, Suite};
use crate::cache::Package;
use crate::error::{IoContext as _, Result};
use crate::{PAYLOAD_SERIAL, command, guest};

/// On top of what every Debian has.
const PACKAGES: &[&str] = &[
    "btrfs-progs",
    "busybox",
    "cryptsetup",
    "cryptsetup-initramfs",
    "dbus",
    "dkms",
    "dmsetup",
    "e2fsprogs",
    "fdisk",
    "gcc",
    "grub-pc",
    "initramfs-tools",
    "kmod",
    "less",
    "linux-headers-amd64",
    "linux-image-amd64",
    "lvm2",
    "make",
    "procps",
    "systemd-sysv",
    "udev",
    "vim-tiny",
    "xfsprogs",
    "zstd",
];

/// A hook of mmdebstrap's.
const CUSTOMIZE: &str = "customize";
/// A step in the new system.
const BOOT_LOADER: &str = "boot-loader";

/// What the hook and the steps find in one folder.
const OWN_FILES: &[(&str, &str)] = &[
    (CUSTOMIZE, include_str!("../../debian/customize")),
    (BOOT_LOADER, include_str!("../../debian/boot-loader")),
    ("agent.service", include_str!("../../debian/agent.service")),
    ("grub.cfg", include_str!("../../debian/grub.cfg")),
    ("slow.conf", include_str!("../../debian/slow.conf")),
    ("step", include_str!("../../debian/step")),
];

/// A system in an archive. Its kernel and initramfs lie beside it, as `vmlinuz` and `initrd.img`.
pub(super) struct Installed {
    pub(super) archive: PathBuf,
    pub(super) packages: Vec<Package>,
}

/// What the system depends on besides its release.
pub(super) fn inputs(more: &'static [&'static str]) -> Vec<&'static str> {
    let own = OWN_FILES.iter().map(|(_, text)| *text);
    let programs = guest::SOURCES.iter().map(|source| source.text);
    own.chain(programs).chain([PACKAGES, more, disk::INPUTS].concat()).collect()
}

/// Where [`run`] has put the script of the step that makes the disk bootable.
pub(super) fn boot_loader(dir: &Path) -> PathBuf {
    dir.join(BOOT_LOADER)
}

/// Fetches and installs everything, and `more` packages.
pub(super) fn run(tools: &DiskTools, suite: Suite, more: &[&str], dir: &Path, log: &Path) -> Result<Installed> {
    for (name, text) in OWN_FILES {
        let path = dir.join(name);
        fs::write(&path, text).while_doing("write", &path)?;
    }
    guest::build(dir, log)?;
    let archive = dir.join("root.tar");
    let mut command = tools.mmdebstrap();
    command
        .env("LC_ALL", "C")
        .env("ROOT_UUID", disk::ROOT_UUID)
        .env("PAYLOAD_SERIAL", PAYLOAD_SERIAL)
        .env("OWN_FILES", dir)
        .args(["--mode=root", "--variant=minbase", "--format=tar"])
        .arg(format!("--keyring={}", apt::KEYRING))
        .arg(format!("--include={}", [PACKAGES, more].concat().join(",")))
        .arg(format!("--hook-dir={}/maybe-merged-usr", tools.mmdebstrap_hooks().display()));
    for setting in apt::network_settings()? {
        command.arg(format!("--aptopt={setting}"));
    }
    command.arg(format!("--customize-hook=sh '{}/{CUSTOMIZE}' \"$1\"", dir.display()));
    command.arg(suite.name).arg(&archive).arg(apt::sources_list(&[suite])?.trim());
    command::run(&mut command, log)?;
    let list = dir.join("packages");
    let list = fs::read_to_string(&list).while_doing("read", &list)?;
    let package = |line: &str| {
        let (name, version) = line.split_once(' ')?;
        Some(Package { name: name.to_owned(), version: version.to_owned() })
    };
    Ok(Installed { archive, packages: list.lines().filter_map(package).collect() })
}
