// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The frame around every test that boots a guest: one folder of evidence, one time
//! limit, one teardown, and a look into every guest's kernel log at the end.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::daemon::{Daemon, DaemonOptions};
use crate::vm::{Vm, VmOptions};

/// One test in progress: starts its daemons and guests, and knows them all.
#[derive(Debug)]
pub struct Scenario {
    dir: PathBuf,
    cast: Mutex<Cast>,
}

/// Everything that was started, in order.
#[derive(Debug, Default)]
struct Cast {
    vms: Vec<Arc<Vm>>,
    daemons: Vec<Arc<Daemon>>,
    /// Nobody may come any more.
    over: bool,
}

/// Runs `body` as the test `name`. When it fails, takes longer than `limit`, or leaves a
/// complaint in a guest's kernel log or a daemon's, the test fails and its folder keeps the guests'
/// serial logs, kernel logs and counters and the daemons' logs.
///
/// Others run beside it, for a guest does not always work.
pub fn scenario(name: &str, limit: Duration, body: impl FnOnce(&Scenario) -> Result<()>) {
    run(File::lock_shared, name, limit, body);
}

/// Like [`scenario`], for a test that has the machine to itself.
pub fn lone_scenario(name: &str, limit: Duration, body: impl FnOnce(&Scenario) -> Result<()>) {
    run(File::lock, name, limit, body);
}

fn run(lock: fn(&File) -> io::Result<()>, name: &str, limit: Duration, body: impl FnOnce(&Scenario) -> Result<()>) {
    let turn = take_turn(lock).expect("the lock that serialises the tests with guests");
    let dir = fresh_folder(name).expect("a folder for the test's logs");
    let scenario = Arc::new(Scenario { dir: dir.clone(), cast: Mutex::default() });
    let expired = Arc::new(AtomicBool::new(false));
    let (done, watched) = mpsc::channel::<()>();
    let watchdog = {
        let (scenario, expired) = (Arc::clone(&scenario), Arc::clone(&expired));
        thread::spawn(move || {
            if watched.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                expired.store(true, Ordering::Release);
                scenario.keep_evidence();
                scenario.kill_all();
            }
        })
    };

    let outcome = catch_unwind(AssertUnwindSafe(|| {
        body(&scenario)?;
        scenario.check_kernel_logs()?;
        scenario.check_daemon_logs()
    }));
    drop(done);
    let watched_to_the_end = watchdog.join();
    let late = expired.load(Ordering::Acquire);
    if !matches!(outcome, Ok(Ok(()))) {
        if !late {
            scenario.keep_evidence();
        }
        scenario.show_kernel_logs();
        eprintln!("Logs and counters of '{name}' are in {}", dir.display());
    }
    scenario.kill_all();
    drop(turn);
    watched_to_the_end.expect("the watchdog of the test");
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) if late => panic!("'{name}' was stopped after {limit:?}: {error:#}"),
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => resume_unwind(panic),
    }
}

impl Scenario {
    /// One that has no frame: its user looks at kernel logs and keeps evidence, and what was
    /// started ends with it.
    #[must_use]
    pub fn unframed(dir: PathBuf) -> Self {
        Self { dir, cast: Mutex::default() }
    }

    /// The folder for logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a daemon with these options.
    pub fn daemon(&self, options: DaemonOptions) -> Result<Arc<Daemon>> {
        let daemon = Arc::new(Daemon::start(options, &self.dir)?);
        self.open_cast()?.daemons.push(Arc::clone(&daemon));
        Ok(daemon)
    }

    /// Boots a guest.
    pub fn vm(&self, options: VmOptions) -> Result<Arc<Vm>> {
        let vm = Vm::boot(options, &self.dir)?;
        self.open_cast()?.vms.push(Arc::clone(&vm));
        Ok(vm)
    }

    fn check_kernel_logs(&self) -> Result<()> {
        let vms = self.cast().vms.clone();
        for vm in vms {
            if vm.process().try_wait()?.is_some() {
                continue;
            }
            let name = &vm.options().name;
            let complaints = vm.complaints().with_context(|| format!("Cannot read the kernel log of {name}"))?;
            if !complaints.is_empty() {
                bail!("The kernel of {name} complained:\n{}", complaints.join("\n"));
            }
        }
        Ok(())
    }

    fn check_daemon_logs(&self) -> Result<()> {
        let daemons = self.cast().daemons.clone();
        for daemon in daemons {
            let complaints = daemon.complaints()?;
            if !complaints.is_empty() {
                bail!("The daemon has a fault:\n{}", complaints.join("\n"));
            }
        }
        Ok(())
    }

    /// Writes what is needed to understand a failure into the folder.
    pub fn keep_evidence(&self) {
        let vms = self.cast().vms.clone();
        for vm in vms {
            vm.keep_evidence();
        }
    }

    /// Prints how the guests' kernel logs end, for whoever sees only what the test printed.
    fn show_kernel_logs(&self) {
        const LINES: usize = 60;
        for vm in &self.cast().vms {
            let name = &vm.options().name;
            let log = fs::read_to_string(self.dir.join(format!("{name}-dmesg.txt"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(LINES)..];
            eprintln!("The end of the kernel log of {name}:\n{}", end.join("\n"));
        }
    }

    fn kill_all(&self) {
        let cast = std::mem::replace(&mut *self.cast(), Cast { over: true, ..Cast::default() });
        for vm in &cast.vms {
            if let Err(error) = vm.process().kill() {
                eprintln!("Cannot end a guest: {error:#}");
            }
        }
        for daemon in &cast.daemons {
            if daemon.pid().is_some()
                && let Err(error) = daemon.kill()
            {
                eprintln!("Cannot end the daemon: {error:#}");
            }
        }
    }

    /// The cast, unless the limit passed while someone was still on the way to it.
    fn open_cast(&self) -> Result<MutexGuard<'_, Cast>> {
        let cast = self.cast();
        if cast.over { bail!("The test is over") } else { Ok(cast) }
    }

    fn cast(&self) -> MutexGuard<'_, Cast> {
        self.cast.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the build puts its output, and the tests their logs.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target"), PathBuf::from)
}

fn logs_folder() -> PathBuf {
    target_folder().join("zcache-tests")
}

fn take_turn(lock: fn(&File) -> io::Result<()>) -> Result<File> {
    let folder = logs_folder();
    fs::create_dir_all(&folder)?;
    let turn = File::create(folder.join(".turn"))?;
    lock(&turn)?;
    Ok(turn)
}

/// An empty folder for the logs of the test or command `name`.
pub fn fresh_folder(name: &str) -> Result<PathBuf> {
    let dir = logs_folder().join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("Cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("Cannot create {}", dir.display()))?;
    Ok(dir)
}
