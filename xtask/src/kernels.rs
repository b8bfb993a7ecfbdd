// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask kernels`: the guest driver compiled for every kernel that is at hand, and the list
//! of those it is known to build for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use zcache_images::{Images, Kernel, KernelTree};

/// How far the driver is known to go on a version of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Tests boot it.
    Booted(Kernel),
    /// It was compiled for it.
    Compiled,
}

/// The versions that the driver builds for. `guest-driver/README.md` has the same list.
const KERNELS: &[(&str, Known)] = &[
    ("5.10", Known::Booted(Kernel::Classic)),
    ("5.15", Known::Compiled),
    ("6.1", Known::Booted(Kernel::Debian12)),
    ("6.2", Known::Compiled),
    ("6.3", Known::Compiled),
    ("6.4", Known::Compiled),
    ("6.5", Known::Compiled),
    ("6.6", Known::Compiled),
    ("6.7", Known::Compiled),
    ("6.8", Known::Compiled),
    ("6.9", Known::Compiled),
    ("6.10", Known::Compiled),
    ("6.11", Known::Compiled),
    ("6.12", Known::Booted(Kernel::Debian13)),
    ("6.13", Known::Compiled),
    ("6.14", Known::Compiled),
    ("6.17", Known::Compiled),
    ("6.18", Known::Compiled),
    ("6.19", Known::Compiled),
    ("7.0", Known::Compiled),
    ("7.1", Known::Compiled),
    ("7.2", Known::Compiled),
    ("7.3", Known::Booted(Kernel::Debian13Backports)),
];

/// Compile the guest driver for other kernels
///
/// For those that tests boot, which are fetched, and for each tree in the folder 'trees' of the
/// cache or named by --tree: a kernel's source as it is published, or the unpacked headers that a
/// distribution packages. Warnings are errors. Prints a table and fails when one of them fails.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these versions, such as 6.8, each of which has to be there; repeatable
    #[arg(long, value_name = "VERSION")]
    only: Vec<String>,
    /// A further kernel's source or headers; repeatable
    #[arg(long = "tree", value_name = "FOLDER")]
    trees: Vec<PathBuf>,
}

/// What has become of one kernel.
struct Row {
    version: String,
    what: String,
    result: Result<()>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    compile(&arguments.only, &arguments.trees)?;
    Ok(ExitCode::SUCCESS)
}

/// Compiles for all that is at hand.
pub(crate) fn check() -> Result<()> {
    compile(&[], &[])
}

fn compile(only: &[String], trees: &[PathBuf]) -> Result<()> {
    let images = Images::open()?;
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("guest-driver");
    let wanted = |version: &str| only.is_empty() || only.iter().any(|name| name == version);
    let mut rows = Vec::new();
    for (version, known) in KERNELS {
        if let Known::Booted(kernel) = known
            && wanted(version)
        {
            let result = images.kernel(*kernel).and_then(|built| images.guest_modules(&built, &driver, None));
            let result = result.map(drop).map_err(Into::into);
            rows.push(Row { version: (*version).to_owned(), what: kernel.to_string(), result });
        }
    }
    let named = trees.iter().map(|dir| KernelTree::open(dir)).collect::<Result<Vec<_>, _>>()?;
    for tree in images.kernel_trees()?.into_iter().chain(named) {
        if wanted(tree.version()) {
            let result = images.compile_driver(&tree, &driver).map_err(Into::into);
            rows.push(Row { version: tree.version().to_owned(), what: tree.dir().display().to_string(), result });
        }
    }
    rows.sort_by_key(|row| order(&row.version));
    report(&rows, only)
}

/// Prints the table, and what went wrong behind it.
fn report(rows: &[Row], only: &[String]) -> Result<()> {
    for row in rows {
        println!("{:<6} {:<7} {}", row.version, if row.result.is_ok() { "ok" } else { "FAILED" }, row.what);
    }
    let seen: BTreeSet<&str> = rows.iter().map(|row| row.version.as_str()).collect();
    let absent: Vec<&str> =
        KERNELS.iter().map(|(version, _)| *version).filter(|version| !seen.contains(version)).collect();
    if only.is_empty() && !absent.is_empty() {
        println!("no tree at hand: {}", absent.join(", "));
    }
    let failed: Vec<&Row> = rows.iter().filter(|row| row.result.is_err()).collect();
    for row in &failed {
        if let Err(error) = &row.result {
            eprintln!("\n{} ({}): {error:#}", row.version, row.what);
        }
    }
    ensure!(failed.is_empty(), "The guest driver does not build for {} of {} kernels", failed.len(), rows.len());
    let missing: Vec<&String> = only.iter().filter(|version| !seen.contains(version.as_str())).collect();
    ensure!(missing.is_empty(), "There is no tree of {missing:?}");
    Ok(())
}

/// 6.9 comes before 6.10.
fn order(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The versions in the second column of the README's row that begins with this word.
    fn documented(first: &str) -> Vec<String> {
        let readme = include_str!("../../guest-driver/README.md");
        let row = readme.lines().find_map(|line| line.strip_prefix(&format!("| {first} |")));
        let row = row.unwrap_or_else(|| panic!("the README has no row '{first}'"));
        let column = row.split('|').next().unwrap_or_default();
        column.split(',').map(|version| version.trim().to_owned()).collect()
    }

    #[test]
    fn the_readme_lists_what_is_booted_and_what_is_compiled() {
        let versions = |booted: bool| -> Vec<String> {
            let known = KERNELS.iter().filter(|(_, known)| matches!(known, Known::Booted(_)) == booted);
            known.map(|(version, _)| (*version).to_owned()).collect()
        };
        assert_eq!(documented("booted"), versions(true), "the kernels that tests boot");
        assert_eq!(documented("compiled"), versions(false), "the kernels that the driver is only compiled for");
    }

    #[test]
    fn every_kernel_of_a_distribution_is_listed_as_booted() {
        for kernel in Kernel::STOCK {
            assert!(
                KERNELS.iter().any(|(_, known)| *known == Known::Booted(*kernel)),
                "{kernel} is not in the list of kernels"
            );
        }
    }

    #[test]
    fn versions_are_sorted_by_number() {
        assert!(order("6.9") < order("6.10"));
        assert!(KERNELS.is_sorted_by_key(|(version, _)| order(version)), "the list of kernels is not in order");
    }
}
