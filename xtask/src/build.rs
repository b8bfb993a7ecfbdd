// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Building the workspace's own programs.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The cargo that runs us, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    cargo
}

/// Runs a command that has to succeed; what it prints goes to the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("Cannot start {program}"))?;
    if !status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        bail!("{program} {} failed with {}", words.join(" "), zcache_tests::describe(status));
    }
    Ok(())
}

/// Builds the tool that guests have, unless `ZCACHESETUP` names one. Whatever boots a guest needs
/// it.
pub(crate) fn tool() -> Result<()> {
    if env::var_os("ZCACHESETUP").is_none() {
        run(cargo().arg("zcachesetup"))?;
    }
    zcache_tests::tool_binary().map(drop)
}

/// Builds the daemon as users have it, unless `ZCACHE_DAEMON` names one, and returns its path.
pub(crate) fn daemon() -> Result<PathBuf> {
    if env::var_os("ZCACHE_DAEMON").is_none() {
        run(cargo().args(["build", "--quiet", "--release", "--package", "vhost-zcache"]))?;
    }
    zcache_tests::release_daemon_binary()
}

/// Builds the daemon whose workers die where they are told to, unless `ZCACHE_CHAOS_DAEMON` names
/// one, and returns its path.
pub(crate) fn chaos_daemon() -> Result<PathBuf> {
    if env::var_os("ZCACHE_CHAOS_DAEMON").is_none() {
        run(cargo().args(["build", "--quiet", "--profile", "chaos", "--package", "vhost-zcache"]))?;
    }
    zcache_tests::chaos_daemon_binary()
}
