// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask coverage`: how much of the daemon the tests without guests run through, by part,
//! and that it does not become less.
//!
//! The daemon's processes are killed in most tests, and a killed process writes nothing at its end.
//! So counters are in mapped files from the start (LLVM's continuous mode), which a kill does not
//! take along.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::build::{cargo, run};

/// Lowest percentages of lines there may be, which are raised when there are more.
const RATCHET: &str = "coverage.toml";
/// LLVM's tools that read what this compiler writes: those of a toolchain (the component
/// llvm-tools), or of Debian.
const TOOLS: [&str; 4] = ["llvm-profdata-22", "llvm-profdata-21", "llvm-profdata-20", "llvm-profdata-19"];
/// Debian's package of the last one.
const PACKAGE: &str = "llvm-19";
/// Tests that look at what the sandbox takes away, among it the files of the counters.
const SANDBOX: &str = "sandbox";

/// Measure which lines the tests without guests run through
///
/// Fails when a part has less than coverage.toml says.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write what was measured to coverage.toml
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
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("coverage");
    let counters = target.join("counters");
    if !arguments.add && counters.exists() {
        fs::remove_dir_all(&counters)?;
    }
    fs::create_dir_all(&counters)?;
    let profdata = find_tool()?;
    let tests = |what: &[&str]| {
        let mut command = cargo();
        command.args(["test", "--quiet"]).args(what).args(["-p", "zcache-protocol", "-p", "zcache-store"]);
        command.args(["-p", "vhost-zcache", "-p", "zcache-fuzz", "--no-fail-fast", "--target-dir"]).arg(&target);
        command.env("RUSTFLAGS", "-Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation");
        command.env("LLVM_PROFILE_FILE", counters.join("%p-%m%c.profraw"));
        // The worker can write to the folder for reports only, see tests/client/daemon.rs.
        command.env("ZCACHE_COUNTERS", &counters);
        command
    };
    let built = tests(&["--no-run", "--message-format=json"]).output()?;
    ensure!(built.status.success(), "The tests are not built:\n{}", String::from_utf8_lossy(&built.stderr));
    let programs = programs(&built.stdout);
    let status = tests(&[]).arg("--").args(&arguments.filters).status()?;
    // Whether they pass is for the other command to say; here it is how far they come.
    if !status.success() {
        println!("Some tests fail: of binary {SANDBOX} they do, as the counters' files are not for the sandbox");
    }

    let profile = target.join("profile");
    let list = target.join("counters.list");
    let raw: Vec<String> = fs::read_dir(&counters)?
        .map(|file| Ok(file?.path()))
        .filter(|path| path.as_ref().is_ok_and(|path| path.extension().is_some_and(|end| end == "profraw")))
        .map(|path: std::io::Result<PathBuf>| Ok(path?.display().to_string()))
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
    /// Tenths of a percent.
    fn permille(self) -> u64 {
        self.covered * 1000 / self.count.max(1)
    }
}

/// Prints what there is, and compares it with what there has to be.
fn judge(root: &Path, report: &Report, arguments: &Arguments) -> Result<ExitCode> {
    let ratchet = root.join(RATCHET);
    let least = read_ratchet(&fs::read_to_string(&ratchet).unwrap_or_default())?;
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
        let now = sum.permille();
        let bar = least.get(part).copied().unwrap_or(0);
        println!("{part:8} {}.{} % of {} lines, at least {}.{}", now / 10, now % 10, sum.count, bar / 10, bar % 10);
        if now < bar {
            too_few.push(part);
        }
        found.insert(part, now);
    }
    if arguments.ratchet {
        let line = |(part, now): (&&str, &u64)| format!("{part} = {}.{}\n", now / 10, now % 10);
        let head = "# Lines that the tests without guests run through, in percent: cargo xtask coverage.\n";
        fs::write(&ratchet, head.to_owned() + &found.iter().map(line).collect::<String>())?;
    } else if arguments.filters.is_empty() {
        ensure!(too_few.is_empty(), "Less is covered than {RATCHET} says: {}", too_few.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines of a part's name and its percentage with one digit behind the point.
fn read_ratchet(text: &str) -> Result<BTreeMap<String, u64>> {
    let line = |line: &str| {
        let (part, percent) = line.split_once('=')?;
        let (whole, tenth) = percent.trim().split_once('.')?;
        Some((part.trim().to_owned(), whole.parse::<u64>().ok()? * 10 + tenth.parse::<u64>().ok()?))
    };
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|text| line(text).with_context(|| format!("{RATCHET}: '{text}' is no part and percentage"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratchet_is_read_as_it_is_written() {
        let read = read_ratchet("# x\nall = 85.0\nstore = 95.3\n").unwrap();
        assert_eq!((read["all"], read["store"]), (850, 953));
        assert!(read_ratchet("all: 85").is_err());
    }
}
