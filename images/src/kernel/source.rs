// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernels built from Debian's source packages, because no Debian kernel is configured like them:
//! 5.10, the last long-term one with cleancache, debug kernels, and those that run as a process
//! of the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use super::{Kernel, Vmm, remove_objects};
use crate::apt::{self, Repository, Suite};
use crate::cache::{Artefact, Cache, Key, Leftovers, Manifest};
use crate::error::{Error, IoContext as _, Result};
use crate::tools::Tools;
use crate::{command, host};

pub(crate) const CLASSIC: &str = include_str!("../../kernel/classic.config");
pub(crate) const STOCK: &str = include_str!("../../kernel/stock.config");
const DEBUG: &str = include_str!("../../kernel/debug.config");
const UML_DEBUG: &str = include_str!("../../kernel/uml-debug.config");
const UML: &str = include_str!("../../kernel/uml.config");

/// What a kernel is built from.
struct Recipe {
    /// The source package, or one that depends on it.
    package: &'static str,
    /// Where it may be.
    places: &'static [&'static [Suite]],
    /// Configuration fragments, of which later ones win.
    config: &'static [&'static str],
}

/// The suite was frozen with its last point release, so its version does not change;
/// the security suite goes on, and is for mirrors that have only that left.
const BULLSEYE: &[&[Suite]] = &[
    &[Suite { repository: Repository::Main, name: "bullseye" }],
    &[
        Suite { repository: Repository::Security, name: "bullseye-security" },
        Suite { repository: Repository::Main, name: "bullseye" },
    ],
    &[Suite { repository: Repository::Archive, name: "bullseye" }],
];

const TRIXIE: &[&[Suite]] = &[&[Suite { repository: Repository::Main, name: "trixie" }]];

const BACKPORTS: &[&[Suite]] = &[&[
    Suite { repository: Repository::Main, name: "trixie-backports" },
    Suite { repository: Repository::Main, name: "trixie" },
]];

/// How the names of source packages begin; the release follows.
const SOURCE: &str = "linux-source-";

fn recipe(kernel: Kernel) -> Recipe {
    let (package, places, config): (_, _, &[&str]) = match kernel {
        Kernel::Debian13Debug => ("linux-source-6.12", TRIXIE, &[CLASSIC, STOCK, DEBUG]),
        Kernel::ClassicDebug => ("linux-source-5.10", BULLSEYE, &[CLASSIC, DEBUG]),
        Kernel::Uml => ("linux-source", BACKPORTS, &[UML]),
        Kernel::UmlDebug => ("linux-source", BACKPORTS, &[UML, UML_DEBUG]),
        _ => ("linux-source-5.10", BULLSEYE, &[CLASSIC]),
    };
    Recipe { package, places, config }
}

/// Code of drivers and architectures that the configuration leaves out. Kconfig and
/// make read the rest of these folders all the same.
const NOT_UNPACKED: &[&str] = &[
    "arch/[!xKu]*/*.[chS]",
    "drivers/gpu/drm/*.[ch]",
    "drivers/infiniband/*.[ch]",
    "drivers/media/*.[ch]",
    "drivers/net/*/*.[ch]",
    "drivers/scsi/*/*.[ch]",
    "drivers/staging/*.[ch]",
    "sound/*.[ch]",
    "tools/perf/*",
    "tools/testing/*",
    "Documentation/*.*",
];

/// Builds the kernel.
pub(super) fn get(cache: &Cache, kernel: Kernel) -> Result<Artefact> {
    let recipe = recipe(kernel);
    let mut inputs = vec![kernel.name(), recipe.package];
    inputs.extend(recipe.config);
    inputs.extend(NOT_UNPACKED);
    let name = format!("kernel-{kernel}");
    cache.artefact(&name, &Key::of(&inputs), Leftovers::Keep, |dir, progress| {
        host::require()?;
        let tools = Tools::get(cache)?;
        let source = source(cache, &recipe)?;
        let log = dir.join("build.log");
        let build = dir.join("build");
        fs::create_dir_all(&build).while_doing("create", &build)?;
        let fragment = dir.join("fragment.config");
        let wanted = merge(recipe.config);
        fs::write(&fragment, wanted.join("\n") + "\n").while_doing("write", &fragment)?;

        let make = || {
            let mut make = tools.make(None);
            make.arg("-C")
                .arg(source.dir.join(source_package(&source.manifest)))
                .arg(format!("O={}", build.display()))
                .arg(format!("ARCH={}", kernel.arch()))
                .args(["KBUILD_BUILD_USER=zcache", "KBUILD_BUILD_HOST=zcache"])
                .arg("KBUILD_BUILD_TIMESTAMP=1970-01-01");
            make
        };
        progress.step("configuring");
        let mut configure = make();
        configure.env("KCONFIG_ALLCONFIG", &fragment).arg("allnoconfig");
        command::run(&mut configure, &log)?;
        check_config(&wanted, &build.join(".config"))?;

        let jobs = thread::available_parallelism().map_or(1, usize::from);
        progress.step(format_args!("compiling (4 to 15 minutes on 2 cores, {jobs} here)"));
        let image = match kernel.vmm() {
            Vmm::Qemu => "bzImage",
            Vmm::Uml => "linux",
        };
        command::run(make().args(["-s", &format!("-j{jobs}"), image, "modules"]), &log)?;
        remove_objects(&build)?;
        Ok(source.manifest.packages)
    })
}

/// The unpacked source, shared by all kernels built from it.
fn source(cache: &Cache, recipe: &Recipe) -> Result<Artefact> {
    let package = recipe.package;
    let mut inputs = vec![package];
    inputs.extend(NOT_UNPACKED);
    cache.artefact(package, &Key::of(&inputs), Leftovers::Remove, |dir, progress| {
        let log = dir.join("build.log");
        progress.step("fetching the kernel source (130 to 150 MB)");
        let downloads = cache.downloads(package);
        let mut debs = apt::download_from_first(&downloads, recipe.places, package, &log, progress)?;
        debs.retain(|deb| deb.package.name.starts_with(SOURCE));
        progress.step("unpacking");
        let unpacked = dir.join("package");
        apt::extract(&debs, &unpacked, &log)?;
        for deb in &debs {
            untar(&unpacked.join("usr/src"), &deb.package.name, dir, &log)?;
        }
        fs::remove_dir_all(&unpacked).while_doing("remove", &unpacked)?;
        Ok(apt::packages(&debs))
    })
}

/// The package that has the source, and the folder in its archive.
fn source_package(manifest: &Manifest) -> &str {
    manifest.packages.first().map_or("", |package| &package.name)
}

fn untar(folder: &Path, package: &str, dir: &Path, log: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(dir).arg("-xf").arg(folder.join(format!("{package}.tar.xz")));
    tar.args(NOT_UNPACKED.iter().map(|pattern| format!("--exclude={package}/{pattern}")));
    command::run(&mut tar, log)
}

/// The lines of configuration fragments, of which later ones win.
pub(crate) fn merge(fragments: &[&str]) -> Vec<String> {
    let mut lines: Vec<(String, String)> = Vec::new();
    for line in fragments.iter().flat_map(|fragment| fragment.lines()) {
        let Some(symbol) = symbol(line) else { continue };
        lines.retain(|(known, _)| known != symbol);
        lines.push((symbol.to_owned(), line.to_owned()));
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

/// The symbol of `CONFIG_X=...` or `# CONFIG_X is not set`.
fn symbol(line: &str) -> Option<&str> {
    let symbol = match line.strip_prefix("# ") {
        Some(rest) => rest.strip_suffix(" is not set")?,
        None => line.split_once('=')?.0,
    };
    symbol.starts_with("CONFIG_").then_some(symbol)
}

/// Kconfig drops what depends on something that is off without a word.
fn check_config(wanted: &[String], config: &PathBuf) -> Result<()> {
    let text = fs::read_to_string(config).while_doing("read", config)?;
    let missing: Vec<&str> = wanted
        .iter()
        .map(String::as_str)
        .filter(|line| !line.starts_with('#') && !text.lines().any(|its| its == *line))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::KernelConfig(missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_fragments_win() {
        let merged = merge(&["# a comment\nCONFIG_A=y\nCONFIG_B=y\n", "# CONFIG_B is not set\nCONFIG_C=1\n"]);
        assert_eq!(merged, ["CONFIG_A=y", "# CONFIG_B is not set", "CONFIG_C=1"]);
    }

    #[test]
    fn a_dropped_line_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = dir.path().join(".config");
        fs::write(&config, "CONFIG_A=y\nCONFIG_AB=y\n").expect("a configuration");
        check_config(&["CONFIG_A=y".into()], &config).expect("A is there");
        let error = check_config(&["CONFIG_A=y".into(), "CONFIG_B=y".into()], &config);
        assert!(matches!(&error, Err(Error::KernelConfig(lines)) if lines == "CONFIG_B=y"), "{error:?}");
    }
}
