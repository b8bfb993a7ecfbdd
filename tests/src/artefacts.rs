// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest is made of, and the daemon's program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// stub
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// stub
    Classic,
    /// stub
    ClassicDebug,
}

/// The files one kernel's guests are booted from.
#[derive(Debug)]
pub struct Artefacts {
    dir: PathBuf,
}

impl Artefacts {
    /// Fetches or builds what is missing.
    pub fn get(_kernel: Kernel) -> Result<Self> {
        Ok(Self { dir: PathBuf::from(std::env::var("STUB_DIR")?) })
    }
    pub(crate) fn qemu(&self) -> Result<Command> {
        Ok(Command::new(self.dir.join("qemu")))
    }
    pub(crate) fn accel(&self) -> Result<&'static str> {
        Ok("tcg,thread=multi")
    }
    pub(crate) fn cmdline(&self) -> &str {
        "root=/dev/vda rootfstype=squashfs ro init=/init console=ttyS0 panic=-1"
    }
    pub(crate) fn kernel_image(&self) -> PathBuf {
        self.dir.join("bzImage")
    }
    pub(crate) fn rootfs(&self) -> &Path {
        &self.dir
    }
    pub(crate) fn payload(&self) -> &Path {
        &self.dir
    }
}

/// The daemon's program, which the build has put beside the other binaries.
pub fn daemon_binary() -> Result<PathBuf> {
    let path = crate::scenario::target_folder().join("release/vhost-zcache");
    if !path.exists() {
        bail!("{} is missing: cargo build --release --package vhost-zcache", path.display());
    }
    Ok(path)
}
