// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The real daemon as a child process.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use vhost_zcache::admin::ask::ask;
use vhost_zcache::admin::wish::{Alteration, Wish};

use crate::artefacts::daemon_binary;
use crate::device::Endpoint;
use crate::process::{Process, describe, wait_readable};
use crate::stats::{DaemonStats, GuestStats};

/// One guest's socket and what that guest may do.
#[derive(Debug, Clone, Default)]
pub struct SocketOptions {
    /// Most physical memory of this guest, with a unit such as `64M`.
    pub memory_limit: Option<String>,
    /// UUIDs of the shared pools this guest may create.
    pub allow_shared: Vec<String>,
}

/// How the daemon is started, also after it was killed.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// The program.
    pub binary: PathBuf,
    /// One entry per guest.
    pub sockets: Vec<SocketOptions>,
    /// Most physical memory of all guests together, with a unit.
    pub memory_limit: Option<String>,
    /// Request queues of each guest.
    pub queues: u16,
    /// Threads that serve queues; `None` for the daemon's default.
    pub workers: Option<u8>,
    /// Where workers die, of a daemon built for that: `vhost_zcache::crash`.
    pub die_at: Option<String>,
    /// Further arguments.
    pub arguments: Vec<String>,
}

impl DaemonOptions {
    /// The built daemon with one socket, two queues and room for 512 MiB.
    pub fn usual() -> Result<Self> {
        Ok(Self {
            binary: daemon_binary()?,
            sockets: vec![SocketOptions::default()],
            memory_limit: Some("512M".to_owned()),
            queues: 2,
            workers: None,
            die_at: None,
            arguments: Vec::new(),
        })
    }
}

/// What the log says of a worker that has made a system call which nobody has foreseen.
pub(crate) const WITHOUT_RULE: &str = "for which there is no rule";
/// What it says of others that were not killed by somebody else.
const FAULTS: [&str; 3] = ["panicked at", "does not make sense, and is killed", "was killed by signal 11"];

/// A daemon that can be killed and started anew on the same sockets.
#[derive(Debug)]
pub struct Daemon {
    options: DaemonOptions,
    log: PathBuf,
    sockets: TempDir,
    process: Mutex<Option<Arc<Process>>>,
}

impl Daemon {
    /// Starts the daemon and waits until it serves its sockets. Its log goes to
    /// `daemon.log` in `dir`.
    pub fn start(options: DaemonOptions, dir: &Path) -> Result<Self> {
        let daemon = Self {
            options,
            log: dir.join("daemon.log"),
            // Outside `dir`, whose path may exceed the length of a socket address.
            sockets: tempfile::Builder::new().prefix("zcache-daemon-").tempdir()?,
            process: Mutex::new(None),
        };
        daemon.restart()?;
        Ok(daemon)
    }

    pub(crate) fn socket(&self, index: usize) -> PathBuf {
        self.sockets.path().join(format!("guest{index}.sock"))
    }

    /// Where the VMM of guest number `index` finds this daemon.
    pub fn endpoint(&self, index: usize) -> Result<Endpoint> {
        let backend = self.pid().context("The daemon is dead: restart it first")?;
        Ok(Endpoint { socket: self.socket(index), queues: self.options.queues, backend })
    }

    /// The daemon's process id, if it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process().as_ref().map(|process| process.pid())
    }

    /// Ends the daemon if it runs, and starts a new one with the same options.
    pub fn restart(&self) -> Result<()> {
        let mut slot = self.process();
        if let Some(old) = slot.take() {
            end(&old, Duration::from_secs(10))?;
        }
        let process = Arc::new(Process::spawn("the daemon", self.command(), &self.log)?);
        *slot = Some(Arc::clone(&process));
        drop(slot);
        self.wait_until_served(&process)
    }

    /// Ends the daemon in good order, for which it has so long.
    pub fn end(&self, limit: Duration) -> Result<()> {
        let process = self.process().take().context("The daemon is dead already")?;
        end(&process, limit)
    }

    /// Kills the daemon, keeper and worker, as `kill -9` does.
    pub fn kill(&self) -> Result<()> {
        let process = self.process().take().context("The daemon is dead already")?;
        process.kill()?;
        Ok(())
    }

    /// Kills the daemon's worker as `kill -9` does; the keeper starts another.
    pub fn kill_worker(&self) -> Result<()> {
        let keeper = self.pid().context("The daemon is dead")?;
        let children = format!("/proc/{keeper}/task/{keeper}/children");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let children = std::fs::read_to_string(&children).context("The keeper has ended")?;
            // Another child starts workers; one that is about to end has no command line.
            let is_worker = |pid: &&str| {
                let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                arguments.contains("--worker-link")
            };
            match children.split_whitespace().find(is_worker) {
                Some(worker) => {
                    let pid = worker.parse().ok().and_then(Pid::from_raw).context("No process id")?;
                    return Ok(kill_process(pid, Signal::KILL)?);
                }
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                None => bail!("The daemon has no worker"),
            }
        }
    }

    /// Has the keeper make its worker anew, of the same program.
    pub fn upgrade(&self) -> Result<()> {
        let keeper = self.pid().and_then(Pid::from_raw).context("The daemon is dead")?;
        // Not the whole group: it is the keeper's to tell the others.
        Ok(kill_process(keeper, Signal::USR2)?)
    }

    /// Has the daemon do something; what it says of that.
    pub fn ask(&self, wish: &Wish) -> Result<String> {
        Ok(ask(&self.control_socket(), wish)?)
    }

    /// Has keys of the daemon's configuration be others, as a file says them; what it says of that.
    pub fn alter(&self, keys: &str) -> Result<String> {
        self.ask(&Wish::Alter(Alteration::Set(keys.to_owned())))
    }

    /// Stops the daemon, keeper and worker, for so long, as a debugger does, or a host short of
    /// memory.
    pub fn stand_still(&self, length: Duration) -> Result<()> {
        let process = self.process().clone().context("The daemon is dead")?;
        process.signal(Signal::STOP)?;
        std::thread::sleep(length);
        process.signal(Signal::CONT)
    }

    /// All it has logged so far.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).context("Cannot read the daemon's log")
    }

    /// What it has logged of deaths of workers that nobody has ordered, unless they were to die by
    /// a fault. The next worker goes on where one has died, so tests may not notice otherwise.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let faults: &[&str] = if self.options.die_at.is_some() { &[] } else { &FAULTS };
        let log = self.log()?;
        let is_complaint = |line: &&str| line.contains(WITHOUT_RULE) || faults.iter().any(|fault| line.contains(fault));
        Ok(log.lines().filter(is_complaint).map(str::to_owned).collect())
    }

    /// The daemon's statistics document.
    pub fn stats(&self) -> Result<Value> {
        let mut document = self.read_stats();
        // A worker that dies as it answers says nothing, and the next one does.
        while document.as_ref().is_ok_and(String::is_empty) {
            document = self.read_stats();
        }
        let document = document.context("Cannot read the daemon's statistics")?;
        serde_json::from_str(&document).context("The daemon's statistics are not JSON")
    }

    /// The statistics of guest number `index`.
    pub fn guest_stats(&self, index: usize) -> Result<GuestStats> {
        let mut stats = self.typed_stats()?;
        if index >= stats.guests.len() {
            bail!("The daemon has no guest number {index}");
        }
        Ok(stats.guests.swap_remove(index))
    }

    /// The statistics that tests look at.
    pub fn typed_stats(&self) -> Result<DaemonStats> {
        serde_json::from_value(self.stats()?).context("The daemon's statistics are not as documented")
    }

    fn read_stats(&self) -> Result<String> {
        let mut stream = UnixStream::connect(self.stats_socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut document = String::new();
        stream.read_to_string(&mut document)?;
        Ok(document)
    }

    fn stats_socket(&self) -> PathBuf {
        self.sockets.path().join("stats.sock")
    }

    fn control_socket(&self) -> PathBuf {
        self.sockets.path().join("control.sock")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.options.binary);
        for (index, socket) in self.options.sockets.iter().enumerate() {
            let mut value = self.socket(index).into_os_string();
            if let Some(limit) = &socket.memory_limit {
                value.push(format!(",memory-limit={limit}"));
            }
            for uuid in &socket.allow_shared {
                value.push(format!(",allow-shared={uuid}"));
            }
            command.arg("--socket-path").arg(value);
        }
        if let Some(limit) = &self.options.memory_limit {
            command.arg("--memory-limit").arg(limit);
        }
        command.arg("--queues").arg(self.options.queues.to_string());
        if let Some(workers) = self.options.workers {
            command.arg("--workers").arg(workers.to_string());
        }
        command.arg("--stats-socket").arg(self.stats_socket());
        command.arg("--control-socket").arg(self.control_socket());
        command.args(&self.options.arguments);
        if let Some(places) = &self.options.die_at {
            command.env(vhost_zcache::crash::VARIABLE, places);
        }
        command
    }

    /// The daemon answers at the statistics socket when all are bound, so an answer there says that
    /// the guests' sockets can be connected to. Connecting to one of those to find out would be
    /// taken for a VMM.
    fn wait_until_served(&self, process: &Process) -> Result<()> {
        let limit = Duration::from_secs(20);
        let deadline = Instant::now() + limit;
        loop {
            let Err(error) = self.read_stats() else { return Ok(()) };
            if let Some(status) = process.try_wait()? {
                bail!(
                    "The daemon ended with {} before it served its sockets: {}",
                    describe(status),
                    std::fs::read_to_string(&self.log).unwrap_or_default().trim_end()
                );
            }
            if Instant::now() >= deadline {
                return Err(error.context(format!("The daemon serves no statistics after {limit:?}")));
            }
            // There is no event for "a socket is listening" short of watching the
            // folder; this wait ends early when the daemon does.
            wait_readable(&[process.exit_fd()], Duration::from_millis(5))?;
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(process: &Process, limit: Duration) -> Result<()> {
    process.signal(Signal::TERM)?;
    process.wait(limit).context("The daemon does not end on SIGTERM")?;
    Ok(())
}
