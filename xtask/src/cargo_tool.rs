// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs of others that the project's commands run, installed where they are not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use zcache_images::Images;

use crate::build::cargo;

/// A program that cargo can install.
pub(crate) struct CargoTool {
    /// Name of the crate and of the program.
    pub(crate) name: &'static str,
    /// The version that is installed where there is none.
    pub(crate) version: &'static str,
}

impl CargoTool {
    /// The program that is there, or was installed now; `None` where it cannot be, for want of a
    /// network.
    pub(crate) fn find_or_install(&self) -> Result<Option<PathBuf>> {
        let Self { name, version } = self;
        if self.answers(Path::new(name)) {
            return Ok(Some(PathBuf::from(name)));
        }
        let root = Images::open()?.dir().join(format!("{name}-{version}"));
        let program = root.join("bin").join(name);
        if self.answers(&program) {
            return Ok(Some(program));
        }
        println!("   installing {name} {version}");
        let installed = cargo()
            .args(["install", "--quiet", "--debug", "--locked", name, "--version", version, "--root"])
            .arg(&root)
            // It shares nothing with this workspace's build.
            .env_remove("CARGO_TARGET_DIR")
            .status()?;
        Ok(installed.success().then_some(program))
    }

    fn answers(&self, program: &Path) -> bool {
        // A program for `cargo NAME` wants to be told its name.
        let command = self.name.trim_start_matches("cargo-");
        Command::new(program)
            .args([command, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}
