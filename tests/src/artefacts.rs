// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest is made of, and the daemon's program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use zcache_images::{GUEST_CMDLINE, Images, Kernel, PayloadFile, Qemu, Sabotage, UML_CMDLINE, Vmm};

use crate::scenario::target_folder;

/// What executes the guest.
#[derive(Debug)]
enum Runner {
    Qemu(Qemu, zcache_images::Accel),
    /// The kernel is a program.
    Uml,
}

/// The files that guests with one kernel are booted from.
#[derive(Debug)]
pub struct Artefacts {
    runner: Runner,
    kernel_image: PathBuf,
    packed_image: PathBuf,
    initrd: Option<PathBuf>,
    modules_disk: Option<PathBuf>,
    rootfs: PathBuf,
    payload: PathBuf,
}

impl Artefacts {
    /// Fetches or builds what is missing, with progress on standard error.
    pub fn get(kernel: Kernel) -> Result<Self> {
        Self::with(kernel, None)
    }

    /// The same with a driver that lacks something.
    pub fn with(kernel: Kernel, sabotage: Option<Sabotage>) -> Result<Self> {
        let images = Images::open()?;
        let built = images.kernel(kernel)?;
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("");
        let mut files = Vec::new();
        let modules = images.guest_modules(&built, &workspace.join("guest-driver"), sabotage)?;
        for module in files_with_extension(&modules, "ko")? {
            files.push(payload_file("modules", module)?);
        }
        files.push(payload_file("bin", tool_binary()?)?);
        for source in files_with_extension(&workspace.join("tests/guest"), "c")? {
            files.push(payload_file("bin", images.guest_program(&source)?)?);
        }
        Ok(Self {
            runner: match kernel.vmm() {
                Vmm::Qemu => Runner::Qemu(images.qemu()?, images.accel()?),
                Vmm::Uml => Runner::Uml,
            },
            kernel_image: images.unpacked(&built)?,
            packed_image: built.image(),
            initrd: built.initrd(),
            modules_disk: built.modules_disk(),
            rootfs: images.rootfs()?,
            payload: images.payload(&files)?,
        })
    }

    /// How guests are executed: `kvm`, `tcg` or `uml`.
    #[must_use]
    pub fn accel(&self) -> &'static str {
        match self.runner {
            Runner::Qemu(_, zcache_images::Accel::Kvm) => "kvm",
            Runner::Qemu(_, zcache_images::Accel::Tcg) => "tcg",
            Runner::Uml => "uml",
        }
    }

    /// The program that is started, and the first words of its command line.
    pub(crate) fn program(&self) -> Command {
        match &self.runner {
            Runner::Qemu(qemu, accel) => {
                let mut command = qemu.command();
                command.args(accel.qemu_args());
                command
            }
            Runner::Uml => Command::new(&self.kernel_image),
        }
    }

    /// The kernel's command line; words may be added.
    pub(crate) fn cmdline(&self) -> &'static str {
        match self.runner {
            Runner::Qemu(..) => GUEST_CMDLINE,
            Runner::Uml => UML_CMDLINE,
        }
    }

    pub(crate) fn kernel_image(&self) -> &Path {
        &self.kernel_image
    }

    /// As it is shipped: it unpacks itself, and can wake up from suspend to memory.
    pub(crate) fn packed_image(&self) -> &Path {
        &self.packed_image
    }

    pub(crate) fn initrd(&self) -> Option<&Path> {
        self.initrd.as_deref()
    }

    pub(crate) fn modules_disk(&self) -> Option<&Path> {
        self.modules_disk.as_deref()
    }

    pub(crate) fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    pub(crate) fn payload(&self) -> &Path {
        &self.payload
    }
}

/// The daemon that guests of tests have: `ZCACHE_DAEMON`, or the development build, which the
/// workspace's own tests have as well.
pub(crate) fn daemon_binary() -> Result<PathBuf> {
    program("ZCACHE_DAEMON", "debug/vhost-zcache", "cargo build --package vhost-zcache")
}

/// The daemon that users have: `ZCACHE_DAEMON`, or where `cargo build --release` has put it.
pub fn release_daemon_binary() -> Result<PathBuf> {
    program("ZCACHE_DAEMON", "release/vhost-zcache", "cargo build --release --package vhost-zcache")
}

/// The daemon whose workers die where tests want them to: `ZCACHE_CHAOS_DAEMON`, or where `cargo
/// build --profile chaos` has put it.
pub fn chaos_daemon_binary() -> Result<PathBuf> {
    program("ZCACHE_CHAOS_DAEMON", "chaos/vhost-zcache", "cargo build --profile chaos --package vhost-zcache")
}

/// The development build of that, which is the one of [`daemon_binary`].
pub fn development_daemon_binary() -> Result<PathBuf> {
    program("ZCACHE_CHAOS_DAEMON", "debug/vhost-zcache", "cargo build --package vhost-zcache")
}

/// The guest's tool: `ZCACHESETUP`, or where `cargo zcachesetup` has put it.
pub fn tool_binary() -> Result<PathBuf> {
    program("ZCACHESETUP", "guest-tool/zcachesetup", "cargo zcachesetup")
}

fn program(variable: &str, place: &str, build: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let path = target_folder().join(place);
    if !path.exists() {
        bail!("{} is missing: {build}", path.display());
    }
    Ok(path)
}

fn files_with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let context = || format!("Cannot list {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn payload_file(folder: &str, source: PathBuf) -> Result<PayloadFile> {
    let name = source.file_name().and_then(|name| name.to_str()).context("A payload file has no name")?;
    let path = format!("{folder}/{name}");
    Ok(PayloadFile { source, path })
}
