// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask dist`: what is given to others: Debian packages, what they are made of, checksums.
//!
//! Two runs on one commit with one compiler make the same bytes: programs know no paths of the
//! machine, and files in packages have the commit's date.

mod again;
mod host;
mod package;
mod programs;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::build::run;

/// Build Debian packages of the daemon and of the guest driver, with checksums and a bill of
/// materials
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder to put them into
    #[arg(default_value = DIRECTORY)]
    directory: PathBuf,

    /// Build the commit once more elsewhere, and fail if anything comes out differently
    #[arg(long)]
    twice: bool,
}

/// The release that is packaged.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checksums.
const SUMS: &str = "SHA256SUMS";

/// Where they are put.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/dist");

pub(crate) fn run_all(arguments: &Arguments) -> Result<ExitCode> {
    let directory = std::path::absolute(&arguments.directory)?;
    build(&directory)?;
    if arguments.twice {
        again::compare(&directory)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds them where tests look for them.
pub(crate) fn build_all() -> Result<()> {
    build(Path::new(DIRECTORY))
}

fn build(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("Cannot clear {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("Cannot make {}", directory.display()))?;
    let date = Date::of_commit()?;
    println!("== programs");
    let programs = programs::build()?;
    println!("== packages");
    host::package(&programs, &date, directory)?;
    driver(&programs, &date, directory)?;
    println!("== bill of materials");
    sbom::write(&date, directory)?;
    sums(directory)
}

/// When the commit was made that is packaged.
struct Date {
    /// Seconds since 1970.
    epoch: String,
    /// As a Debian changelog has it.
    rfc_2822: String,
}

impl Date {
    fn of_commit() -> Result<Self> {
        let of = |format: &str| -> Result<String> {
            let output = Command::new("git")
                .args(["log", "-1", &format!("--format={format}")])
                .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
                .output()
                .context("Cannot ask git for the commit's date")?;
            ensure!(output.status.success(), "Git does not know the commit's date");
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        Ok(Self { epoch: of("%ct")?, rfc_2822: of("%cD")? })
    }
}

/// The guest driver's package, whose recipe is its own.
fn driver(programs: &programs::Programs, date: &Date, directory: &Path) -> Result<()> {
    let build = tempfile::tempdir()?;
    run(Command::new("make")
        .args(["--silent", "--directory", concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-driver/setup"), "deb"])
        .arg(format!("BUILD={}", build.path().display()))
        .arg(format!("ZCACHESETUP={}", programs.of("zcachesetup").display()))
        .env("SOURCE_DATE_EPOCH", &date.epoch)
        .stdout(std::process::Stdio::null()))?;
    let mut packages = fs::read_dir(build.path())?.collect::<std::io::Result<Vec<_>>>()?;
    packages.retain(|entry| entry.path().extension().is_some_and(|end| end == "deb"));
    ensure!(packages.len() == 1, "The guest driver has {} packages, not one", packages.len());
    fs::copy(packages[0].path(), directory.join(packages[0].file_name()))?;
    Ok(())
}

/// Checksums of everything, as `sha256sum --check` reads them.
fn sums(directory: &Path) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name());
    }
    names.sort();
    let output = Command::new("sha256sum").args(&names).current_dir(directory).output()?;
    ensure!(output.status.success(), "sha256sum failed: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(directory.join(SUMS), &output.stdout)?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
