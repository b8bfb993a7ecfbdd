// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A control group whose limit of memory is below the store's: pages are dropped or refused, and
//! nobody is killed. If the limit is lowered below what the daemon has, the worker is killed,
//! and nothing that was accepted is lost. When others in the group wait for memory, file pages make
//! room.

mod client;

use std::fs;
use std::io::Write;
use std::iter::repeat_n;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use client::daemon::{Daemon, Start};
use client::wire::{PAGE, PERSISTENT, Page, status};
use client::{Client, page};

const LIMIT: u64 = 96 << 20;
/// What is stored, of which nothing can be compressed.
const PAGES: u64 = 48 << 10;
/// Swapped pages beside file pages.
const SWAPPED: u64 = 500;

/// A group of our own, which is removed in the end.
struct Group {
    directory: PathBuf,
    limit: &'static str,
    /// Where the kernel tells of memory pressure, if that is another hierarchy.
    unified: Option<PathBuf>,
}

impl Group {
    /// A group with that limit, where this process may make one.
    fn new(limit: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let (root, path, file) = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
            match controllers {
                "memory" => Some(("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")),
                "" if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() => {
                    Some(("/sys/fs/cgroup", path, "memory.max"))
                }
                _ => None,
            }
        })?;
        let name = format!("zcache-test-{}", std::process::id());
        let directory = Path::new(root).join(path).join(&name);
        fs::create_dir(&directory).ok()?;
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let unified = mounts.lines().find_map(|line| {
            let [_, place, kind] = line.split(' ').take(3).collect::<Vec<_>>()[..] else { return None };
            (kind == "cgroup2" && place != root).then(|| Path::new(place).join(&name))
        });
        let unified = unified.filter(|directory| fs::create_dir(directory).is_ok());
        let group = Self { directory, limit: file, unified };
        fs::write(group.directory.join(file), limit.to_string()).ok()?;
        Some(group)
    }

    /// Whether a process was killed for want of memory.
    fn has_killed(&self) -> bool {
        let events = if self.limit == "memory.max" { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.file(events)).expect("the group's events");
        text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
    }

    /// Sets the limit.
    fn limit(&self, bytes: u64) {
        fs::write(self.file(self.limit), bytes.to_string()).expect("the limit can be changed");
    }

    /// A daemon in the group, whose store may take a GiB, and which watches the group's pressure.
    fn daemon(&self) -> Daemon {
        Daemon::prepared(&[""], Start { arguments: &["--memory-limit=1G"], ..Start::default() }, |command| {
            command.env("MEMORY_PRESSURE_WATCH", self.pressure());
            self.has(command);
        })
    }

    /// Has a command run in the group.
    fn has(&self, command: &mut Command) {
        for directory in [Some(&self.directory), self.unified.as_ref()].into_iter().flatten() {
            let processes = directory.join("cgroup.procs");
            let join = move || fs::File::options().write(true).open(&processes)?.write_all(b"0");
            // SAFETY: the new process has one thread, and opens and writes a file.
            unsafe { command.pre_exec(join) };
        }
    }

    /// Where the kernel tells how long processes of the group wait for memory.
    fn pressure(&self) -> PathBuf {
        self.unified.as_ref().unwrap_or(&self.directory).join("memory.pressure")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in [Some(&self.directory), self.unified.as_ref()].into_iter().flatten() {
            // The daemon's last processes are still ending.
            for _ in 0..100 {
                if fs::remove_dir(directory).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// A page of which nothing can be compressed.
fn noise(number: u64) -> Page {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = page(number);
    for word in noise.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
    noise
}

/// A group with that limit.
fn group(limit: u64) -> Option<Group> {
    let group = Group::new(limit);
    if group.is_none() {
        println!("Not shown: this process may not make a control group with a limit of memory");
    }
    group
}

#[test]
fn in_a_control_group_file_pages_go_first_then_puts_are_refused_and_nobody_is_killed() {
    let Some(group) = group(LIMIT) else { return };
    let daemon = group.daemon();
    assert_eq!(daemon.lines("the control group has"), 1, "{}", daemon.log());
    let room = daemon.stats()["store"]["memory_limit"].as_u64().expect("a number");
    assert!((LIMIT / 2..LIMIT).contains(&room), "the store may take {room} bytes");
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, 0);
    guest.create(2, PERSISTENT);
    let pages = LIMIT / PAGE as u64;
    let files = (0..pages).filter(|number| guest.put(1, 1, *number, &noise(*number)) == status::OK).count() as u64;
    assert!(files * PAGE as u64 > room / 2, "{files} file pages were accepted");
    let swap: Vec<u64> = (0..pages).filter(|number| guest.put(2, 1, *number, &noise(*number)) == status::OK).collect();
    assert!(swap.len() as u64 * PAGE as u64 > room / 2, "{} swapped pages were accepted", swap.len());
    assert!((swap.len() as u64) < pages, "nothing was refused");
    for number in &swap {
        assert_eq!(guest.get(2, 1, *number), Ok(noise(*number)), "page {number} is lost");
    }
    let stats = daemon.guest_stats(0);
    let pool = |id: u64| stats["pools"].as_array().and_then(|pools| pools.iter().find(|pool| pool["id"] == id));
    let evicted = pool(1).and_then(|pool| pool["evicted"].as_u64()).expect("a number");
    assert!(evicted > files / 2, "{evicted} of {files} file pages were dropped for swapped ones");
    assert!(!group.has_killed() && daemon.deaths() == 0, "a process was killed");
}

#[test]
fn a_control_group_that_is_full_loses_nothing() {
    let Some(group) = group(2 << 30) else { return };
    let daemon = group.daemon();
    assert_eq!(daemon.lines("the control group has"), 0, "{}", daemon.log());
    group.limit(LIMIT);
    let done = AtomicBool::new(false);
    let accepted = thread::scope(|threads| {
        threads.spawn(|| {
            // What an operator does who sees it: more memory. The next worker begins with the put
            // that this one was killed in, and is not to be killed in it as well.
            while !done.load(Ordering::Relaxed) && !group.has_killed() {
                thread::yield_now();
            }
            group.limit(1 << 30);
        });
        let mut guest = Client::attach(&daemon.socket(0));
        guest.create(1, PERSISTENT);
        let mut accepted = Vec::new();
        let mut answers = 0;
        for number in 0..PAGES {
            match guest.put(1, 1, number, &noise(number)) {
                status::OK => accepted.push(number),
                status::REFUSED => {}
                other => panic!("put {number} was answered {other}"),
            }
            answers += 1;
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(answers, PAGES);
        for number in &accepted {
            assert_eq!(guest.get(1, 1, *number), Ok(noise(*number)), "page {number} is lost");
        }
        accepted.len() as u64
    });
    println!("{accepted} pages of {PAGE} bytes, {} deaths", daemon.deaths());
    assert!(accepted * PAGE as u64 > LIMIT / 2, "{accepted} pages were accepted");
    assert!(accepted < PAGES || daemon.deaths() > 0, "the limit was not reached");
}

/// How often the store has made room for a host that was short of memory, and how many bytes it
/// gave.
fn relief(daemon: &Daemon) -> (u64, u64) {
    let background = &daemon.stats()["store"]["background"];
    let number = |name: &str| background[name].as_u64().expect("a number");
    (number("relief_steps"), number("relief_bytes"))
}

#[test]
fn extra_file_pages_go_in_steps_while_others_wait_for_memory_and_no_longer() {
    let Some(group) = group(LIMIT) else { return };
    if !group.pressure().exists() {
        println!("Not shown: the kernel does not tell of a control group's memory pressure");
        return;
    }
    let daemon = group.daemon();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, 0);
    guest.create(2, PERSISTENT);
    for number in 0..LIMIT / PAGE as u64 {
        guest.put(1, 1, number, &noise(number));
    }
    for number in 0..SWAPPED {
        assert_eq!(guest.put(2, 1, number, &noise(number)), status::OK);
    }
    // A process that reads a file again and again, for which the rest of the group is too small.
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
    for number in 0..LIMIT / PAGE as u64 {
        file.as_file().write_all(&noise(number)).expect("there is room on the disk");
    }
    file.as_file().sync_all().expect("the file is on the disk");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("nobody needs it");
    let before = daemon.stats()["store"]["physical_bytes"].as_u64().expect("a number");
    assert_eq!(relief(&daemon).1, 0, "pages went before there was any pressure");
    let mut command = Command::new("cat");
    command.args(repeat_n(file.path(), 10_000)).stdout(Stdio::null());
    group.has(&mut command);
    let mut reader = command.spawn().expect("cat is there");
    let started = Instant::now();
    while relief(&daemon).0 < 3 && started.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(50));
    }
    reader.kill().expect("it runs");
    reader.wait().expect("it ends");
    let (steps, given) = relief(&daemon);
    let told = fs::read_to_string(group.pressure()).expect("the kernel tells");
    assert!(steps >= 3, "{steps} steps: {told}{}", daemon.log());
    // Each is a sixteenth of what nobody has reserved, and a segment that is not a whole one.
    assert!(given > 0 && given <= steps * (before / 16 + (512 << 10)), "{given} bytes in {steps} steps");
    // What the kernel has not told yet.
    thread::sleep(Duration::from_secs(5));
    let settled = relief(&daemon);
    thread::sleep(Duration::from_secs(5));
    assert_eq!(relief(&daemon), settled, "pages go after the pressure has ended");
    let files = (0..LIMIT / PAGE as u64).filter(|number| guest.get(1, 1, *number).is_ok()).count();
    assert!(files > 1000, "{files} file pages are left after {settled:?}");
    for number in 0..SWAPPED {
        assert_eq!(guest.get(2, 1, number), Ok(noise(number)), "page {number} is lost");
    }
    assert!(!group.has_killed() && daemon.deaths() == 0, "a process was killed");
}
