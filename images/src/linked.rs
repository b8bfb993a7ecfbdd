// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Dynamic linking inside an unpacked release that is not the machine's own.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::error::{IoContext as _, Result};

/// Debian 13's packages use only the first; before, some libraries were in the second.
/// The third is one package's private folder, which it names by absolute path.
const DIRS: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph"];

/// The release's dynamic linker.
pub(crate) fn loader(root: &Path) -> PathBuf {
    let [new, old, _] = DIRS.map(|dir| root.join(dir).join("ld-linux-x86-64.so.2"));
    if new.exists() { new } else { old }
}

/// Where the release has its libraries, as the dynamic linker wants it.
pub(crate) fn library_path(root: &Path) -> OsString {
    DIRS.map(|dir| root.join(dir).into_os_string()).join(OsStr::new(":"))
}

/// The libraries which a program is linked with, directly or not.
///
/// `loader` and `search` are what [`loader`] and [`library_path`] return for the
/// release the program is from.
pub(crate) fn linked_libraries(loader: &Path, search: &OsStr, program: &Path) -> Result<Vec<PathBuf>> {
    let list = command::output(Command::new(loader).arg("--library-path").arg(search).arg("--list").arg(program))?;
    // Lines are `NAME => PATH (ADDRESS)`; the kernel's own has no path.
    let path = |line: &str| Some(line.split_once(" => ")?.1.split(" (").next()?.into());
    Ok(list.lines().filter_map(path).collect())
}

/// The programs below a folder that need a dynamic linker; scripts and static programs do not name
/// one.
pub(crate) fn dynamic_programs(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    if !dir.exists() {
        return Ok(programs);
    }
    for entry in fs::read_dir(dir).while_doing("read", dir)? {
        let entry = entry.while_doing("read", dir)?;
        let kind = entry.file_type().while_doing("read", dir)?;
        if kind.is_dir() {
            programs.extend(dynamic_programs(&entry.path())?);
        } else if kind.is_file() && is_dynamic(&entry.path())? {
            programs.push(entry.path());
        }
    }
    Ok(programs)
}

fn is_dynamic(program: &Path) -> Result<bool> {
    const INTERPRETER: &[u8] = b"/lib64/ld-linux-x86-64.so.2\0";
    // The name stands behind the program headers.
    let mut start = Vec::new();
    let file = File::open(program).while_doing("open", program)?;
    file.take(4096).read_to_end(&mut start).while_doing("read", program)?;
    Ok(start.starts_with(b"\x7fELF") && start.windows(INTERPRETER.len()).any(|at| at == INTERPRETER))
}
