// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask test`: every check of the project, the tests that boot guests last.

use std::panic::resume_unwind;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};
use zcache_tests::{Artefacts, Debian, Installed, Kernel};

use crate::build::{self, cargo, run};
use crate::{dependencies, dist, driver, faults, kernels, lines};

/// Run all checks and tests
///
/// Fetches and builds what they need first; a second run needs no network.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the long tests, whose names begin with 'long_'
    #[arg(long, conflicts_with = "all")]
    quick: bool,
    /// Also run the tests whose names begin with 'extra_', and build the debug kernels they need
    #[arg(long)]
    all: bool,
    /// Run only the tests whose name contains one of these
    filters: Vec<String>,
}

pub(crate) fn run_all(arguments: &Arguments) -> Result<ExitCode> {
    step("rustfmt and clippy components", ensure_components)?;
    step("format", || run(cargo().args(["fmt", "--all", "--check"])))?;
    step("lines of comments and documents", lines::check)?;
    step("tests of the fault matrix", faults::check)?;
    // Cargo locks one profile's folder at a time, and a linker has one thread for much of its time.
    beside_each_other([
        &|| {
            step("guest's tool", build::tool)?;
            step("guest kernels, root disk, QEMU", || artefacts(arguments))
        },
        &|| {
            step("guest driver's style", driver::check)?;
            step("licences and duplicates of dependencies", dependencies::check)
        },
        &|| {
            step("clippy", clippy)?;
            step("interleavings", interleavings)?;
            step("the tests themselves", build_tests)
        },
    ])?;
    if arguments.all {
        step("guest driver for other kernels", kernels::check)?;
        step("packages", dist::build_all)?;
        step("daemon", || build::daemon().map(drop))?;
    }
    println!("== tests");
    test(arguments)
}

/// Runs `lanes`, each in a thread; the first that has failed says why.
fn beside_each_other<const N: usize>(lanes: [&(dyn Fn() -> Result<()> + Sync); N]) -> Result<()> {
    thread::scope(|scope| {
        let running = lanes.map(|lane| scope.spawn(lane));
        let ended = running.map(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.into_iter().collect()
    })
}

/// All that the chosen tests boot.
fn artefacts(arguments: &Arguments) -> Result<()> {
    for kernel in kernels(arguments) {
        Artefacts::get(kernel)?;
    }
    for debian in if arguments.all { Debian::ALL } else { &[] } {
        Installed::with_driver(*debian)?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    run(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
}

/// What loom goes through: the arithmetic of limits, and what keeper and worker share.
fn interleavings() -> Result<()> {
    [("zcache-store", "accounting"), ("vhost-zcache", "interleavings")].into_iter().try_for_each(|(package, tests)| {
        run(cargo().args(["test", "--quiet", "--package", package, "--lib", "--features", "loom", tests]))
    })
}

fn build_tests() -> Result<()> {
    run(cargo().args(["test", "--quiet", "--workspace", "--no-run"]))
}

/// What the chosen tests boot.
fn kernels(arguments: &Arguments) -> Vec<Kernel> {
    let debug = |kernel: &Kernel| kernel.is_debug() && !arguments.all;
    Kernel::ALL.iter().copied().filter(|kernel| !debug(kernel)).collect()
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    work().with_context(|| format!("Step \"{name}\" failed"))?;
    println!("== {name}: {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// A minimal toolchain comes without them.
fn ensure_components() -> Result<()> {
    for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !has_subcommand(command) {
            run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

fn has_subcommand(name: &str) -> bool {
    cargo()
        .args([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The runner's summary is the end of what this command prints.
fn test(arguments: &Arguments) -> Result<ExitCode> {
    let mut left_out = Vec::new();
    if arguments.quick {
        left_out.push("long_");
    }
    if !arguments.all {
        left_out.push("extra_");
    }
    let mut command = cargo();
    if has_subcommand("nextest") {
        command.args(["nextest", "run", "--workspace"]);
        if !left_out.is_empty() {
            command.args(["--filterset", &format!("not test(/(^|::)({})/)", left_out.join("|"))]);
        }
    } else {
        command.args(["test", "--workspace", "--no-fail-fast", "--"]);
        for prefix in left_out {
            command.args(["--skip", prefix]);
        }
    }
    if arguments.all {
        // Otherwise guests have the development build, which checks more and is there anyway.
        command.env("ZCACHE_DAEMON", zcache_tests::release_daemon_binary()?);
    }
    command.args(&arguments.filters);
    Ok(if command.status()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
