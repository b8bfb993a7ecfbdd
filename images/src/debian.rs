// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Debian as a user has it: systemd, GRUB and its own kernel, on a disk that it boots from.
//!
//! The disk has a DOS partition table, as the installer makes one on a machine with a BIOS, and one
//! partition. mmdebstrap installs into an archive, which `mke2fs` turns into the file system; what
//! needs the running system is done in a guest: the boot loader, and later packages.

mod disk;
mod install;
mod step;
mod tools;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use step::{Step, System};
use tools::DiskTools;

use crate::apt::{self, AptRoot, Repository, Suite};
use crate::cache::{Artefact, Cache, Key, Leftovers};
use crate::error::{Error, IoContext as _, Result};
use crate::{command, host};

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Debian {
    /// Debian 12, "bookworm".
    Bookworm,
    /// Debian 13, "trixie".
    Trixie,
}

/// What a user does with a package.
const INSTALL_PACKAGE: &str = include_str!("../debian/install-package");

impl Debian {
    /// All releases there are recipes for.
    pub const ALL: &[Self] = &[Self::Bookworm, Self::Trixie];

    /// The name used on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "debian-12",
            Self::Trixie => "debian-13",
        }
    }

    fn suite(self) -> Suite {
        let name = match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        };
        Suite { repository: Repository::Main, name }
    }

    /// What of every Debian is in a package of its own here.
    fn split_off(self) -> &'static [&'static str] {
        match self {
            Self::Bookworm => &[],
            // Opens the devices of /etc/crypttab; was part of systemd.
            Self::Trixie => &["systemd-cryptsetup"],
        }
    }

    fn backports(self) -> Suite {
        let name = match self {
            Self::Bookworm => "bookworm-backports",
            Self::Trixie => "trixie-backports",
        };
        Suite { repository: Repository::Main, name }
    }

    /// The image of a disk with this release and a package, and what that builds when it is
    /// installed.
    pub(crate) fn with_package(self, cache: &Cache, package: &Path) -> Result<PathBuf> {
        let base = base(cache, self)?;
        let contents = fs::read(package).while_doing("read", package)?;
        let key = Key::of(&[base.key.as_str().as_bytes(), INSTALL_PACKAGE.as_bytes(), &contents]);
        let artefact = cache.artefact(&format!("{self}-with-package"), &key, Leftovers::Remove, |dir, progress| {
            let disk = dir.join("disk.qcow2");
            let log = dir.join("build.log");
            let mut create = DiskTools::get(cache)?.qemu_img();
            create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(base.dir.join("disk.raw"));
            command::run(create.arg(&disk), &log)?;
            progress.step("installing the package in a guest (a quarter of an hour)");
            let script = dir.join("install-package");
            fs::write(&script, INSTALL_PACKAGE).while_doing("write", &script)?;
            let file = Some((package, "package.deb"));
            let step = Step { name: "the installation of the package", script: &script, file };
            step.run(cache, &system(&base.dir, &disk, "qcow2"), &dir.join("console.log"))?;
            Ok(Vec::new())
        })?;
        Ok(artefact.dir.join("disk.qcow2"))
    }

    /// Packages of the kernel in backports, with its headers and what both need beyond the release.
    pub(crate) fn newer_kernel(self, cache: &Cache) -> Result<Vec<PathBuf>> {
        let fetched = Fetched {
            name: "newer-kernel",
            what: "a newer kernel (about 150 MB)",
            wanted: &["linux-image-amd64", "linux-headers-amd64"],
            needed: &["linux-*", "*-for-host"],
        };
        self.fetch(cache, &fetched, &[self.backports(), self.suite()])
    }

    /// Packages of dracut, which takes the place of initramfs-tools.
    pub(crate) fn dracut(self, cache: &Cache) -> Result<Vec<PathBuf>> {
        let fetched = Fetched { name: "dracut", what: "dracut", wanted: &["dracut"], needed: &["dracut*", "kpartx"] };
        self.fetch(cache, &fetched, &[self.suite()])
    }

    fn fetch(self, cache: &Cache, fetched: &Fetched, suites: &[Suite]) -> Result<Vec<PathBuf>> {
        let name = format!("{}-{self}", fetched.name);
        let mut inputs = [fetched.wanted, fetched.needed].concat();
        inputs.extend(suites.iter().map(|suite| suite.name));
        let artefact = cache.artefact(&name, &Key::of(&inputs), Leftovers::Remove, |dir, progress| {
            progress.step(format_args!("fetching {}", fetched.what));
            let log = dir.join("build.log");
            let apt = AptRoot::open(&cache.downloads(&name), suites, &log)?;
            let needed = |package: &str| fetched.needed.iter().any(|pattern| matches(pattern, package));
            let debs = apt.download_some(fetched.wanted, needed)?;
            for deb in &debs {
                let target = dir.join(deb.path.file_name().unwrap_or_default());
                fs::copy(&deb.path, &target).while_doing("copy", &deb.path)?;
            }
            Ok(apt::packages(&debs))
        })?;
        let mut debs = Vec::new();
        for entry in fs::read_dir(&artefact.dir).while_doing("read", &artefact.dir)? {
            let path = entry.while_doing("read", &artefact.dir)?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                debs.push(path);
            }
        }
        debs.sort();
        Ok(debs)
    }
}

/// Packages that some tests install.
struct Fetched {
    /// What they are kept by.
    name: &'static str,
    /// For people.
    what: &'static str,
    wanted: &'static [&'static str],
    /// Which of these, and of what they depend on: names with a `*` at one end, for any text.
    needed: &'static [&'static str],
}

fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == pattern,
    }
}

impl fmt::Display for Debian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is none of [`Debian::ALL`].
#[derive(Debug, thiserror::Error)]
#[error("there is no image {0:?}; known are debian-12 and debian-13")]
pub struct UnknownDebian(String);

impl FromStr for Debian {
    type Err = UnknownDebian;

    fn from_str(name: &str) -> std::result::Result<Self, UnknownDebian> {
        Self::ALL.iter().copied().find(|debian| debian.name() == name).ok_or_else(|| UnknownDebian(name.to_owned()))
    }
}

/// How the steps boot a disk whose kernel is in the folder of [`base`].
fn system<'a>(base: &Path, disk: &'a Path, format: &'static str) -> System<'a> {
    System { disk, format, kernel: base.join("vmlinuz"), initrd: base.join("initrd.img") }
}

fn base(cache: &Cache, debian: Debian) -> Result<Artefact> {
    let mut inputs = vec![debian.suite().name];
    inputs.extend(install::inputs(debian.split_off()));
    cache.artefact(debian.name(), &Key::of(&inputs), Leftovers::Remove, |dir, progress| {
        host::require()?;
        if !host::is_root() {
            return Err(Error::NeedsRoot);
        }
        let tools = DiskTools::get(cache)?;
        let log = dir.join("build.log");
        progress.step("installing Debian (about 300 MB)");
        let installed = install::run(&tools, debian.suite(), debian.split_off(), dir, &log)?;
        progress.step("making the file system");
        let disk = dir.join("disk.raw");
        disk::make(&tools, &installed.archive, &disk, &log)?;
        progress.step("installing the boot loader in a guest");
        let script = install::boot_loader(dir);
        let step = Step { name: "the installation of the boot loader", script: &script, file: None };
        step.run(cache, &system(dir, &disk, "raw"), &dir.join("console.log"))?;
        fs::remove_file(&installed.archive).while_doing("remove", &installed.archive)?;
        Ok(installed.packages)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_by_patterns() {
        for (pattern, name, expected) in [
            ("linux-*", "linux-image-amd64", true),
            ("linux-*", "util-linux-extra", false),
            ("*-for-host", "gcc-14-for-host", true),
            ("kpartx", "kpartx", true),
            ("kpartx", "kpartx-boot", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
