// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest driver in the eyes of the kernel's style checker. The compiler's and sparse's warnings
//! end the driver's build, wherever it is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use zcache_images::{Images, Kernel};

/// Fails when checkpatch.pl has anything to say.
pub(crate) fn check() -> Result<()> {
    let kernel = Images::open()?.kernel(Kernel::Classic)?;
    let checkpatch = kernel.build_tree().join("source/scripts/checkpatch.pl");
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("guest-driver"), &mut files)?;
    files.sort();
    let output = Command::new("perl")
        .arg(checkpatch)
        .args(["--no-tree", "--strict", "--terse", "--no-summary", "--show-types", "--max-line-length=100"])
        // One source serves several kernels, see compat.h.
        .args(["--ignore=LINUX_VERSION_CODE", "--file"])
        .args(&files)
        .output()
        .context("Cannot run checkpatch.pl")?;
    let complaints = String::from_utf8_lossy(&output.stdout);
    if !complaints.trim().is_empty() {
        bail!("checkpatch.pl complains:\n{}", complaints.trim());
    }
    if !output.status.success() {
        bail!("checkpatch.pl failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("Cannot list {}", folder.display()))? {
        let path = entry?.path();
        let is_source = path.extension().is_some_and(|end| end == "c" || end == "h");
        if path.is_dir() {
            sources(&path, files)?;
        } else if is_source && !path.to_string_lossy().ends_with(".mod.c") {
            files.push(path);
        }
    }
    Ok(())
}
