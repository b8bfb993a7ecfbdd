// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs as they are packaged: without symbols, and without paths of the machine.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};

use crate::build::{cargo, run};

/// Programs of the host.
pub(super) const HOST: [&str; 3] = ["vhost-zcache", "zcache-admin", "zcachectl"];

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Where they are.
pub(super) struct Programs(PathBuf);

impl Programs {
    /// The file of one.
    pub(super) fn of(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

pub(super) fn build() -> Result<Programs> {
    let workspace = Path::new(WORKSPACE).canonicalize()?;
    // Other flags than usual, so the programs that tests use stay as they are.
    let target = workspace.join("target/dist-build");
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))).context("There is no home directory")?;
    let flags = format!(
        "--remap-path-prefix={}=vhost-zcache --remap-path-prefix={}=cargo -Cstrip=symbols",
        workspace.display(),
        home.display()
    );
    let mut command = cargo();
    command.args(["build", "--quiet", "--release", "--locked"]);
    for program in HOST {
        command.args(["--package", program]);
    }
    run(command.env("RUSTFLAGS", &flags).env("CARGO_TARGET_DIR", &target))?;
    run(cargo().arg("zcachesetup").env("RUSTFLAGS", &flags).env("CARGO_TARGET_DIR", &target))?;
    let programs = target.join("programs");
    fs::create_dir_all(&programs)?;
    for program in HOST {
        fs::copy(target.join("release").join(program), programs.join(program))?;
    }
    fs::copy(target.join("guest-tool/zcachesetup"), programs.join("zcachesetup"))?;
    Ok(Programs(programs))
}
