// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernels that are compiled for and not booted: a source, or the headers that a distribution
//! packages, in a folder that somebody has put there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::cache::{Cache, Key, Leftovers};
use crate::command;
use crate::error::{Error, IoContext as _, Result};
use crate::kernel::{CLASSIC, STOCK, merge};
use crate::modules::{self, Target};
use crate::tools::Tools;

/// Where [`KernelTree::all`] looks, within the cache.
const FOLDER: &str = "trees";

/// The driver's modules, by their place in its folder.
const MODULES: [&str; 4] = ["core/zcache.o", "transport/zcache_virtio.o", "swapdisk/zcache_swap.o", "dm/dm-zcache.o"];

/// The folders of [`MODULES`], as targets of make: they are compiled, and that is all. Tools of
/// another distribution may not run here, and a source has no list of what it exports.
const COMPILE: [&str; 4] = ["core/", "transport/", "swapdisk/", "dm/"];

/// A kernel's source, or its headers.
#[derive(Debug, Clone)]
pub struct KernelTree {
    dir: PathBuf,
    version: String,
}

impl KernelTree {
    /// The tree in a folder: what `make -C` takes to build modules, or a source as it is published.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = fs::canonicalize(dir).while_doing("open", dir)?;
        let makefile = dir.join("Makefile");
        let text = fs::read_to_string(&makefile).while_doing("read", &makefile)?;
        // Some headers have another's Makefile included; their name of the release begins alike.
        let release = fs::read_to_string(dir.join("include/config/kernel.release")).unwrap_or_default();
        let version = minor_version(&text).or_else(|| {
            let mut parts = release.trim().split('.');
            Some(format!("{}.{}", parts.next()?, parts.next()?))
        });
        let version = version.ok_or_else(|| Error::Damaged { path: makefile, reason: "no version".to_owned() })?;
        Ok(Self { dir, version })
    }

    /// The trees in the cache's folder `trees`.
    pub(crate) fn all(cache: &Cache) -> Result<Vec<Self>> {
        let folder = cache.root().join(FOLDER);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut dirs = Vec::new();
        for entry in fs::read_dir(&folder).while_doing("read", &folder)? {
            dirs.push(entry.while_doing("read", &folder)?.path());
        }
        dirs.sort();
        dirs.iter().filter(|dir| dir.join("Makefile").exists()).map(|dir| Self::open(dir)).collect()
    }

    /// Its version's first two numbers.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The folder it is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Compiles the driver in `driver` for it. Warnings of the compiler are errors, as is a symbol
    /// that is not exported where the tree says what is.
    pub(crate) fn compile(&self, cache: &Cache, driver: &Path) -> Result<()> {
        let tree = if is_configured(&self.dir) { self.dir.clone() } else { self.configure(cache)? };
        let mut make: Vec<String> =
            ["ARCH=x86_64", "CROSS_COMPILE=", "CONFIG_MODVERSIONS=", "objtool=/bin/true", "OBJTOOL=/bin/true"]
                .map(str::to_owned)
                .into();
        // The compiler that the headers are for may be newer than what is here.
        make.push("CC=gcc".to_owned());
        make.push("KCFLAGS=-Werror -Wno-error=attribute-alias".to_owned());
        make.extend(COMPILE.map(str::to_owned));
        let target = Target {
            name: format!("modules-tree-{}", self.version),
            key: self.key(),
            tree: tree.clone(),
            compiler: None,
            make,
        };
        modules::build(cache, &target, driver, |build| check_symbols(&tree, &build.driver)).map(drop)
    }

    /// Configures a source elsewhere, as far as modules need it.
    fn configure(&self, cache: &Cache) -> Result<PathBuf> {
        let name = format!("tree-{}", self.version);
        let artefact = cache.artefact(&name, &self.key(), Leftovers::Remove, |dir, progress| {
            let tools = Tools::get(cache)?;
            let log = dir.join("build.log");
            let build = dir.join("build");
            fs::create_dir_all(&build).while_doing("create", &build)?;
            let fragment = dir.join("fragment.config");
            fs::write(&fragment, merge(&[CLASSIC, STOCK]).join("\n") + "\n").while_doing("write", &fragment)?;
            let make = || {
                let mut make = tools.make(None);
                make.arg("-C").arg(&self.dir).arg(format!("O={}", build.display()));
                make.args(["ARCH=x86_64", "CROSS_COMPILE="]);
                make
            };
            progress.step("configuring");
            command::run(make().env("KCONFIG_ALLCONFIG", &fragment).arg("allnoconfig"), &log)?;
            progress.step("preparing for modules");
            let jobs = thread::available_parallelism().map_or(1, usize::from);
            command::run(make().args(["-s", &format!("-j{jobs}"), "modules_prepare"]), &log)?;
            Ok(Vec::new())
        })?;
        Ok(artefact.dir.join("build"))
    }

    /// A tree is known by its place, and by what is new in every release.
    fn key(&self) -> Key {
        let file = |name: &str| fs::read(self.dir.join(name)).unwrap_or_default();
        Key::of(&[
            self.dir.as_os_str().as_encoded_bytes().to_vec(),
            file("Makefile"),
            file(".config"),
            file("include/config/kernel.release"),
            CLASSIC.into(),
            STOCK.into(),
        ])
    }
}

fn is_configured(dir: &Path) -> bool {
    dir.join("include/config/auto.conf").exists()
}

/// The first two numbers of the version that a kernel's Makefile has in its first lines.
fn minor_version(makefile: &str) -> Option<String> {
    let value = |name: &str| {
        let line = makefile.lines().take(10).find_map(|line| line.strip_prefix(name)?.trim().strip_prefix('='));
        Some(line?.trim().to_owned())
    };
    Some(format!("{}.{}", value("VERSION")?, value("PATCHLEVEL")?))
}

/// Fails when a module needs what neither the kernel nor another one exports.
fn check_symbols(tree: &Path, driver: &Path) -> Result<()> {
    let Ok(list) = fs::read_to_string(tree.join("Module.symvers")) else { return Ok(()) };
    let mut known: BTreeSet<&str> = list.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    // This and checksums come with the last step, which makes the module of its parts.
    known.insert("__this_module");
    let modules: Vec<PathBuf> = MODULES.iter().map(|name| driver.join(name)).filter(|path| path.exists()).collect();
    let nm = |which: &str| command::output(Command::new("nm").args(["--format=posix", which]).args(&modules));
    let (defined, needed) = (nm("--defined-only")?, nm("--undefined-only")?);
    let name = |line: &'_ str| line.split(' ').next().filter(|name| !name.ends_with(':')).map(str::to_owned);
    let defined: Vec<String> = defined.lines().filter_map(name).collect();
    known.extend(defined.iter().map(String::as_str));
    let missing: BTreeSet<String> = needed
        .lines()
        .filter_map(name)
        .filter(|name| !known.contains(name.as_str()) && !name.starts_with("__crc_"))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::NotExported(missing.into_iter().collect::<Vec<_>>().join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_makefile_says_which_version_it_is() {
        let makefile = "# SPDX-License-Identifier: GPL-2.0\nVERSION = 6\nPATCHLEVEL = 10\nSUBLEVEL = 3\n";
        assert_eq!(minor_version(makefile).as_deref(), Some("6.10"));
        assert_eq!(minor_version("include /usr/src/other/Makefile\n"), None);
    }

    #[test]
    fn headers_that_include_another_makefile_have_a_release() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = dir.path().join("include/config");
        fs::create_dir_all(&config).expect("a folder");
        fs::write(dir.path().join("Makefile"), "include /elsewhere/Makefile\n").expect("a file");
        fs::write(config.join("kernel.release"), "7.2.12+deb13-amd64\n").expect("a file");
        assert_eq!(KernelTree::open(dir.path()).expect("a tree").version(), "7.2");
    }
}
