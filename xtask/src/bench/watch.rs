// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The longest of many operations, less what others had the CPU for meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Operations below this are not looked into.
const LONG: Duration = Duration::from_micros(500);
/// Operations between two marks, at most.
const MARK_EVERY: u32 = 64;

/// What a thread has done so far.
#[derive(Clone, Copy)]
struct Mark {
    wall: Instant,
    /// Time on a CPU. The kernel does not count what a hypervisor stole.
    cpu: Duration,
    /// How often it waited for something.
    sleeps: u64,
    /// How often the CPU was taken from it.
    preemptions: u64,
}

impl Mark {
    fn now() -> Result<Self> {
        let status = fs::read_to_string("/proc/thread-self/status")?;
        let count = |name| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            value
                .with_context(|| format!("/proc/thread-self/status has no {name}"))?
                .trim()
                .parse()
                .map_err(anyhow::Error::from)
        };
        Ok(Self {
            wall: Instant::now(),
            cpu: clock_gettime(ClockId::ThreadCPUTime).try_into()?,
            sleeps: count("voluntary_ctxt_switches:")?,
            preemptions: count("nonvoluntary_ctxt_switches:")?,
        })
    }
}

/// Times operations.
pub(super) struct Watch {
    mark: Mark,
    since_mark: u32,
    /// The longest operation, less the time that the CPU was with others. If it waited *and* was
    /// preempted nobody can tell how long for which, and it does not count.
    pub(super) longest: Duration,
    /// The longest of all, waiting for a CPU included.
    pub(super) longest_wall: Duration,
    /// Long operations during which the CPU was taken away.
    pub(super) preempted: u64,
}

impl Watch {
    pub(super) fn new() -> Result<Self> {
        let mark = Mark::now()?;
        Ok(Self { mark, since_mark: 0, longest: Duration::ZERO, longest_wall: Duration::ZERO, preempted: 0 })
    }

    /// What the thread did since the last operation was something else.
    pub(super) fn resume(&mut self) -> Result<()> {
        self.restart(Mark::now()?);
        Ok(())
    }

    /// Does `work` and returns how many nanoseconds it took.
    pub(super) fn time(&mut self, work: impl FnOnce() -> Result<()>) -> Result<u64> {
        let started = Instant::now();
        work()?;
        let elapsed = started.elapsed();
        self.longest_wall = self.longest_wall.max(elapsed);
        self.since_mark += 1;
        if elapsed > LONG {
            let now = Mark::now()?;
            let own = self.own(elapsed, now);
            self.preempted += u64::from(own.is_none_or(|own| own < elapsed - elapsed / 8));
            self.longest = self.longest.max(own.unwrap_or_default());
            self.restart(now);
        } else {
            self.longest = self.longest.max(elapsed);
            if self.since_mark == MARK_EVERY {
                self.restart(Mark::now()?);
            }
        }
        Ok(u64::try_from(elapsed.as_nanos())?)
    }

    /// How much of a long operation's time was its own, as far as that can be told.
    fn own(&self, elapsed: Duration, now: Mark) -> Option<Duration> {
        let preempted = now.preemptions != self.mark.preemptions;
        if now.sleeps != self.mark.sleeps {
            return (!preempted).then_some(elapsed);
        }
        let off_cpu = (now.wall - self.mark.wall).saturating_sub(now.cpu.saturating_sub(self.mark.cpu));
        Some(elapsed.saturating_sub(off_cpu))
    }

    fn restart(&mut self, mark: Mark) {
        self.mark = mark;
        self.since_mark = 0;
    }
}
