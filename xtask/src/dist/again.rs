// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a build of the same commit at another place makes the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::SUMS;
use crate::build::{cargo, run};

/// Builds a clone of the tree, and compares with what is in a folder.
pub(super) fn compare(directory: &Path) -> Result<()> {
    println!("== the same once more, elsewhere");
    let place = tempfile::Builder::new().prefix("another-place-").tempdir()?;
    let clone = place.path().join("clone-of-the-tree");
    run(Command::new("git").args(["clone", "--quiet", concat!(env!("CARGO_MANIFEST_DIR"), "/..")]).arg(&clone))?;
    let other = place.path().join("dist");
    // What builds may be built of what is there; what is built has a folder of its own there.
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../target");
    run(cargo().args(["xtask", "dist"]).arg(&other).current_dir(&clone).env("CARGO_TARGET_DIR", target))?;
    let sums = |folder: &Path| {
        fs::read_to_string(folder.join(SUMS)).with_context(|| format!("There is no {SUMS} in {}", folder.display()))
    };
    let (first, second) = (sums(directory)?, sums(&other)?);
    let other_lines: Vec<&str> = first.lines().filter(|line| !second.lines().any(|known| known == *line)).collect();
    ensure!(
        first == second,
        "Another build of the commit makes something else (or the tree has changes that are not committed):\n{}",
        other_lines.join("\n")
    );
    println!("{} files are the same", first.lines().count());
    Ok(())
}
