// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Licences, sources and duplicates of the dependencies, by cargo-deny and `deny.toml`.

use std::process::Command;

use anyhow::Result;

use crate::build::run;
use crate::cargo_tool::CargoTool;

const TOOL: CargoTool = CargoTool { name: "cargo-deny", version: "0.20.2" };

/// Runs cargo-deny. Where it can be neither found nor installed, says so.
pub(crate) fn check() -> Result<()> {
    let Some(program) = TOOL.find_or_install()? else {
        println!("   skipped: {} {} is not here and cannot be installed without a network", TOOL.name, TOOL.version);
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
