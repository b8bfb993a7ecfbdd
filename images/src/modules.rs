// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest driver, built for one kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::cache::{Cache, Key, Leftovers};
use crate::error::{Error, IoContext as _, Result};
use crate::kernel::{BuiltKernel, Kernel};
use crate::tools::Tools;
use crate::{command, host};

/// The header shared with the host side, relative to the folder the driver's is in. The
/// copy keeps this layout, so one Kbuild file serves both places.
const SHARED_HEADERS: &str = "protocol/include";

/// Where the modules are in the end, each of which is built in a folder of its own.
const MODULES: &str = "modules";

/// What sparse is asked for: warnings, byte order included, end the build.
const SPARSE_FLAGS: &str = "CF=-D__CHECK_ENDIAN__ -Wsparse-error";

/// What is changed in the driver, so that a test can show that it would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Writes leave what the device has of their blocks.
    Invalidate,
    /// Pages are put whether or not they are what their block holds.
    Content,
    /// Nothing is wrong, but changes of blocks are followed up slowly, as are looks at swap disks.
    Dawdle,
    /// Nothing is wrong, but swap disks do as on a kernel that does not tell of freed slots.
    Notify,
}

impl Sabotage {
    /// The value of the driver's build variable.
    fn name(self) -> &'static str {
        match self {
            Self::Invalidate => "invalidate",
            Self::Content => "content",
            Self::Dawdle => "dawdle",
            Self::Notify => "notify",
        }
    }
}

/// The ways in which the driver is built besides, for what controls of tests boot.
fn controls(kernel: Kernel) -> &'static [Sabotage] {
    match kernel {
        Kernel::Debian13 => &[Sabotage::Invalidate, Sabotage::Content, Sabotage::Dawdle],
        Kernel::Uml => &[Sabotage::Invalidate, Sabotage::Content, Sabotage::Dawdle, Sabotage::Notify],
        _ => &[],
    }
}

/// What the driver is built for, and how.
pub(crate) struct Target {
    /// The artefact's name.
    pub(crate) name: String,
    /// What the kernel is.
    pub(crate) key: Key,
    pub(crate) tree: PathBuf,
    /// See [`BuiltKernel::compiler`].
    pub(crate) compiler: Option<PathBuf>,
    /// Arguments of make, what it is to make included.
    pub(crate) make: Vec<String>,
}

/// Builds the driver and returns the folder its `.ko` files are in. Warnings of the compiler and
/// of sparse are errors.
pub(crate) fn get(cache: &Cache, kernel: &BuiltKernel, driver: &Path, sabotage: Option<Sabotage>) -> Result<PathBuf> {
    let controls = controls(kernel.kernel());
    if let Some(sabotage) = sabotage
        && !controls.contains(&sabotage)
    {
        return Err(Error::NoControl { sabotage: sabotage.name(), kernel: kernel.kernel() });
    }
    let mut make = vec![format!("ARCH={}", kernel.kernel().arch()), "KCFLAGS=-Werror".to_owned(), "modules".to_owned()];
    if kernel.kernel().has_sparse() {
        make.extend(["C=1", "CHECK=sparse", SPARSE_FLAGS].map(str::to_owned));
    }
    let inputs: Vec<_> = [kernel.key().as_str()].into_iter().chain(controls.iter().map(|way| way.name())).collect();
    let target = Target {
        name: format!("modules-{}", kernel.kernel()),
        key: Key::of(&inputs),
        tree: kernel.build_tree(),
        compiler: kernel.compiler(),
        make,
    };
    let dir = build(cache, &target, driver, |build| {
        build.gather(&build.dir.join(MODULES))?;
        // What the last one has changed is compiled again, and what this one changes.
        for control in controls {
            build.make(&[format!("ZCACHE_SABOTAGE={}", control.name())])?;
            build.gather(&build.dir.join(folder(Some(*control))))?;
        }
        Ok(())
    })?;
    Ok(dir.join(folder(sabotage)))
}

/// Where modules are in an artefact.
fn folder(sabotage: Option<Sabotage>) -> String {
    sabotage.map_or_else(|| MODULES.to_owned(), |sabotage| format!("{MODULES}-{}", sabotage.name()))
}

/// A copy of the driver's source, in which it has been built.
pub(crate) struct Build<'a> {
    target: &'a Target,
    tools: &'a Tools,
    /// The artefact's folder.
    dir: &'a Path,
    /// That of the copy.
    pub(crate) driver: PathBuf,
}

impl Build<'_> {
    /// Makes it, with further arguments.
    fn make(&self, arguments: &[String]) -> Result<()> {
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut make = self.tools.make(self.target.compiler.as_deref());
        make.arg("-C")
            .arg(&self.target.tree)
            .arg(format!("M={}", self.driver.display()))
            .args(["W=1", "-s", &format!("-j{jobs}")])
            .args(&self.target.make)
            .args(arguments);
        command::run(&mut make, &self.dir.join("build.log"))
    }

    /// Copies the modules to a folder that is not there yet.
    fn gather(&self, together: &Path) -> Result<()> {
        let mut modules = Vec::new();
        collect(&self.driver, &is_module, &mut modules)?;
        fs::create_dir(together).while_doing("create", together)?;
        for module in modules {
            let name = module.file_name().unwrap_or_default();
            fs::copy(&module, together.join(name)).while_doing("copy", &module)?;
        }
        Ok(())
    }
}

/// Builds the driver in a copy of its source, and returns the artefact's folder. `finish` may look
/// at what was built, and build on.
pub(crate) fn build(
    cache: &Cache,
    target: &Target,
    driver: &Path,
    finish: impl FnOnce(&Build) -> Result<()>,
) -> Result<PathBuf> {
    let driver = fs::canonicalize(driver).while_doing("open", driver)?;
    let parent = driver.parent().unwrap_or(&driver);
    let mut files = Vec::new();
    collect(&driver, &is_source, &mut files)?;
    collect(&parent.join(SHARED_HEADERS), &is_source, &mut files)?;

    let mut inputs = vec![target.key.as_str().as_bytes().to_vec(), MODULES.into()];
    inputs.extend(target.make.iter().map(|argument| argument.as_bytes().to_vec()));
    for file in &files {
        let place = file.strip_prefix(parent).unwrap_or(file);
        inputs.push(place.as_os_str().as_encoded_bytes().to_vec());
        inputs.push(fs::read(file).while_doing("read", file)?);
    }
    let name = driver.file_name().unwrap_or_default();
    let artefact = cache.artefact(&target.name, &Key::of(&inputs), Leftovers::Remove, |dir, progress| {
        host::require()?;
        let tools = Tools::get(cache)?;
        for file in &files {
            let target = dir.join(file.strip_prefix(parent).unwrap_or(file));
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).while_doing("create", parent)?;
            }
            fs::copy(file, &target).while_doing("copy", file)?;
        }
        progress.step("compiling the guest driver");
        let build = Build { target, tools: &tools, dir, driver: dir.join(name) };
        build.make(&[])?;
        finish(&build)?;
        Ok(Vec::new())
    })?;
    Ok(artefact.dir)
}

/// What the driver is built from. What an earlier build left is not.
fn is_source(name: &str) -> bool {
    [".c", ".h", ".S"].iter().any(|end| name.ends_with(end) && !name.ends_with(".mod.c"))
        || ["Kbuild", "Makefile"].contains(&name)
}

fn is_module(name: &str) -> bool {
    name.ends_with(".ko")
}

/// The files below a folder that are wanted, in a fixed order.
fn collect(dir: &Path, wanted: &dyn Fn(&str) -> bool, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).while_doing("read", dir)? {
        entries.push(entry.while_doing("read", dir)?.path());
    }
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, wanted, files)?;
        } else if wanted(&name) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_count() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = dir.path();
        fs::create_dir_all(root.join("sub")).expect("a folder");
        let sources = ["Kbuild", "Makefile", "a.c", "b.h", "sub/c.c"];
        let products = ["a.o", "a.mod.c", "a.ko", ".a.o.cmd", ".hidden.c", "Module.symvers"];
        for name in sources.iter().chain(&products) {
            fs::write(root.join(name), "").expect("a file");
        }
        let mut found = Vec::new();
        collect(root, &is_source, &mut found).expect("the folder can be read");
        let expected: Vec<PathBuf> = sources.iter().map(|name| root.join(name)).collect();
        assert_eq!(found, expected);
    }
}
