// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What has to be installed on the machine itself. Kept to a C toolchain and the
//! package tools: everything else comes from a private apt root.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::apt;
use crate::command;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Programs, and the packages they are in.
const PROGRAMS: &[(&str, &str)] = &[
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("make", "make"),
    ("perl", "perl-base"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
];

/// Makes sure that the host can build; installs what is missing when run by root.
pub(crate) fn require() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let error = Error::Prerequisites { missing: names.clone(), packages: packages.join(" ") };
    if !is_root() || find("apt-get").is_none() {
        return Err(error);
    }
    Progress::new("host").step(format_args!("installing {}", packages.join(" ")));
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y", "install"]);
        command::output(apt.args(&packages))
    };
    if install().is_err() {
        command::output(Command::new("apt-get").args(["-q", "update"]))?;
        install()?;
    }
    if self::missing().is_empty() { Ok(()) } else { Err(error) }
}

fn missing() -> Vec<(&'static str, &'static str)> {
    let mut missing: Vec<_> = PROGRAMS.iter().copied().filter(|(program, _)| find(program).is_none()).collect();
    if find("gcc").is_none() || !has_static_libc() {
        missing.push(("a static C library", "libc6-dev"));
    }
    if !Path::new(apt::KEYRING).exists() {
        missing.push(("Debian's keys", "debian-archive-keyring"));
    }
    missing
}

/// The compiler answers with a full path only when it knows the file.
fn has_static_libc() -> bool {
    command::output(Command::new("gcc").arg("-print-file-name=libc.a")).is_ok_and(|answer| answer.contains('/'))
}

/// Looks a program up in `PATH`.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

pub(crate) fn is_root() -> bool {
    command::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
