// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Developer commands. Each lives in a file of its own.

mod bench;
mod build;
mod cargo_tool;
mod chaos;
mod coverage;
mod demo;
mod dependencies;
mod dist;
#[cfg(test)]
mod documents;
mod driver;
mod faults;
mod fio;
mod fuzz;
mod guest;
mod hog;
mod kernels;
mod lines;
mod manual;
mod size;
mod test;
mod vmm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit status of a command that could not do its work, apart from what a guest's
/// script returns.
const FAILED: u8 = 125;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of vhost-zcache")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Guest(guest::Arguments),
    Demo(demo::Arguments),
    Test(test::Arguments),
    Bench(bench::Arguments),
    Chaos(chaos::Arguments),
    Kernels(kernels::Arguments),
    Fuzz(fuzz::Arguments),
    Coverage(coverage::Arguments),
    Manual(manual::Arguments),
    Dist(dist::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Guest(arguments) => guest::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run_all(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Chaos(arguments) => chaos::run(&arguments),
        Command::Kernels(arguments) => kernels::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run_targets(&arguments),
        Command::Coverage(arguments) => coverage::measure(&arguments),
        Command::Manual(arguments) => manual::run(&arguments),
        Command::Dist(arguments) => dist::run_all(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("cargo xtask: {error:#}");
        ExitCode::from(FAILED)
    })
}
