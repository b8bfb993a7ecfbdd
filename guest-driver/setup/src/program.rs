// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs of the system that this one calls.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::error::{Error, Result, failed, reason};

/// What a program did and said.
#[derive(Debug)]
pub(crate) struct Finished {
    program: String,
    status: ExitStatus,
    pub(crate) output: String,
    errors: String,
}

impl Finished {
    pub(crate) fn succeeded(&self) -> bool {
        self.status.success()
    }

    /// The first line of what it said of its failure.
    pub(crate) fn complaint(&self) -> String {
        match self.errors.lines().chain(self.output.lines()).find(|line| !line.trim().is_empty()) {
            Some(line) => line.trim().to_owned(),
            None if self.status.code().is_none() => format!("{} was killed", self.program),
            None => format!("{} failed", self.program),
        }
    }

    /// All of it, if it succeeded.
    pub(crate) fn or_complain(self) -> Result<Self> {
        if self.succeeded() { Ok(self) } else { Err(failed(self.complaint())) }
    }
}

/// Runs a program to its end, which speaks English: errors are told apart by their text.
pub(crate) fn run(program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<Finished> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    // Without udevd nobody answers the cookies that dmsetup would wait for.
    if !Path::new("/run/udev/control").exists() {
        command.env("DM_DISABLE_UDEV", "1");
    }
    let output = command.output().map_err(|error| cannot_run(program, &error))?;
    Ok(Finished {
        program: program.to_owned(),
        status: output.status,
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn cannot_run(program: &str, error: &io::Error) -> Error {
    if error.kind() != io::ErrorKind::NotFound {
        return failed(format!("cannot run {program}: {}", reason(error)));
    }
    let package = match program {
        "dmsetup" => "dmsetup",
        "modprobe" => "kmod",
        _ => "util-linux",
    };
    failed(format!("there is no {program}: install {package}"))
}
