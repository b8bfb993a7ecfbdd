// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask fuzz`: libFuzzer on the targets of `fuzz/`. The compiler that builds everything
//! else does: what the fuzzer goes by is one of LLVM's passes, which any compiler of Rust can be
//! asked for. libFuzzer itself comes with its crate, and takes a C++ compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::build::{cargo, run};

/// What has the compiler count the ways through the code, as cargo-fuzz asks for it.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// With a target named, build scripts are not built with these flags.
const MACHINE: &str = "x86_64-unknown-linux-gnu";

/// Fuzz the targets of fuzz/
///
/// New findings that take the fuzzer further go to target/fuzz/corpus; with --keep the corpus in
/// fuzz/corpus is replaced by the smallest one that goes as far. What makes a target fail is left
/// in target/fuzz/failures, and the command fails.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which targets; all by default
    targets: Vec<String>,
    /// How long each of them
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Run this input once, in place of the fuzzer
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Take what was found over into the corpus, made as small as it can be
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run_targets(arguments: &Arguments) -> Result<ExitCode> {
    let known = zcache_fuzz::TARGETS;
    if let Some(unknown) = arguments.targets.iter().find(|name| !known.iter().any(|target| target.name == **name)) {
        let names: Vec<_> = known.iter().map(|target| target.name).collect();
        bail!("There is no target '{unknown}', but {}", names.join(", "));
    }
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let work = zcache_tests::target_folder().join("fuzz");
    run(cargo()
        .args(["build", "--quiet", "--release", "--bins", "--target", MACHINE])
        .args(["--manifest-path", "fuzz/libfuzzer/Cargo.toml", "--target-dir"])
        .arg(&work)
        .env("RUSTFLAGS", FLAGS.join(" ")))
    .context("The fuzzer's programs are not built (libFuzzer takes g++ or clang++)")?;

    let mut failed = Vec::new();
    for target in known {
        if !arguments.targets.is_empty() && !arguments.targets.iter().any(|name| name == target.name) {
            continue;
        }
        println!("== {}", target.name);
        let program = work.join(MACHINE).join("release").join(target.name);
        let failures = make(&work.join("failures").join(target.name))?;
        let common = [format!("-artifact_prefix={}/", failures.display()), format!("-max_len={}", target.most_bytes)];
        let found = make(&work.join("corpus").join(target.name))?;
        let corpus = make(&root.join("fuzz/corpus").join(target.name))?;
        let mut fuzzer = Command::new(&program);
        fuzzer.args(&common);
        match &arguments.input {
            Some(input) => fuzzer.arg(input),
            None => fuzzer
                .args([format!("-max_total_time={}", arguments.seconds), "-timeout=10".into()])
                .args(["-print_final_stats=1", "-rss_limit_mb=4096"])
                .args([&found, &corpus]),
        };
        if !fuzzer.status().with_context(|| format!("Cannot start {}", program.display()))?.success() {
            failed.push(target.name);
        } else if arguments.keep && arguments.input.is_none() {
            keep(&program, &common, &found, &corpus)?;
        }
    }
    ensure!(failed.is_empty(), "Failed: {}; the inputs are in {}", failed.join(", "), work.join("failures").display());
    Ok(ExitCode::SUCCESS)
}

/// Makes the corpus the smallest one that goes as far as both do.
fn keep(program: &Path, common: &[String], found: &Path, corpus: &Path) -> Result<()> {
    let merged = corpus.with_extension("new");
    make(&merged)?;
    run(Command::new(program)
        .args(common)
        .args(["-set_cover_merge=1", "-verbosity=0"])
        .args([&merged, corpus, found]))?;
    fs::remove_dir_all(corpus)?;
    fs::rename(&merged, corpus)?;
    Ok(())
}

fn make(directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory).with_context(|| format!("Cannot make {}", directory.display()))?;
    Ok(directory.into())
}
