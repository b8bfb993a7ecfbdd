// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the programs are made of, as CycloneDX has it, by cargo-cyclonedx.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::Value;

use super::Date;
use super::programs::HOST;
use crate::build::{cargo, run};
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
        // It names the machine's folders.
        let name = format!("{name}.json");
        let text = fs::read_to_string(workspace.join(folder).join(&name))?;
        fs::write(directory.join(&name), text.replace(&workspace.display().to_string(), "/vhost-zcache"))?;
        remove_beside_manifests(&workspace, &name)?;
    }
    Ok(())
}

/// It can write to nowhere but beside manifests, and does so for packages of the workspace that the
/// program needs, too.
fn remove_beside_manifests(workspace: &Path, name: &str) -> Result<()> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version=1"]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let manifests = metadata["packages"].as_array().into_iter().flatten().filter_map(|it| it["manifest_path"].as_str());
    for folder in manifests.filter_map(|path| Path::new(path).parent()).chain([workspace]) {
        let path = folder.join(name);
        if path.exists() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
