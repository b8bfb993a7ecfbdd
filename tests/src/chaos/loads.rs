// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What guests do all the time, and what came of it.

use std::time::Duration;

use crate::guest::Stream;
use crate::load::{DROP_CACHES, read_files, swaphog, write_files};

/// Where the filesystem is.
pub(super) const FOLDER: &str = "/mnt/files";
/// Longest that a load may take to end after it was told to: each checks all that it has first.
pub(super) const END_LIMIT: Duration = Duration::from_secs(240);
/// The journal has stalls from here on.
const LONG_STALL: Duration = Duration::from_millis(300);
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
    let coherence =
        format!("coherence --dir {FOLDER}/c --procs 2 --seconds 5 --kib 4096 --seed $seed; seed=$((seed + 1))");
    let read =
        format!("{DROP_CACHES}; {}; echo \"fio: verified={} wrong=0\"", read_files(FOLDER, FILES_MIB), FILES_MIB * 256);
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

/// What a load has printed so far.
#[derive(Debug, Default)]
pub(super) struct Printed {
    stdout: String,
    stderr: String,
    /// Bytes of standard output that are of lines that were looked at.
    seen: usize,
}

impl Printed {
    /// Adds what it has just printed; returns stalls that are worth a line of the journal.
    pub(super) fn add(&mut self, stream: Stream, bytes: &[u8]) -> Vec<Duration> {
        let text = String::from_utf8_lossy(bytes);
        match stream {
            Stream::Out => self.stdout.push_str(&text),
            Stream::Err => self.stderr.push_str(&text),
        }
        let mut new = Found::default();
        while let Some(end) = self.stdout[self.seen..].find('\n') {
            new.heed(&self.stdout[self.seen..self.seen + end]);
            self.seen += end + 1;
        }
        let stalls = new.stalls_us.into_iter().map(Duration::from_micros);
        stalls.filter(|stall| *stall >= LONG_STALL).collect()
    }

    /// Its last lines on standard error, in one.
    pub(super) fn last_words(&self) -> String {
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(4)..].join(" | ")
    }

    /// What it has found.
    pub(super) fn found(&self) -> Found {
        let mut found = Found::default();
        self.stdout.lines().for_each(|line| found.heed(line));
        // fio does not count; it stops at the first block that is wrong.
        found.wrong += u64::from(self.stderr.contains("verify: bad"));
        found
    }
}

impl Found {
    fn heed(&mut self, line: &str) {
        let number = |word: &str| {
            line.split_whitespace().find_map(|found| found.strip_prefix(word)?.strip_prefix('=')?.parse::<u64>().ok())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_print_is_added_up() {
        let mut printed = Printed::default();
        let text = "swaphog: pages=9 verified=100 wrong=0 filling=0.10 in_time=3\nstall_us=17\nstall_us=400000\n\
                    coherence: ops=5 compared=40960 wrong=2\nfio: verified=7 wrong=0\n";
        let (one, two) = text.as_bytes().split_at(76);
        assert_eq!(printed.add(Stream::Out, one), []);
        assert_eq!(printed.add(Stream::Out, two), [Duration::from_millis(400)]);
        assert_eq!(printed.found(), Found { verified: 117, wrong: 2, stalls_us: vec![17, 400_000] });
    }

    #[test]
    fn a_block_that_fio_finds_wrong_is_one() {
        let mut printed = Printed::default();
        printed.add(Stream::Err, b"verify: bad magic header 0, wanted acca\n\nfio: it failed\n");
        assert_eq!(printed.found().wrong, 1);
        assert_eq!(printed.last_words(), "verify: bad magic header 0, wanted acca | fio: it failed");
    }
}
