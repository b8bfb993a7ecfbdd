// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What makes disk images, from Debian 13: the machine's own `mke2fs` need not read archives.

use std::path::PathBuf;
use std::process::Command;

use crate::apt::{self, AptRoot, Repository, Suite};
use crate::cache::{Cache, Key, Leftovers};
use crate::error::Result;
use crate::{host, linked, tools};

const SUITES: &[Suite] = &[Suite { repository: Repository::Main, name: "trixie" }];
const PACKAGES: &[&str] = &["e2fsprogs", "libarchive13t64", "mmdebstrap", "qemu-utils"];

/// How the names of packages begin that are needed of all that these depend on.
const NEEDED: &[&str] = &["e2fsprogs", "lib", "mmdebstrap", "qemu-utils", "zlib1g"];

/// Programs for disk images.
#[derive(Debug, Clone)]
pub(super) struct DiskTools {
    root: PathBuf,
}

impl DiskTools {
    pub(super) fn get(cache: &Cache) -> Result<Self> {
        let inputs = [PACKAGES, NEEDED].concat();
        let artefact = cache.artefact("disk-tools", &Key::of(&inputs), Leftovers::Remove, |dir, progress| {
            host::require()?;
            let log = dir.join("build.log");
            progress.step("fetching mmdebstrap, e2fsprogs and qemu-img");
            let apt = AptRoot::open(&cache.downloads("disk-tools"), SUITES, &log)?;
            let debs = apt.download_some(PACKAGES, |package| NEEDED.iter().any(|start| package.starts_with(start)))?;
            let root = dir.join("root");
            apt::extract(&debs, &root, &log)?;
            tools::remove_documentation(&root)?;
            Ok(apt::packages(&debs))
        })?;
        Ok(Self { root: artefact.dir.join("root") })
    }

    /// Installs Debian into an archive. A script for the machine's own Perl and apt.
    pub(super) fn mmdebstrap(&self) -> Command {
        let mut command = Command::new("perl");
        command.arg(self.root.join("usr/bin/mmdebstrap"));
        command
    }

    /// The folder with the hooks that mmdebstrap brings.
    pub(super) fn mmdebstrap_hooks(&self) -> PathBuf {
        self.root.join("usr/share/mmdebstrap/hooks")
    }

    pub(super) fn mke2fs(&self) -> Command {
        let mut command = self.program("usr/sbin/mke2fs");
        command.env("MKE2FS_CONFIG", self.root.join("etc/mke2fs.conf"));
        command
    }

    pub(super) fn qemu_img(&self) -> Command {
        self.program("usr/bin/qemu-img")
    }

    fn program(&self, path: &str) -> Command {
        let mut command = Command::new(linked::loader(&self.root));
        command.arg("--library-path").arg(linked::library_path(&self.root)).arg(self.root.join(path));
        command
    }
}
