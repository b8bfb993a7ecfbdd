// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A Debian package: a tree of files, what dpkg is told about it, and `dpkg-deb`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::Date;
use crate::build::run;

/// A package that is being made.
pub(super) struct Package {
    tree: TempDir,
}

impl Package {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { tree: tempfile::tempdir()? })
    }

    /// A file of this content.
    pub(super) fn file(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let to = self.tree.path().join(path);
        let parent = to.parent().context("A file of a package is in a folder")?;
        fs::create_dir_all(parent)?;
        fs::write(&to, content).with_context(|| format!("Cannot write {}", to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    /// A copy of a file.
    pub(super) fn copy(&self, path: &str, from: &Path, mode: u32) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("Cannot read {}", from.display()))?;
        self.file(path, content, mode)
    }

    /// A file of this content, compressed.
    pub(super) fn compressed(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.file(path, content, 0o644)?;
        run(Command::new("gzip").args(["-9", "--no-name"]).arg(self.tree.path().join(path)))
    }

    /// Libraries that its programs need, as a package's `Depends:` has them.
    pub(super) fn libraries(&self) -> Result<String> {
        // It wants the source package's description where it is called.
        let source = tempfile::tempdir()?;
        fs::create_dir(source.path().join("debian"))?;
        fs::write(
            source.path().join("debian/control"),
            "Source: vhost-zcache\n\nPackage: vhost-zcache\nArchitecture: any\n",
        )?;
        let mut command = Command::new("dpkg-shlibdeps");
        command.args(["-O", "--ignore-missing-info"]).current_dir(source.path());
        for entry in fs::read_dir(self.tree.path().join("usr/bin"))? {
            command.arg(entry?.path());
        }
        let output = command.output().context("Cannot start dpkg-shlibdeps (package dpkg-dev)")?;
        ensure!(output.status.success(), "dpkg-shlibdeps: {}", String::from_utf8_lossy(&output.stderr));
        let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(line.strip_prefix("shlibs:Depends=").context("dpkg-shlibdeps names no libraries")?.to_owned())
    }

    /// Builds it into a folder.
    pub(super) fn build(self, date: &Date, directory: &Path) -> Result<()> {
        let tree = self.tree.path();
        let mut sums = Command::new("md5sum");
        sums.current_dir(tree);
        for path in files(tree, tree)? {
            sums.arg(path);
        }
        let output = sums.output()?;
        ensure!(output.status.success(), "md5sum: {}", String::from_utf8_lossy(&output.stderr));
        self.file("DEBIAN/md5sums", output.stdout, 0o644)?;
        fs::set_permissions(tree, fs::Permissions::from_mode(0o755))?;
        run(Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", "-Zxz"])
            .arg(tree)
            .arg(directory)
            .env("SOURCE_DATE_EPOCH", &date.epoch)
            .stdout(std::process::Stdio::null()))
    }
}

/// Files below a folder, as seen from the tree, but for what dpkg is told.
fn files(tree: &Path, folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path == tree.join("DEBIAN") {
            continue;
        }
        if path.is_dir() {
            all.extend(files(tree, &path)?);
        } else {
            all.push(path.strip_prefix(tree)?.to_owned());
        }
    }
    all.sort();
    Ok(all)
}
