// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What guests do all the time, and what came of it.

use std::time::Duration;

use crate::guest::{Exit, Output};
use crate::load::{DROP_CACHES, read_files, swaphog, write_files};

/// Where the filesystem is.
pub(super) const FOLDER: &str = "/mnt/files";
/// Longest that a load may take to end after it was told to: each checks all that it has first.
pub(super) const END_LIMIT: Duration = Duration::from_secs(240);
/// MiB of files that fio reads again and again.
const FILES_MIB: u32 = 32;

/// A program, or a few in turn, that check what they read until they are told to stop.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) script: String,
}

/// What loads have found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Pages compared.
    pub(super) verified: u64,
    /// Of these (or, of coherence, reads of them), those that were not as they should have been.
    pub(super) wrong: u64,
    /// The longest operation of each second of the probe, in microseconds.
    pub(super) stalls_us: Vec<u64>,
}

/// All loads of a guest with so much memory.
pub(super) fn all(memory_mib: u32, seed: u64) -> Vec<Load> {
    let until_told = |work: &str| format!("while [ ! -e /tmp/stop ]; do {work}; done");
    // The programs take it as a floating point number.
    let seed = seed % (1 << 48);
    let hog = format!("{} --seed $seed; seed=$((seed + 1))", swaphog(memory_mib - 16, 10));
    let coherence = format!(
        "coherence --dir {FOLDER}/c --procs 2 --seconds 5 --kib 4096 --seed $seed; seed=$((seed + 1))"
    );
    let read = format!(
        "{DROP_CACHES}; {}; echo \"fio: verified={} wrong=0\"",
        read_files(FOLDER, FILES_MIB),
        FILES_MIB * 256
    );
    vec![
        Load { name: "swaphog", script: format!("seed={seed}; {}", until_told(&hog)) },
        Load {
            name: "coherence",
            script: format!(
                "mkdir -p {FOLDER}/c; ( while sleep 0.3; do {DROP_CACHES}; done ) & dropper=$!
                 trap 'kill $dropper' EXIT; seed={seed}; {}",
                until_told(&coherence)
            ),
        },
        Load { name: "fio", script: format!("{}; {}", write_files(FOLDER, FILES_MIB), until_told(&read)) },
        Load { name: "probe", script: format!("probe --file {FOLDER}/probe --until /tmp/stop") },
    ]
}

impl Found {
    /// Reads what a load has printed; an error if it did not end as one that has found nothing.
    pub(super) fn of(load: &Load, output: &Output) -> (Self, Result<(), String>) {
        let mut found = Self::default();
        for line in output.stdout.lines() {
            found.heed(line);
        }
        // fio does not count; it stops at the first block that is wrong.
        if output.stderr.contains("verify: bad") {
            found.wrong += 1;
        }
        let ended = match output.exit {
            Exit::Status(0) => Ok(()),
            exit => Err(format!("{} ended with {exit}: {}", load.name, last_lines(&output.stderr))),
        };
        (found, ended)
    }

    fn heed(&mut self, line: &str) {
        let number = |word: &str| {
            line.split_whitespace()
                .find_map(|found| found.strip_prefix(word)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        self.stalls_us.extend(number("stall_us"));
        self.verified += number("verified").or_else(|| Some(number("compared")? / 4096)).unwrap_or(0);
        self.wrong += number("wrong").unwrap_or(0);
    }

    /// Adds what another load has found.
    pub(super) fn add(&mut self, other: Self) {
        self.verified += other.verified;
        self.wrong += other.wrong;
        self.stalls_us.extend(other.stalls_us);
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(stdout: &str, stderr: &str, exit: i32) -> (Found, Result<(), String>) {
        let output = Output { exit: Exit::Status(exit), stdout: stdout.to_owned(), stderr: stderr.to_owned() };
        Found::of(&all(256, 1)[0], &output)
    }

    #[test]
    fn what_programs_print_is_added_up() {
        let (found, ended) = found(
            "swaphog: pages=9 verified=100 wrong=0 filling=0.10 in_time=3\nstall_us=17\nstall_us=4\n\
             coherence: ops=5 compared=40960 wrong=2\nfio: verified=7 wrong=0\n",
            "",
            0,
        );
        assert_eq!(found, Found { verified: 117, wrong: 2, stalls_us: vec![17, 4] });
        ended.expect("a good end");
    }

    #[test]
    fn a_bad_end_is_one() {
        let (found, ended) = found("", "verify: bad magic header 0, wanted acca\nfio: it failed\n", 1);
        assert_eq!(found.wrong, 1);
        assert!(ended.expect_err("it failed").contains("it failed"));
    }
}
