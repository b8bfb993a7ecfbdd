// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench`: measurements, each of which can be repeated on other data.

mod codec;
mod corpus;
mod density;
mod evict;
mod give_back;
mod growth;
mod guest;
mod median;
mod memory;
mod policies;
mod random;
mod recover;
mod ring;
mod shape;
mod speed;
mod store;
mod tiers;
mod traces;
mod watch;

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

/// Measures a part of the project.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    Store(store::Arguments),
    Evict(evict::Arguments),
    Recover(recover::Arguments),
    Ring(ring::Arguments),
    Guest(guest::Arguments),
    GiveBack(give_back::Arguments),
    Save(ring::save::Arguments),
}

/// Runs a benchmark, in an optimised build of this program.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if cfg!(debug_assertions) {
        return run_optimised();
    }
    match &arguments.part {
        Part::Store(arguments) => store::run(arguments)?,
        Part::Evict(arguments) => evict::run(arguments)?,
        Part::Recover(arguments) => recover::run(arguments)?,
        Part::Ring(arguments) => ring::run(arguments)?,
        Part::Guest(arguments) => guest::run(arguments)?,
        Part::GiveBack(arguments) => give_back::run(arguments)?,
        Part::Save(arguments) => ring::save::run(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts this program again, optimised, with the same arguments.
fn run_optimised() -> Result<ExitCode> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", "xtask", "--"])
        .args(env::args_os().skip(1))
        .status()
        .context("cargo cannot be started")?;
    match status.code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        None => bail!("the benchmark was killed"),
    }
}
