// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernels that Debian ships, unmodified, with what modules are built for them with.
//!
//! Headers, compiler and the helpers of kbuild are those of the kernel's own release, so
//! the driver is compiled as DKMS would do it there. The programs are made to run on any
//! machine by naming that release's dynamic linker and libraries in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kernel, initrd};
use crate::apt::{self, AptRoot, Repository, Suite};
use crate::cache::{Artefact, Cache, Key, Leftovers};
use crate::error::{Error, IoContext as _, Result};
use crate::tools::Tools;
use crate::{command, host, linked, squashfs};

const BOOKWORM: Suite = Suite { repository: Repository::Main, name: "bookworm" };
const TRIXIE: Suite = Suite { repository: Repository::Main, name: "trixie" };
const BACKPORTS: Suite = Suite { repository: Repository::Main, name: "trixie-backports" };

const PACKAGES: &[&str] = &["linux-image-amd64", "linux-headers-amd64", "kmod", "busybox-static"];

/// How the names of packages begin that are needed of all that these depend on.
const NEEDED: &[&str] = &["linux-", "gcc-", "cpp-", "binutils", "pahole", "lib", "zlib1g", "kmod", "busybox-static"];

/// Folders and modules of `/lib/modules/RELEASE/kernel` that guests have, and what they depend on.
const MODULES: &[&str] = &[
    "arch/x86/crypto/",
    "crypto/",
    "drivers/block/",
    "drivers/char/hw_random/virtio-rng.ko",
    "drivers/char/virtio_console.ko",
    "drivers/md/",
    "drivers/virtio/",
    "fs/btrfs/",
    "fs/configfs/",
    "fs/erofs/",
    "fs/ext4/",
    "fs/f2fs/",
    "fs/fat/",
    "fs/fuse/",
    "fs/nls/",
    "fs/overlayfs/",
    "fs/squashfs/",
    "fs/xfs/",
    "lib/",
    "mm/",
];

/// What the root disk needs, loaded before it is mounted; some are built into some kernels.
const BEFORE_ROOT: &[&str] = &["virtio_pci", "virtio_blk", "squashfs", "overlay", "virtio_console", "virtio_rng"];

/// Where programs of a release are; the last two have the compiler's parts and the helpers of
/// kbuild.
const PROGRAM_DIRS: &[&str] = &["bin", "sbin", "usr/bin", "usr/sbin", "usr/lib", "usr/libexec"];

/// The suites a kernel comes from, the preferred one first.
fn suites(kernel: Kernel) -> &'static [Suite] {
    match kernel {
        Kernel::Debian12 => &[BOOKWORM],
        Kernel::Debian13Backports => &[BACKPORTS, TRIXIE],
        _ => &[TRIXIE],
    }
}

/// Fetches kernel, headers and compiler and prepares them for use.
pub(super) fn get(cache: &Cache, kernel: Kernel) -> Result<Artefact> {
    let suites = suites(kernel);
    let mut inputs = vec![kernel.name(), initrd::INIT];
    inputs.extend(suites.iter().map(|suite| suite.name));
    inputs.extend([PACKAGES, NEEDED, MODULES, BEFORE_ROOT].concat());
    let name = format!("kernel-{kernel}");
    cache.artefact(&name, &Key::of(&inputs), Leftovers::Remove, |dir, progress| {
        host::require()?;
        let tools = Tools::get(cache)?;
        let log = dir.join("build.log");
        progress.step("fetching the distribution's kernel, headers and compiler (150 to 210 MB)");
        let apt = AptRoot::open(&cache.downloads(&name), suites, &log)?;
        let debs = apt.download_some(PACKAGES, |package| NEEDED.iter().any(|start| package.starts_with(start)))?;

        progress.step("unpacking");
        let root = dir.join("root");
        apt::extract(&debs, &root, &log)?;
        fs::remove_dir_all(root.join("usr/share")).while_doing("remove", &root.join("usr/share"))?;
        let release = release(&root)?;
        take_image(&root, &release, dir)?;
        relink_programs(&tools, &root, &log)?;
        relocate_headers(&root, &release, dir)?;

        progress.step("packing its modules");
        let all = Modules::of(&root, &release, &log)?;
        let stage = dir.join("modules");
        let kept = all.keep(&stage, &log)?;
        squashfs::pack(&tools, &stage.join("lib/modules"), &dir.join("modules.squashfs"), &log)?;
        let early: Vec<PathBuf> = kept.load_order(BEFORE_ROOT);
        initrd::pack(&busybox(&root), &early, &dir.join("initrd.img"))?;
        for part in [stage, all.folder] {
            fs::remove_dir_all(&part).while_doing("remove", &part)?;
        }
        Ok(apt::packages(&debs))
    })
}

/// What `uname -r` will say: the name of the only headers there are.
fn release(root: &Path) -> Result<String> {
    let folder = root.join("usr/src");
    for entry in fs::read_dir(&folder).while_doing("read", &folder)? {
        let name = entry.while_doing("read", &folder)?.file_name().to_string_lossy().into_owned();
        if let Some(release) = name.strip_prefix("linux-headers-").filter(|release| release.ends_with("-amd64")) {
            return Ok(release.to_owned());
        }
    }
    Err(Error::Damaged { path: folder, reason: "no kernel headers".to_owned() })
}

/// Newer packages have the image beside the modules.
fn take_image(root: &Path, release: &str, dir: &Path) -> Result<()> {
    let old = root.join(format!("boot/vmlinuz-{release}"));
    let image = if old.exists() { old } else { modules_folder(root, release).join("vmlinuz") };
    let target = dir.join("vmlinuz");
    fs::copy(&image, &target).while_doing("copy", &image).map(drop)
}

fn modules_folder(root: &Path, release: &str) -> PathBuf {
    let merged = root.join("usr/lib/modules").join(release);
    if merged.exists() { merged } else { root.join("lib/modules").join(release) }
}

fn busybox(root: &Path) -> PathBuf {
    let merged = root.join("usr/bin/busybox");
    if merged.exists() { merged } else { root.join("bin/busybox") }
}

/// Names the release's own dynamic linker and libraries in its programs.
fn relink_programs(tools: &Tools, root: &Path, log: &Path) -> Result<()> {
    let loader = linked::loader(root);
    let libraries = linked::library_path(root);
    for dir in PROGRAM_DIRS {
        for program in linked::dynamic_programs(&root.join(dir))? {
            let mut patchelf = tools.patchelf();
            patchelf.arg("--set-interpreter").arg(&loader).args(["--force-rpath", "--set-rpath"]).arg(&libraries);
            command::run(patchelf.arg(&program), log)?;
        }
    }
    Ok(())
}

/// Headers find their other half by absolute path.
fn relocate_headers(root: &Path, release: &str, dir: &Path) -> Result<()> {
    let headers = root.join(format!("usr/src/linux-headers-{release}"));
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile).while_doing("read", &makefile)?;
    let text = text.replace("/usr/src/", &format!("{}/usr/src/", root.display()));
    fs::write(&makefile, text).while_doing("write", &makefile)?;
    let link = dir.join("build");
    symlink(&headers, &link).while_doing("create", &link)
}

/// The modules of one release in one folder, and what they depend on.
struct Modules {
    /// `.../lib/modules/RELEASE`.
    folder: PathBuf,
    release: String,
    depmod: PathBuf,
    /// By path below `folder`; what has to be loaded last comes first.
    dependencies: BTreeMap<String, Vec<String>>,
}

impl Modules {
    fn of(root: &Path, release: &str, log: &Path) -> Result<Self> {
        let folder = modules_folder(root, release);
        // depmod looks below lib/modules only.
        let merged = root.join("lib");
        if !merged.exists() {
            symlink("usr/lib", &merged).while_doing("create", &merged)?;
        }
        let depmod = ["usr/bin/kmod", "bin/kmod"].map(|path| root.join(path)).into_iter().find(|path| path.exists());
        let depmod = depmod.ok_or_else(|| Error::Damaged { path: root.to_owned(), reason: "no kmod".to_owned() })?;
        Self::read(root, folder, release, &depmod, log)
    }

    fn read(base: &Path, folder: PathBuf, release: &str, depmod: &Path, log: &Path) -> Result<Self> {
        let mut command = Command::new(depmod);
        command::run(command.arg0("depmod").arg("-b").arg(base).arg(release), log)?;
        let list = folder.join("modules.dep");
        let text = fs::read_to_string(&list).while_doing("read", &list)?;
        let dependencies = text.lines().filter_map(|line| {
            let (module, needs) = line.split_once(':')?;
            Some((module.to_owned(), needs.split_whitespace().map(str::to_owned).collect()))
        });
        Ok(Self {
            dependencies: dependencies.collect(),
            folder,
            release: release.to_owned(),
            depmod: depmod.to_owned(),
        })
    }

    /// Copies what guests need to `stage`, uncompressed.
    fn keep(&self, stage: &Path, log: &Path) -> Result<Self> {
        let folder = stage.join("lib/modules").join(&self.release);
        let mut kept = BTreeSet::new();
        for (module, needs) in &self.dependencies {
            let inner = module.strip_prefix("kernel/").unwrap_or(module);
            if MODULES.iter().any(|wanted| inner.starts_with(wanted)) {
                kept.insert(module);
                kept.extend(needs);
            }
        }
        for module in kept {
            let target = folder.join(module);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).while_doing("create", parent)?;
            }
            fs::copy(self.folder.join(module), &target).while_doing("copy", &target)?;
            if module.ends_with(".xz") {
                command::run(Command::new("xz").arg("--decompress").arg(&target), log)?;
            }
        }
        for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            let from = self.folder.join(list);
            fs::copy(&from, folder.join(list)).while_doing("copy", &from)?;
        }
        Self::read(stage, folder, &self.release, &self.depmod, log)
    }

    /// The files of these modules and of all they depend on, each after what it needs. A module
    /// that is missing is built into this kernel.
    fn load_order(&self, names: &[&str]) -> Vec<PathBuf> {
        let mut order: Vec<PathBuf> = Vec::new();
        for name in names {
            let file = format!("/{name}.ko");
            let Some((module, needs)) = self.dependencies.iter().find(|(path, _)| path.ends_with(&file)) else {
                continue;
            };
            for path in needs.iter().rev().chain([module]) {
                let path = self.folder.join(path);
                if !order.contains(&path) {
                    order.push(path);
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let dependencies = BTreeMap::from([
            (
                "kernel/v/virtio_blk.ko".to_owned(),
                vec!["kernel/v/virtio_ring.ko".to_owned(), "kernel/v/virtio.ko".to_owned()],
            ),
            ("kernel/v/virtio_pci.ko".to_owned(), vec!["kernel/v/virtio.ko".to_owned()]),
        ]);
        let modules = Modules { folder: "/m".into(), release: String::new(), depmod: PathBuf::new(), dependencies };
        let order = modules.load_order(&["virtio_pci", "overlay", "virtio_blk"]);
        let expected = ["virtio", "virtio_pci", "virtio_ring", "virtio_blk"];
        assert_eq!(order, expected.map(|name| PathBuf::from(format!("/m/kernel/v/{name}.ko"))));
    }
}
