// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the programs are made of, as CycloneDX has it, by cargo-cyclonedx.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::Date;
use super::programs::HOST;
use crate::build::run;
use crate::cargo_tool::CargoTool;

const TOOL: CargoTool = CargoTool { name: "cargo-cyclonedx", version: "0.5.9" };

/// Folders of the programs' packages, in the order of [`HOST`].
const FOLDERS: [&str; HOST.len()] = ["vhost-zcache", "admin", "zcachectl"];

pub(super) fn write(date: &Date, directory: &Path) -> Result<()> {
    let Some(tool) = TOOL.find_or_install()? else {
        bail!("{} {} is not here and cannot be installed without a network", TOOL.name, TOOL.version);
    };
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).canonicalize()?;
    for (program, folder) in HOST.iter().zip(FOLDERS) {
        let name = format!("{program}.cdx");
        run(Command::new(&tool)
            .args(["cyclonedx", "--quiet", "--format", "json", "--override-filename", &name, "--manifest-path"])
            .arg(workspace.join(folder).join("Cargo.toml"))
            .env("SOURCE_DATE_EPOCH", &date.epoch))?;
        // It can write to nowhere but beside the manifest, and names the machine's folders.
        let written = workspace.join(folder).join(format!("{name}.json"));
        let text = fs::read_to_string(&written)?.replace(&workspace.display().to_string(), "/vhost-zcache");
        fs::remove_file(&written)?;
        fs::write(directory.join(format!("{name}.json")), text)?;
    }
    Ok(())
}
