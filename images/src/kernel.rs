// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest kernels. One recipe per file under `kernel/`.

mod debian;
mod initrd;
mod source;
mod unpacked;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub(crate) use source::{CLASSIC, STOCK, merge};

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
    /// Debian 12's own, Linux 6.1.
    Debian12,
    /// Debian 13's own, Linux 6.12.
    Debian13,
    /// The newest that is packaged for Debian 13, from its backports.
    Debian13Backports,
    /// Debian 13's source with the checks of [`Kernel::ClassicDebug`] and a small configuration.
    Debian13Debug,
    /// The source of [`Kernel::Debian13Backports`] as a process of the host: user-mode Linux.
    Uml,
    /// The same with KASAN, lockdep and other checks.
    UmlDebug,
}

/// What runs a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vmm {
    /// A machine of QEMU's.
    Qemu,
    /// Nothing: the kernel is a program of the host, user-mode Linux.
    Uml,
}

impl Kernel {
    /// All kernels there are recipes for.
    pub const ALL: &[Self] = &[
        Self::Classic,
        Self::ClassicDebug,
        Self::Debian12,
        Self::Debian13,
        Self::Debian13Backports,
        Self::Debian13Debug,
        Self::Uml,
        Self::UmlDebug,
    ];

    /// The unmodified kernels of distributions.
    pub const STOCK: &[Self] = &[Self::Debian12, Self::Debian13, Self::Debian13Backports];

    /// The name used on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::ClassicDebug => "classic-debug",
            Self::Debian12 => "debian-12",
            Self::Debian13 => "debian-13",
            Self::Debian13Backports => "debian-13-backports",
            Self::Debian13Debug => "debian-13-debug",
            Self::Uml => "uml",
            Self::UmlDebug => "uml-debug",
        }
    }

    /// What runs it.
    #[must_use]
    pub fn vmm(self) -> Vmm {
        match self {
            Self::Uml | Self::UmlDebug => Vmm::Uml,
            _ => Vmm::Qemu,
        }
    }

    /// The value of kbuild's `ARCH`.
    pub(crate) fn arch(self) -> &'static str {
        match self.vmm() {
            Vmm::Qemu => "x86_64",
            Vmm::Uml => "um",
        }
    }

    /// Whether it has cleancache and frontswap.
    #[must_use]
    pub fn has_native_hooks(self) -> bool {
        matches!(self, Self::Classic | Self::ClassicDebug)
    }

    /// Whether it checks memory accesses and locks, and is several times slower for it.
    #[must_use]
    pub fn is_debug(self) -> bool {
        matches!(self, Self::ClassicDebug | Self::Debian13Debug | Self::UmlDebug)
    }

    /// Whether its build tree can run sparse: headers that are packaged for 7.x lack a script for
    /// it, and its source wants a newer one.
    pub(crate) fn has_sparse(self) -> bool {
        self != Self::Debian13Backports && self.vmm() != Vmm::Uml
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is none of [`Kernel::ALL`].
#[derive(Debug, thiserror::Error)]
#[error("there is no kernel {0:?}; known are {known}", known = Kernel::ALL.iter().map(|kernel| kernel.name()).collect::<Vec<_>>().join(", "))]
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

    /// For QEMU's `-kernel`, or the program that is the guest ([`Kernel::vmm`]).
    #[must_use]
    pub fn image(&self) -> PathBuf {
        match self.kernel.vmm() {
            Vmm::Qemu if self.is_packaged() => self.dir.join("vmlinuz"),
            Vmm::Qemu => self.build_tree().join("arch/x86/boot/bzImage"),
            Vmm::Uml => self.build_tree().join("linux"),
        }
    }

    /// For QEMU's `-kernel` as well: the same kernel, which needs not unpack itself first, if it is
    /// a distribution's.
    pub(crate) fn unpacked(&self, cache: &Cache) -> Result<PathBuf> {
        if self.is_packaged() { unpacked::get(cache, self) } else { Ok(self.image()) }
    }

    /// For QEMU's `-initrd`, if the root disk's driver is a module.
    #[must_use]
    pub fn initrd(&self) -> Option<PathBuf> {
        self.is_packaged().then(|| self.dir.join("initrd.img"))
    }

    /// An image of `/lib/modules`, if there are modules.
    #[must_use]
    pub fn modules_disk(&self) -> Option<PathBuf> {
        self.is_packaged().then(|| self.dir.join("modules.squashfs"))
    }

    /// The folder with the compiler that modules have to be built with, if it is not the machine's
    /// own.
    pub(crate) fn compiler(&self) -> Option<PathBuf> {
        self.is_packaged().then(|| self.dir.join("root/usr/bin"))
    }

    fn is_packaged(&self) -> bool {
        Kernel::STOCK.contains(&self.kernel)
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
            Kernel::Classic | Kernel::ClassicDebug | Kernel::Debian13Debug | Kernel::Uml | Kernel::UmlDebug => {
                source::get(cache, kernel)?
            }
            Kernel::Debian12 | Kernel::Debian13 | Kernel::Debian13Backports => debian::get(cache, kernel)?,
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
