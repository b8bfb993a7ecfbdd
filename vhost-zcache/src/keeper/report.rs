// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the operator is told of a worker that has died: a line in the log, and a file.
//!
//! A disk may be slow, and the keeper never waits, nor can it open a file. So the file is written
//! by a process of its own, one at a time, which the spawner starts and gives the text.

use std::collections::VecDeque;
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::ExitStatus;
use std::time::Duration;

use log::{info, warn};
use rustix::fs::{MemfdFlags, memfd_create};

use super::process::in_words;
use super::running::Running;
use crate::config::settings::{GuestSettings, Settings};
use crate::ledger::Ledger;
use crate::spawner::Spawner;
use crate::spawner::child::Child;

/// Reports that wait to be written. What there is more of is only in the log.
const MOST_WAITING: usize = 4;

/// What is known of a worker that does nothing any more.
pub struct Obituary {
    number: u64,
    /// Chains in service.
    in_service: Vec<String>,
    text: String,
    panics: Vec<String>,
    /// It has made room for another one, as it was told.
    has_left: bool,
    /// How long the next one waits.
    pause: Duration,
}

impl Obituary {
    /// Of a worker that has died, before anybody goes on with what it has left, which the next one
    /// does after a pause.
    #[must_use]
    pub fn of(number: u64, worker: &Running, ledger: &Ledger, settings: &Settings, pause: Duration) -> Self {
        let mut in_service = Vec::new();
        let mut text = format!("It lived for {:.3} s", worker.started.elapsed().as_secs_f64());
        let _ = match worker.ready {
            Some(ready) => writeln!(text, ", and was ready after {:.3} s.", (ready - worker.started).as_secs_f64()),
            None => writeln!(text, ", and was never ready."),
        };
        let mut counters = String::new();
        for (guest, GuestSettings { name, .. }) in &settings.guests {
            for (number, queue) in ledger.queues(*guest).iter().enumerate() {
                if let Some(chain) = queue.in_service() {
                    in_service.push(format!("queue {number} of {name}: {chain}"));
                }
                let counts = &queue.counters;
                if counts.chains() > 0 || counts.ring_errors() > 0 {
                    let _ = writeln!(
                        counters,
                        "queue {number} of {name}: {} chains, {} malformed, {} ring errors",
                        counts.chains(),
                        counts.malformed_chains(),
                        counts.ring_errors()
                    );
                }
            }
        }
        let _ = writeln!(text, "\nChains in service: {}", in_service.len());
        for chain in &in_service {
            let _ = writeln!(text, "{chain}");
        }
        let _ = writeln!(text, "\nCounters since the daemon's start:\n{counters}");
        Self { number, in_service, text, panics: worker.panics.clone(), has_left: worker.left, pause }
    }
}

/// Where reports go.
pub struct Reports {
    are_written: bool,
    waiting: VecDeque<String>,
    writer: Option<Child>,
}

impl Reports {
    /// Reports that are written to files, or go to the log alone.
    #[must_use]
    pub fn new(are_written: bool) -> Self {
        Self { are_written, waiting: VecDeque::new(), writer: None }
    }

    /// Says how a worker has ended.
    pub fn file(&mut self, obituary: Obituary, status: ExitStatus) {
        let Obituary { number, in_service, text, panics, has_left, pause } = obituary;
        if has_left {
            info!("Worker {number} has made room");
            return;
        }
        let how = in_words(status);
        warn!(
            "Worker {number} {how} with {} chains in service; the next one starts in {} ms",
            in_service.len(),
            pause.as_millis()
        );
        if !self.are_written || self.waiting.len() >= MOST_WAITING {
            return;
        }
        let release = env!("CARGO_PKG_VERSION");
        let mut report = format!("vhost-zcache {release}: worker {number} {how}.\n{text}");
        for panic in panics {
            let _ = writeln!(report, "{panic}\n");
        }
        self.waiting.push_back(report);
    }

    /// Has the next report written, when the one before is.
    pub fn go_on(&mut self, spawner: &Spawner) {
        if let Some(writer) = &self.writer
            && writer.status().is_ok_and(|status| status.is_none())
        {
            return;
        }
        self.writer = None;
        let Some(report) = self.waiting.pop_front() else { return };
        match write(spawner, &report) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => warn!("A crash report cannot be written: {error}"),
        }
    }
}

fn write(spawner: &Spawner, report: &str) -> io::Result<Child> {
    let file = File::from(memfd_create("zcache-report", MemfdFlags::CLOEXEC)?);
    // Whoever reads it begins at its beginning.
    file.write_all_at(report.as_bytes(), 0)?;
    spawner.report(file.as_fd())
}
