// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask coverage`: how much of the daemon the tests without guests run through, by part,
//! and that it does not become less.
//!
//! The daemon's processes are killed in most tests, and a killed process writes nothing at its end.
//! So counters are in mapped files from the start (LLVM's continuous mode), which a kill does not
//! take along.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::build::{cargo, run};

/// Lowest percentages of lines there may be, which are raised when there are more.
const RATCHET: &str = "coverage.json";
/// LLVM's tools that read what this compiler writes: those of a toolchain (the component
/// llvm-tools), or of Debian.
const TOOLS: [&str; 4] = ["llvm-profdata-22", "llvm-profdata-21", "llvm-profdata-20", "llvm-profdata-19"];
/// Debian's package of the last one.
const PACKAGE: &str = "llvm-19";

/// Measure which lines the tests without guests run through
///
/// Fails when a part has less than coverage.json says.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write what was measured to coverage.json
    #[arg(long)]
    ratchet: bool,
    /// Say for each file how much of it
    #[arg(long)]
    files: bool,
    /// Leave the counters of the last run, and add to them
    #[arg(long)]
    add: bool,
    /// Run only the tests whose name contains one of these
    filters: Vec<String>,
}

/// Parts of the daemon, by the beginnings of their files' paths.
const PARTS: [(&str, &[&str]); 4] = [
    ("store", &["vhost-zcache/store/src/"]),
    ("device", &["vhost-zcache/src/device/"]),
    ("keeper", &["vhost-zcache/src/keeper/", "vhost-zcache/src/frontend/"]),
    ("all", &["vhost-zcache/", "protocol/src/"]),
];

pub(crate) fn measure(arguments: &Arguments) -> Result<ExitCode> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).canonicalize()?;
    let target = zcache_tests::target_folder().join("coverage");
    let counters = target.join("counters");
    let profdata = find_tool()?;
    let tests = |what: &[&str]| {
        let mut command = cargo();
        command.args(["test", "--quiet", "--lib", "--bins", "--tests"]).args(what).args([
            "-p",
            "zcache-protocol",
            "-p",
            "zcache-store",
        ]);
        command.args(["-p", "vhost-zcache", "-p", "zcache-fuzz", "--no-fail-fast", "--target-dir"]).arg(&target);
        command.env("RUSTFLAGS", "-Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation");
        command.env("LLVM_PROFILE_FILE", counters.join("%p%c.profraw"));
        // The worker can write to the folder for reports only, see tests/client/daemon.rs.
        command.env("ZCACHE_COUNTERS", &counters);
        command
    };
    let built = tests(&["--no-run", "--message-format=json"]).output()?;
    ensure!(built.status.success(), "The tests are not built:\n{}", String::from_utf8_lossy(&built.stderr));
    let programs = programs(&built.stdout);
    // The compiler's own helpers have counted, too.
    if !arguments.add && counters.exists() {
        fs::remove_dir_all(&counters)?;
    }
    fs::create_dir_all(&counters)?;
    let status = tests(&[]).arg("--").args(&arguments.filters).status()?;
    // Whether they pass is for the other command to say; here it is how far they come.
    if !status.success() {
        println!("Some tests fail, which is not held against them: what they have run through counts");
    }

    let profile = target.join("profile");
    let list = target.join("counters.list");
    let raw: Vec<String> = fs::read_dir(&counters)?
        .map(|file| Ok(file?.path()))
        .filter(|path| path.as_ref().is_ok_and(|path| path.extension().is_some_and(|end| end == "profraw")))
        .map(|path: io::Result<PathBuf>| Ok(path?.display().to_string()))
        .collect::<Result<_>>()?;
    fs::write(&list, raw.join("\n"))?;
    println!("{} processes have counted", raw.len());
    run(Command::new(&profdata)
        .args(["merge", "-sparse", "--failure-mode=all", "-o"])
        .arg(&profile)
        .arg("-f")
        .arg(&list))?;
    let cover = OsString::from(profdata.to_string_lossy().replace("profdata", "cov"));
    let mut export = Command::new(cover);
    export.args(["export", "-summary-only", "-instr-profile"]).arg(&profile);
    for (number, program) in programs.iter().enumerate() {
        if number > 0 {
            export.arg("-object");
        }
        export.arg(program);
    }
    let exported = export.output()?;
    ensure!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let report: Report = serde_json::from_slice(&exported.stdout).context("llvm-cov's report is another")?;
    judge(&root, &report, arguments)
}

fn find_tool() -> Result<PathBuf> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output()?;
    let component = PathBuf::from(String::from_utf8(sysroot.stdout)?.trim())
        .join("lib/rustlib/x86_64-unknown-linux-gnu/bin/llvm-profdata");
    if component.exists() {
        return Ok(component);
    }
    let answers = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|said| said.status.success());
    let Some(name) = TOOLS.iter().find(|name| answers(name)) else {
        bail!("LLVM's tools are missing: `rustup component add llvm-tools`, or `apt-get install {PACKAGE}`");
    };
    Ok(PathBuf::from(name))
}

/// The programs that cargo says it has built, tests and the daemon.
fn programs(messages: &[u8]) -> Vec<String> {
    let artifact = |line: &[u8]| -> Option<String> {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        Some(message.get("executable")?.as_str()?.to_owned())
    };
    messages.split(|byte| *byte == b'\n').filter_map(artifact).collect()
}

#[derive(Deserialize)]
struct Report {
    data: Vec<Data>,
}

#[derive(Deserialize)]
struct Data {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    lines: Lines,
}

#[derive(Deserialize, Clone, Copy, Default)]
struct Lines {
    count: u64,
    covered: u64,
}

impl Lines {
    /// With one digit behind the point, rounded down.
    fn percent(self) -> f64 {
        (self.covered * 1000 / self.count.max(1)) as f64 / 10.0
    }
}

/// Prints what there is, and compares it with what there has to be.
fn judge(root: &Path, report: &Report, arguments: &Arguments) -> Result<ExitCode> {
    let ratchet = root.join(RATCHET);
    let least: BTreeMap<String, f64> = match fs::read(&ratchet) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{RATCHET} has no percentages"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && arguments.ratchet => BTreeMap::new(),
        Err(error) => return Err(error).with_context(|| format!("{RATCHET} cannot be read")),
    };
    let prefix = format!("{}/", root.display());
    let mut found = BTreeMap::new();
    let mut too_few = Vec::new();
    for (part, beginnings) in PARTS {
        let mut sum = Lines::default();
        for file in report.data.iter().flat_map(|data| &data.files) {
            let Some(name) = file.filename.strip_prefix(&prefix) else { continue };
            let is_code = beginnings.iter().any(|beginning| name.starts_with(beginning)) && name.contains("/src/");
            if is_code {
                let lines = file.summary.lines;
                (sum.count, sum.covered) = (sum.count + lines.count, sum.covered + lines.covered);
                if arguments.files && part == "all" {
                    println!("   {name}: {} of {} lines", lines.covered, lines.count);
                }
            }
        }
        let now = sum.percent();
        let bar = least.get(part).copied().unwrap_or_default();
        println!("{part:8} {now:.1} % of {} lines, at least {bar:.1}", sum.count);
        if now < bar {
            too_few.push(part);
        }
        // Whole ones, as runs differ a little.
        found.insert(part, now.floor());
    }
    if arguments.ratchet {
        fs::write(&ratchet, serde_json::to_string_pretty(&found)? + "\n")?;
    } else if arguments.filters.is_empty() {
        ensure!(too_few.is_empty(), "Less is covered than {RATCHET} says: {}", too_few.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
