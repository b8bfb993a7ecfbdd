// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's package: daemon, programs beside it, units, configuration, documents.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::package::Package;
use super::programs::{HOST, Programs};
use super::{Date, VERSION};
use crate::manual;

const DOCUMENTS: &str = "usr/share/doc/vhost-zcache";

pub(super) fn package(programs: &Programs, date: &Date, directory: &Path) -> Result<()> {
    let package = Package::new()?;
    for program in HOST {
        package.copy(&format!("usr/bin/{program}"), &programs.of(program), 0o755)?;
    }
    for unit in documents_of(&["service", "socket"])? {
        package.copy(&format!("usr/lib/systemd/system/{}", name(&unit)?), &unit, 0o644)?;
    }
    package.copy("usr/lib/sysusers.d/vhost-zcache.conf", &source("packaging/sysusers.conf"), 0o644)?;
    package.copy("etc/vhost-zcache.toml", &source("packaging/vhost-zcache.toml"), 0o644)?;
    package.file("DEBIAN/conffiles", "/etc/vhost-zcache.toml\n", 0o644)?;
    pages(&package)?;
    documents(&package, date)?;
    for script in ["postinst", "prerm", "postrm"] {
        package.copy(&format!("DEBIAN/{script}"), &source(&format!("packaging/{script}")), 0o755)?;
    }
    let control = read("packaging/control")?.replace("@VERSION@", VERSION).replace("@DEPENDS@", &package.libraries()?);
    package.file("DEBIAN/control", control, 0o644)?;
    package.build(date, directory)
}

/// Man pages, and completions for shells.
fn pages(package: &Package) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for path in manual::write(folder.path())? {
        let name = name(&path)?;
        let content = fs::read(&path)?;
        match Path::new(&name).extension().and_then(|end| end.to_str()) {
            Some("8") => package.compressed(&format!("usr/share/man/man8/{name}"), content)?,
            Some("bash") => {
                let program = name.trim_end_matches(".bash");
                package.file(&format!("usr/share/bash-completion/completions/{program}"), content, 0o644)?;
            }
            Some("fish") => package.file(&format!("usr/share/fish/vendor_completions.d/{name}"), content, 0o644)?,
            None => package.file(&format!("usr/share/zsh/vendor-completions/{name}"), content, 0o644)?,
            // Shells that Debian has no place for.
            Some(_) => {}
        }
    }
    Ok(())
}

fn documents(package: &Package, date: &Date) -> Result<()> {
    package.copy(&format!("{DOCUMENTS}/copyright"), &source("packaging/copyright"), 0o644)?;
    let changelog = read("packaging/changelog")?.replace("@VERSION@", VERSION).replace("@DATE@", &date.rfc_2822);
    package.compressed(&format!("{DOCUMENTS}/changelog"), changelog)?;
    package.compressed(&format!("{DOCUMENTS}/CHANGELOG.md"), read("CHANGELOG.md")?)?;
    package.compressed(&format!("{DOCUMENTS}/README.md"), read("README.md")?)?;
    for path in documents_of(&["md"])? {
        package.compressed(&format!("{DOCUMENTS}/docs/{}", name(&path)?), fs::read(&path)?)?;
    }
    Ok(())
}

/// Files among the documents, by the ends of their names.
fn documents_of(ends: &[&str]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(source("docs"))? {
        let path = entry?.path();
        if path.extension().and_then(|end| end.to_str()).is_some_and(|end| ends.contains(&end)) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn name(path: &Path) -> Result<String> {
    Ok(path.file_name().context("A file has a name")?.to_string_lossy().into_owned())
}

/// A file of the project's tree.
fn source(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

fn read(path: &str) -> Result<String> {
    let path = source(path);
    fs::read_to_string(&path).with_context(|| format!("Cannot read {}", path.display()))
}
