// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that boot from their own disk: Debian with its own kernel, boot loader and init, in which
//! the guest driver's package is installed as a user does it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use zcache_images::{Accel, Debian, Images, PayloadFile, Qemu};

use crate::artefacts::tool_binary;

/// A system on a disk with the package, which its guests find in `/payload`. A disk with the serial
/// number `zcache-more` has the packages of a newer kernel in `kernel`, and those of dracut.
#[derive(Debug, Clone)]
pub struct Installed {
    system: PathBuf,
    payload: PathBuf,
    more: PathBuf,
    qemu: Qemu,
    accel: Accel,
}

impl Installed {
    /// A system of this release.
    pub fn with_driver(debian: Debian) -> Result<Self> {
        let images = Images::open()?;
        let (_folder, package) = build_package()?;
        let system = images.debian_with(debian, &package)?;
        let package = PayloadFile { source: package, path: "package.deb".to_owned() };
        let mut more = Vec::new();
        for (folder, packages) in [("kernel", images.newer_kernel(debian)?), ("dracut", images.dracut(debian)?)] {
            for source in packages {
                let name = source.file_name().and_then(|name| name.to_str()).context("A package has no name")?;
                more.push(PayloadFile { path: format!("{folder}/{name}"), source });
            }
        }
        Ok(Self {
            system,
            payload: images.payload(&[package])?,
            more: images.payload(&more)?,
            qemu: images.qemu()?,
            accel: images.accel()?,
        })
    }

    pub(crate) fn program(&self) -> Command {
        let mut command = self.qemu.command();
        command.args(self.accel.qemu_args());
        command
    }

    /// The image of its disk, in QEMU's own format.
    pub(crate) fn disk(&self) -> &Path {
        &self.system
    }

    /// An image of packages that some tests install. It is apart, for the package of ours changes
    /// often.
    pub(crate) fn more(&self) -> &Path {
        &self.more
    }

    pub(crate) fn payload(&self) -> &Path {
        &self.payload
    }
}

/// Builds the package of this checkout. The same files give the same package.
fn build_package() -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("guest-driver");
    let output = Command::new("make")
        .arg("-C")
        .arg(driver)
        .arg("deb")
        .arg(format!("BUILD={}", folder.path().display()))
        .arg(format!("ZCACHESETUP={}", tool_binary()?.display()))
        .env("SOURCE_DATE_EPOCH", "1")
        .env_remove("MAKEFLAGS")
        .output()
        .context("Cannot run make")?;
    ensure!(output.status.success(), "The package cannot be built: {}", String::from_utf8_lossy(&output.stderr));
    let package = std::fs::read_dir(folder.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("No package was built")?;
    Ok((folder, package))
}
