// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Build tools from a private apt root, so that the machine needs only a C toolchain.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{self, AptRoot, Repository, Suite};
use crate::cache::{Cache, Key, Leftovers};
use crate::error::{IoContext as _, Result};
use crate::{host, linked};

const SUITES: &[Suite] = &[Suite { repository: Repository::Main, name: "bookworm" }];
const PACKAGES: &[&str] = &[
    "bc",
    "bison",
    "flex",
    "libelf-dev",
    "lz4",
    "m4",
    "patchelf",
    "sparse",
    "squashfs-tools",
    "xz-utils",
    "zlib1g-dev",
    "zstd",
];
const PROGRAMS: &[&str] = &["bc", "bison", "flex", "lz4", "m4", "mksquashfs", "patchelf", "sparse", "xz", "zstd"];

/// Libraries that build tools of the kernel are linked with.
const STATIC_LIBRARIES: &[&str] = &["libelf.a", "libz.a"];

/// The tools' folder.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    dir: PathBuf,
}

impl Tools {
    pub(crate) fn get(cache: &Cache) -> Result<Self> {
        let mut inputs = PACKAGES.to_vec();
        inputs.extend(PROGRAMS);
        let artefact = cache.artefact("tools", &Key::of(&inputs), Leftovers::Remove, |dir, progress| {
            host::require()?;
            let log = dir.join("build.log");
            progress.step("fetching flex, bison, squashfs-tools and others");
            let apt = AptRoot::open(&cache.downloads("tools"), SUITES, &log)?;
            let debs = apt.download(PACKAGES)?;
            let root = dir.join("root");
            apt::extract(&debs, &root, &log)?;
            remove_documentation(&root)?;
            gather_static_libraries(dir)?;
            write_wrappers(dir)?;
            Ok(apt::packages(&debs))
        })?;
        Ok(Self { dir: artefact.dir })
    }

    pub(crate) fn mksquashfs(&self) -> Command {
        self.program("mksquashfs")
    }

    pub(crate) fn patchelf(&self) -> Command {
        self.program("patchelf")
    }

    pub(crate) fn xz(&self) -> Command {
        self.program("xz")
    }

    pub(crate) fn zstd(&self) -> Command {
        self.program("zstd")
    }

    fn program(&self, name: &str) -> Command {
        Command::new(self.dir.join("bin").join(name))
    }

    /// A `make` that finds these tools, and before the machine's own programs those of
    /// `compiler`. The libraries for tools which the kernel's build compiles for itself come
    /// after the machine's own.
    pub(crate) fn make(&self, compiler: Option<&Path>) -> Command {
        let mut path = OsString::from(self.dir.join("bin"));
        path.push(":");
        if let Some(compiler) = compiler {
            path.push(compiler);
            path.push(":");
        }
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let root = self.dir.join("root");
        let mut make = Command::new("make");
        make.env("PATH", path)
            .env("LC_ALL", "C")
            .env("M4", self.dir.join("bin/m4"))
            .env("BISON_PKGDATADIR", root.join("usr/share/bison"))
            .env_remove("MAKEFLAGS")
            .env_remove("CFLAGS")
            .env_remove("LDFLAGS")
            .arg(format!("HOSTCFLAGS=-idirafter {}", root.join("usr/include").display()))
            .arg(format!("HOSTLDFLAGS=-L{} -lz", self.dir.join("static").display()));
        make
    }
}

/// A folder with nothing but these libraries: the linker must not find the C library
/// that came along with them.
fn gather_static_libraries(dir: &Path) -> Result<()> {
    let target = dir.join("static");
    fs::create_dir_all(&target).while_doing("create", &target)?;
    for library in STATIC_LIBRARIES {
        let from = dir.join("root/usr/lib/x86_64-linux-gnu").join(library);
        fs::copy(&from, target.join(library)).while_doing("copy", &from)?;
    }
    Ok(())
}

/// The programs need their own release's libraries, hence its dynamic linker.
fn write_wrappers(dir: &Path) -> Result<()> {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).while_doing("create", &bin)?;
    let root = dir.join("root");
    for program in PROGRAMS {
        let script = format!(
            "#!/bin/sh\nexec '{loader}' --argv0 {program} --library-path '{libraries}' '{root}/usr/bin/{program}' \"$@\"\n",
            loader = linked::loader(&root).display(),
            libraries = linked::library_path(&root).display(),
            root = root.display(),
        );
        let path = bin.join(program);
        fs::write(&path, script).while_doing("write", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).while_doing("make executable", &path)?;
    }
    Ok(())
}

/// Drops what no program reads.
pub(crate) fn remove_documentation(root: &Path) -> Result<()> {
    for part in ["doc", "man", "info", "locale", "lintian", "bash-completion", "doc-base"] {
        let dir = root.join("usr/share").join(part);
        if dir.exists() {
            fs::remove_dir_all(&dir).while_doing("remove", &dir)?;
        }
    }
    Ok(())
}
