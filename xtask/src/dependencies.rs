// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Licences, sources and duplicates of the dependencies, by cargo-deny and `deny.toml`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use zcache_images::Images;

use crate::build::{cargo, run};

/// The version that is installed where there is none.
const VERSION: &str = "0.20.2";

/// Runs cargo-deny. Where it can be neither found nor installed, says so.
pub(crate) fn check() -> Result<()> {
    let Some(program) = find_or_install()? else {
        println!("   skipped: cargo-deny {VERSION} is not here and cannot be installed without a network");
        return Ok(());
    };
    // Advisories change under an unchanged tree and need a network: not for this test.
    run(Command::new(program).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args([
        "--offline",
        "--log-level",
        "error",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))
}

fn find_or_install() -> Result<Option<PathBuf>> {
    if answers(Path::new("cargo-deny")) {
        return Ok(Some(PathBuf::from("cargo-deny")));
    }
    let root = Images::open()?.dir().join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if answers(&program) {
        return Ok(Some(program));
    }
    println!("   installing cargo-deny {VERSION}");
    let installed = cargo()
        .args(["install", "--quiet", "--debug", "--locked", "cargo-deny", "--version", VERSION, "--root"])
        .arg(&root)
        // It shares nothing with this workspace's build.
        .env_remove("CARGO_TARGET_DIR")
        .status()?;
    Ok(installed.success().then_some(program))
}

fn answers(program: &Path) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
