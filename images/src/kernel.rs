// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest kernels. One recipe per file under `kernel/`.

mod classic;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cache::{Artefact, Cache, Key, Package};
use crate::error::{IoContext as _, Result};

/// A kernel that guests can be booted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Linux 5.10 with cleancache and frontswap.
    Classic,
    /// The same with KASAN, lockdep and other checks. These keep about 110 MiB of a
    /// 384 MiB guest to themselves, and make it several times slower.
    ClassicDebug,
}

impl Kernel {
    /// All kernels there are recipes for.
    pub const ALL: &[Self] = &[Self::Classic, Self::ClassicDebug];

    /// The name used on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::ClassicDebug => "classic-debug",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is none of [`Kernel::ALL`].
#[derive(Debug, thiserror::Error)]
#[error("there is no kernel {0:?}; known are classic and classic-debug")]
pub struct UnknownKernel(String);

impl FromStr for Kernel {
    type Err = UnknownKernel;

    fn from_str(name: &str) -> std::result::Result<Self, UnknownKernel> {
        Self::ALL.iter().copied().find(|kernel| kernel.name() == name).ok_or_else(|| UnknownKernel(name.to_owned()))
    }
}

/// A kernel in the cache.
#[derive(Debug, Clone)]
pub struct BuiltKernel {
    kernel: Kernel,
    dir: PathBuf,
    key: Key,
    packages: Vec<Package>,
}

impl BuiltKernel {
    /// Which one this is.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// For QEMU's `-kernel`.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.build_tree().join("arch/x86/boot/bzImage")
    }

    /// For `make -C`, to build modules.
    #[must_use]
    pub fn build_tree(&self) -> PathBuf {
        self.dir.join("build")
    }

    /// The configuration it was built with.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.build_tree().join(".config")
    }

    /// What `uname -r` says in the guest.
    pub fn release(&self) -> Result<String> {
        let path = self.build_tree().join("include/config/kernel.release");
        let text = fs::read_to_string(&path).while_doing("read", &path)?;
        Ok(text.trim().to_owned())
    }

    /// The distribution packages it was built from.
    #[must_use]
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn get(cache: &Cache, kernel: Kernel) -> Result<Self> {
        let Artefact { dir, key, manifest } = match kernel {
            Kernel::Classic => classic::get(cache, kernel, &[])?,
            Kernel::ClassicDebug => classic::get(cache, kernel, &[classic::DEBUG])?,
        };
        Ok(Self { kernel, dir, key, packages: manifest.packages })
    }
}

/// Removes what neither booting nor building modules needs: about half of the tree.
fn remove_objects(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).while_doing("read", dir)? {
        let entry = entry.while_doing("read", dir)?;
        let path = entry.path();
        if entry.file_type().while_doing("read", dir)?.is_dir() {
            remove_objects(&path)?;
            continue;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if [".o", ".a", ".o.cmd", ".a.cmd", ".mod.c"].iter().any(|end| name.ends_with(end)) {
            fs::remove_file(&path).while_doing("remove", &path)?;
        }
    }
    Ok(())
}
