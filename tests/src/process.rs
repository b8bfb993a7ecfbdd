// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Child processes that cannot outlive the test.
//!
//! Every child leads its own process group, which is killed as a whole when its
//! [`Process`] is dropped, and asks the kernel to be killed when the test process
//! itself dies, so that a killed test runner leaves no guest behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, set_parent_process_death_signal,
};

/// A running child, the leader of its process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    pidfd: OwnedFd,
    scope: Scope,
    child: Mutex<Child>,
}

/// What a signal to a [`Process`] reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The process group that it leads.
    Group,
    /// The process alone: it lives in our own group.
    Single,
}

impl Process {
    /// Starts `command` with its standard output and error appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("Cannot open the log {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        Self::start(name, command, Scope::Group)
    }

    /// Starts `command` on this process's own terminal, and therefore in its own process
    /// group: another one could not read from the terminal.
    pub fn spawn_on_terminal(name: &str, command: Command) -> Result<Self> {
        Self::start(name, command, Scope::Single)
    }

    fn start(name: &str, mut command: Command, scope: Scope) -> Result<Self> {
        let program = command.get_program().to_owned();
        // SAFETY: the closure runs between fork and exec, where only async-signal-safe
        // calls are allowed: it makes one system call (prctl) and touches no memory
        // that another thread of the parent could have held locked.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let mut child = spawn_from_long_lived_thread(command)
            .with_context(|| format!("Cannot start {name} ({})", program.display()))?;
        let opened = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::InvalidData.into())
            .and_then(|pid| Ok((pid, pidfd_open(pid, PidfdFlags::empty())?)));
        match opened {
            Ok((pid, pidfd)) => Ok(Self { name: name.to_owned(), pid, pidfd, scope, child: Mutex::new(child) }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                let error: io::Error = error;
                Err(anyhow::Error::new(error).context(format!("Cannot watch {name}")))
            }
        }
    }

    /// What the process is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, which is also the id of its process group.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// A descriptor that becomes readable when the process ends.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The exit status, or `None` while the process runs.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        Ok(self.child().try_wait()?)
    }

    /// Waits until the process has ended.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        if !wait_readable(&[self.exit_fd()], limit)?[0] {
            bail!("{} still runs after {limit:?}", self.name);
        }
        Ok(self.child().wait()?)
    }

    /// Sends `signal` to the whole process group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // The lock keeps the child unreaped meanwhile, so the id cannot be reused.
        let mut child = self.child();
        if child.try_wait()?.is_none() {
            match self.scope {
                Scope::Group => kill_process_group(self.pid, signal)?,
                Scope::Single => kill_process(self.pid, signal)?,
            }
        }
        Ok(())
    }

    /// Kills the process group and reaps the process.
    pub fn kill(&self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(20))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("Cannot end {}: {error:#}", self.name);
        }
    }
}

/// Describes how a process ended: "exit code 1" or "signal 9".
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

/// Waits until one of `fds` is readable or has been closed by its peer, and says which;
/// all are `false` when `limit` passed first.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], limit: Duration) -> Result<Vec<bool>> {
    let deadline = Instant::now() + limit;
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut polled, Some(&Timespec::try_from(left)?)) {
            Ok(_) => return Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

type Spawned = mpsc::Sender<io::Result<Child>>;

/// The parent-death signal is tied to the *thread* that forked, so all children come
/// from one thread that lives as long as the process.
fn spawn_from_long_lived_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<(Command, Spawned)>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<(Command, Spawned)>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The asker waits for the answer, so sending cannot fail for long.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let (answer, result) = mpsc::channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| io::Error::other("the spawning thread has ended"))?;
    result.recv().map_err(|_| io::Error::other("the spawning thread has ended"))?
}
