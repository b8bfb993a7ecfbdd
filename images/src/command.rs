// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running other programs, keeping what they print for the error message.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::error::{Error, IoContext as _, Result};

/// How much of a failed program's output goes into the error.
const SHOWN_LINES: usize = 25;

/// Runs a program to its end; what it prints is appended to `log`.
pub(crate) fn run(command: &mut Command, log: &Path) -> Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(log).while_doing("open", log)?;
    let before = file.metadata().while_doing("read", log)?.len();
    let copy = file.try_clone().while_doing("open", log)?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .status()
        .map_err(|source| Error::Spawn { program: program(command), source })?;
    if status.success() {
        return Ok(());
    }
    let printed = fs::read(log).while_doing("read", log)?;
    let own = usize::try_from(before).ok().and_then(|start| printed.get(start..)).unwrap_or_default();
    Err(failure(command, &status.to_string(), &String::from_utf8_lossy(own)))
}

/// Runs a program and returns what it printed on stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|source| Error::Spawn { program: program(command), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failure(command, &output.status.to_string(), &String::from_utf8_lossy(&output.stderr)))
}

/// Runs a program from one file to another.
pub(crate) fn filter(command: &mut Command, from: File, to: File) -> Result<()> {
    let child = command.stdin(from).stdout(to).stderr(Stdio::piped()).spawn();
    let output =
        child.and_then(Child::wait_with_output).map_err(|source| Error::Spawn { program: program(command), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(failure(command, &output.status.to_string(), &String::from_utf8_lossy(&output.stderr)))
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn failure(command: &Command, status: &str, printed: &str) -> Error {
    let lines: Vec<&str> = printed.lines().collect();
    let shown = lines.len().saturating_sub(SHOWN_LINES);
    Error::Command {
        program: program(command),
        status: status.to_owned(),
        output: lines.get(shown..).unwrap_or_default().join("\n"),
    }
}
