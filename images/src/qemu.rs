// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A QEMU with the generic vhost-user device.
//!
//! The device came after the QEMU of Debian 12 and 13, so it is taken from Debian 13's
//! backports, with its own libraries and dynamic linker.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{self, AptRoot, Repository, Suite};
use crate::cache::{Cache, Key, Leftovers};
use crate::command;
use crate::error::{Error, IoContext as _, Result};
use crate::{host, linked};

const SUITES: &[Suite] = &[
    Suite { repository: Repository::Main, name: "trixie-backports" },
    Suite { repository: Repository::Main, name: "trixie" },
];
const PACKAGE: &str = "qemu-system-x86";
const PROGRAM: &str = "qemu-system-x86_64";
const DEVICE: &str = "vhost-user-test-device-pci";

/// What a guest without display and network loads.
const FIRMWARE: &[&str] = &[
    "usr/share/seabios/bios-256k.bin",
    "usr/share/qemu/kvmvapic.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/multiboot_dma.bin",
    "usr/share/qemu/pvh.bin",
    "usr/share/qemu/qboot.rom",
];

/// A QEMU for x86-64 that has `vhost-user-test-device-pci`.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    args: Vec<OsString>,
}

impl Qemu {
    /// The command up to where the caller's own arguments begin.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        command
    }

    /// The first line of `--version`.
    pub fn version(&self) -> Result<String> {
        let text = command::output(self.command().arg("--version"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    pub(crate) fn get(cache: &Cache) -> Result<Self> {
        if let Some(program) = host::find(PROGRAM) {
            let system = Self { program, args: Vec::new() };
            if system.has_device()? {
                return Ok(system);
            }
        }
        let mut inputs = vec![PACKAGE];
        inputs.extend(SUITES.iter().map(|suite| suite.name));
        inputs.extend(FIRMWARE);
        let artefact = cache.artefact("qemu", &Key::of(&inputs), Leftovers::Remove, |dir, progress| {
            host::require()?;
            let log = dir.join("build.log");
            progress.step("fetching QEMU (about 50 MB)");
            let apt = AptRoot::open(&cache.downloads("qemu"), SUITES, &log)?;
            let debs = apt.download(&[PACKAGE])?;
            progress.step("unpacking");
            let unpacked = dir.join("unpacked");
            apt::extract(&debs, &unpacked, &log)?;
            keep_needed(&unpacked, &dir.join("root"))?;
            fs::remove_dir_all(&unpacked).while_doing("remove", &unpacked)?;
            let qemu = Self::in_root(&dir.join("root"));
            if !qemu.has_device()? {
                return Err(Error::QemuLacksDevice(qemu.version()?));
            }
            Ok(apt::packages(&debs))
        })?;
        Ok(Self::in_root(&artefact.dir.join("root")))
    }

    fn in_root(root: &Path) -> Self {
        let mut args: Vec<OsString> = vec!["--argv0".into(), PROGRAM.into()];
        args.extend(["--library-path".into(), root.join("lib").into()]);
        args.push(root.join(PROGRAM).into());
        args.extend(["-L".into(), root.join("firmware").into()]);
        Self { program: root.join("ld.so"), args }
    }

    fn has_device(&self) -> Result<bool> {
        let devices = command::output(self.command().args(["-device", "help"]))?;
        Ok(devices.contains(&format!("\"{DEVICE}\"")))
    }
}

/// Copies the emulator, the libraries it is linked with and its firmware.
fn keep_needed(unpacked: &Path, root: &Path) -> Result<()> {
    let copy = |from: &Path, to: PathBuf| {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).while_doing("create", parent)?;
        }
        fs::copy(from, &to).while_doing("copy", from).map(drop)
    };
    let binary = unpacked.join("usr/bin").join(PROGRAM);
    copy(&binary, root.join(PROGRAM))?;
    let loader = linked::loader(unpacked);
    copy(&loader, root.join("ld.so"))?;
    let search = linked::library_path(unpacked);
    for library in linked::linked_libraries(&loader, &search, &binary)? {
        let name = library.file_name().unwrap_or_default();
        copy(&library, root.join("lib").join(name))?;
    }
    for file in FIRMWARE {
        let from = unpacked.join(file);
        let name = from.file_name().unwrap_or_default();
        copy(&from, root.join("firmware").join(name))?;
    }
    Ok(())
}
