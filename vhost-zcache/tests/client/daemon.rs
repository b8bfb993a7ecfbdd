// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The real daemon as a child process.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;
use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::{NamedTempFile, TempDir};

use super::{PATIENCE, eventually};

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    directory: TempDir,
    /// Not in the directory, which the daemon has to leave empty.
    log: NamedTempFile,
    guests: usize,
}

/// How a daemon is started, for what [`Daemon::with`] does not do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start<'a> {
    /// Limits of open files, as `ulimit` takes them: soft and hard.
    pub files: Option<(u32, u32)>,
    /// Further arguments.
    pub arguments: &'a [&'a str],
    /// Where workers die: [`vhost_zcache::crash`].
    pub die_at: Option<&'a str>,
}

impl Daemon {
    /// A daemon with one guest.
    pub fn start() -> Self {
        Self::with(&[""], &[])
    }

    /// A daemon with a guest for each of `guests`, which are options after the socket's path
    /// such as `memory-limit=1M`, and with further arguments.
    pub fn with(guests: &[&str], arguments: &[&str]) -> Self {
        Self::start_as(guests, Start { arguments, ..Start::default() })
    }

    /// A daemon with a guest for each of `guests`. Its log, from `info` on, is kept.
    pub fn start_as(guests: &[&str], start: Start<'_>) -> Self {
        Self::prepared(guests, start, |_| {})
    }

    /// As [`Daemon::start_as`], with more to be done to the command.
    pub fn prepared(guests: &[&str], start: Start<'_>, prepare: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the sockets");
        let mut command = match start.files {
            None => binary(),
            Some((soft, hard)) => {
                let mut shell = Command::new("sh");
                let limit = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
                shell.arg("-c").arg(limit).arg(env!("CARGO_BIN_EXE_vhost-zcache")).stdin(Stdio::null());
                shell
            }
        };
        let log = NamedTempFile::new().expect("a file for the log");
        command.stderr(log.reopen().expect("the file for the log"));
        for (number, options) in guests.iter().enumerate() {
            let mut socket = socket_path(directory.path(), number).into_os_string();
            if !options.is_empty() {
                socket.push(",");
                socket.push(options);
            }
            command.arg("--socket-path").arg(socket);
        }
        command.arg("--stats-socket").arg(directory.path().join("stats"));
        command.arg("--control-socket").arg(directory.path().join("control"));
        command.args(["--log-level", "info"]).args(start.arguments);
        if let Some(place) = start.die_at {
            command.env(vhost_zcache::crash::VARIABLE, place);
        }
        // Where coverage is measured, the one folder that a worker may write to has its counters.
        if let Ok(counters) = std::env::var("ZCACHE_COUNTERS")
            && !start.arguments.contains(&"--crash-directory")
        {
            command.args(["--crash-directory", &counters]);
        }
        if !getuid().is_root() {
            // Files of a process that cannot be dumped are root's to look at.
            command.env(vhost_zcache::sandbox::probe::WATCHED, "");
        }
        prepare(&mut command);
        let child = command.spawn().expect("the daemon starts");
        let mut daemon = Self { child, directory, log, guests: guests.len() };
        let mut sockets: Vec<PathBuf> = (0..daemon.guests).map(|number| daemon.socket(number)).collect();
        sockets.push(daemon.directory.path().join("stats"));
        eventually("the daemon listens on all its sockets", || {
            if let Some(status) = daemon.child.try_wait().expect("the daemon's state") {
                panic!("the daemon ended at its start: {status}\n{}", daemon.log());
            }
            sockets.iter().all(|socket| socket.exists())
        });
        eventually("the daemon answers", || daemon.log().contains("ready"));
        daemon
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).expect("the log")
    }

    /// Lines of the log that contain some text.
    pub fn lines(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Flips a bit in each place of the store's memory that holds `bytes`, as failing memory would;
    /// the number of places.
    pub fn damage(&self, bytes: &[u8]) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the daemon's descriptors");
        let store = descriptors
            .map(|entry| entry.expect("a descriptor").path())
            .find(|path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("zcache-store")))
            .expect("the store's memory file");
        let store = fs::File::options().read(true).write(true).open(store).expect("the store's memory");
        let mut places = 0;
        let mut end = 0;
        while let Ok(start) = rustix::fs::seek(&store, SeekFrom::Data(end)) {
            end = rustix::fs::seek(&store, SeekFrom::Hole(start)).expect("the end of the data");
            let mut data = vec![0; usize::try_from(end - start).expect("a size")];
            store.read_exact_at(&mut data, start).expect("the store's bytes");
            for (at, _) in data.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes) {
                let middle = at + bytes.len() / 2;
                store.write_all_at(&[data[middle] ^ 0x10], start + middle as u64).expect("a write to the store");
                places += 1;
            }
        }
        places
    }

    /// A guest's socket.
    pub fn socket(&self, number: usize) -> PathBuf {
        socket_path(self.directory.path(), number)
    }

    /// The operator's socket.
    pub fn control_socket(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// Directory of the sockets.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The statistics.
    pub fn stats(&self) -> serde_json::Value {
        let mut text = String::new();
        // A worker that dies as it answers says nothing.
        eventually("there are statistics", || {
            let mut socket = UnixStream::connect(self.directory.path().join("stats")).expect("the statistics socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            text.clear();
            socket.read_to_string(&mut text).is_ok_and(|length| length > 0)
        });
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("statistics are no JSON document: {e}\n{text}"))
    }

    /// Statistics of one guest.
    pub fn guest_stats(&self, number: usize) -> serde_json::Value {
        self.stats()["guests"][number].take()
    }

    /// The daemon's processes: the keeper, and the worker if there is one. Not the one that starts
    /// workers, which stays as it is.
    fn processes(&self) -> Vec<u32> {
        [self.child.id()].into_iter().chain(self.worker()).collect()
    }

    /// The process of the keeper.
    pub fn keeper(&self) -> u32 {
        self.child.id()
    }

    /// The process of the worker, if there is one that is not about to end.
    pub fn worker(&self) -> Option<u32> {
        self.child_with("--worker-link")
    }

    /// The process that starts workers.
    pub fn spawner(&self) -> Option<u32> {
        self.child_with("--spawner-link")
    }

    /// The process that saves states or reads them, if there is one.
    pub fn saver(&self) -> Option<u32> {
        self.child_with("--saver-link")
    }

    /// The process that reads the configuration again, if there is one.
    pub fn reader(&self) -> Option<u32> {
        self.child_with("--reader-link")
    }

    /// The keeper's child that has this argument.
    fn child_with(&self, argument: &str) -> Option<u32> {
        let keeper = self.child.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).expect("the keeper");
        // One that is about to end has no arguments any more.
        let has =
            |pid: &&str| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|all| all.contains(argument));
        children.split_whitespace().find(has).map(|pid| pid.parse().expect("a number"))
    }

    /// Kills the worker there is as `kill -9` does, or sends it another signal.
    pub fn signal_worker(&self, signal: Signal) {
        eventually("there is a worker", || self.worker().is_some());
        let pid = self.worker().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).expect("a worker");
        // It may have died meanwhile.
        let _ = kill_process(pid, signal);
    }

    /// Sends the keeper a signal.
    pub fn signal_keeper(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the daemon is alive");
    }

    /// Workers that died, or were replaced.
    pub fn deaths(&self) -> u64 {
        self.stats()["worker_restarts"].as_u64().expect("a number")
    }

    /// Processor time used so far, as long as no worker ends.
    pub fn processor_time(&self) -> Duration {
        self.processes().into_iter().map(Self::processor_time_of).sum()
    }

    fn processor_time_of(process: u32) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the daemon's process");
        // After the command's name in parentheses: state is field 3, utime 14 and stime 15, in
        // ticks of 10 ms on every Linux there is.
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks = |field: usize| fields[field - 3].parse::<u64>().expect("a number");
        Duration::from_millis(10 * (ticks(14) + ticks(15)))
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        self.count("fd")
    }

    /// Threads.
    pub fn threads(&self) -> usize {
        self.count("task")
    }

    fn count(&self, what: &str) -> usize {
        let count = |process| fs::read_dir(format!("/proc/{process}/{what}")).expect("the daemon's process").count();
        self.processes().into_iter().map(count).sum()
    }

    /// Whether the daemon is alive.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("the daemon's state").is_none()
    }

    /// Waits for the end.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Sends a signal and waits for the end; the status and how long it took.
    pub fn end(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let start = Instant::now();
        kill_process(Pid::from_child(&self.child), signal).expect("the daemon is alive");
        let status = wait(&mut self.child);
        (status, start.elapsed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Shown for tests that fail.
        let log = fs::read_to_string(self.log.path()).unwrap_or_default();
        println!("{log}");
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id())).unwrap_or_default();
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its children end with it, a moment later. Nobody is to count its files or threads then.
        let end = Instant::now() + PATIENCE;
        while children.split_whitespace().any(is_alive) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        // The next worker goes on, so nothing else need show it.
        assert!(
            std::thread::panicking() || !log.contains("for which there is no rule"),
            "a worker made a system call that nobody has foreseen"
        );
    }
}

/// Whether there is such a process. One that has ended has no files and threads, even if nobody has
/// asked for its status yet: init may take seconds to do that.
pub fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn socket_path(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("guest{number}"))
}

/// The daemon's binary, to be started with arguments.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-zcache"));
    command.stdin(Stdio::null());
    command
}

/// Runs the binary with arguments that make it end by itself.
pub fn run(arguments: &[&str]) -> Output {
    let mut child =
        binary().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the daemon starts");
    wait(&mut child);
    child.wait_with_output().expect("its output")
}

/// Waits for a process, which is killed if it does not end.
pub fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child process") {
            return status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().expect("a child process");
            panic!("the daemon did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
