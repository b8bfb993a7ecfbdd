// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel says of the processes.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use vhost_zcache::sandbox::probe::WATCHED;

use crate::client::daemon::{Daemon, Start};
use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, eventually, page};

fn field(process: u32, file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{process}/{file}")).expect("the process");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_process_has_given_up_what_it_does_not_need() {
    let daemon = Daemon::prepared(&[""], Start::default(), |command| {
        command.env_remove(WATCHED);
    });
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    let worker = daemon.worker().expect("a worker");
    let spawner = daemon.spawner().expect("a process that starts workers");
    for process in [daemon.keeper(), worker, spawner] {
        let status = |name| field(process, "status", name);
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(set), "0000000000000000", "{process}: {set}");
        }
        if rustix::process::getuid().is_root() {
            assert_eq!(status("CapBnd"), "0000000000000000", "{process}");
        }
        assert_eq!(status("NoNewPrivs"), "1", "{process}");
        assert_eq!(status("Seccomp"), "2", "{process}: a filter");
        assert_eq!(field(process, "limits", "Max core file size"), "0 0 bytes");
        // Files of a process that cannot be dumped belong to root. (As those of root's always do.)
        assert_eq!(fs::metadata(format!("/proc/{process}/fd")).expect("the process").uid(), 0);
    }
    // Each thread of the worker has more filters than the process.
    let filters = |thread: &str| -> usize {
        let status = fs::read_to_string(format!("/proc/{worker}/task/{thread}/status")).expect("a thread");
        let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
        line.and_then(|number| number.trim().parse().ok()).expect("a number")
    };
    let all = filters(&worker.to_string());
    let threads = fs::read_dir(format!("/proc/{worker}/task")).expect("the threads");
    let mut narrowed = 0;
    for thread in threads.map(|entry| entry.expect("a thread").file_name().into_string().expect("a number")) {
        if thread != worker.to_string() {
            assert!(filters(&thread) > all, "thread {thread} has the filters of the process only");
            narrowed += 1;
        }
    }
    assert!(narrowed >= 4, "{narrowed} threads: store, statistics, two queues at least");
}

#[test]
fn who_reads_the_configuration_has_given_up_what_it_does_not_need() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("zcache.toml");
    fs::write(&file, "").expect("the file");
    let arguments = ["--config", file.to_str().expect("a path that is text")];
    let daemon = Daemon::prepared(&[""], Start { arguments: &arguments, ..Start::default() }, |command| {
        command.env_remove(WATCHED);
    });
    // Nobody writes to it, so whoever reads it waits.
    fs::remove_file(&file).expect("the file");
    mknodat(CWD, &file, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    daemon.signal_keeper(Signal::HUP);
    eventually("somebody reads the file", || daemon.reader().is_some());
    let reader = daemon.reader().expect("a process");
    let waits = || fs::read_to_string(format!("/proc/{reader}/wchan")).is_ok_and(|place| place.contains("fifo"));
    eventually("it is confined, and waits", || waits() || field(reader, "status", "State").starts_with('S'));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(reader, "status", set), "0000000000000000", "{set}");
    }
    assert_eq!(field(reader, "status", "NoNewPrivs"), "1");
    assert_eq!(field(reader, "status", "Seccomp"), "2", "a filter");
    assert_eq!(field(reader, "limits", "Max core file size"), "0 0 bytes");
}

#[test]
fn who_starts_workers_may_die_while_there_is_one() {
    let mut daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    let spawner = daemon.spawner().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).expect("a process");
    kill_process(spawner, Signal::KILL).expect("the process");
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    // Without a worker, nor one to come, the daemon is of no use, and says so at once.
    daemon.signal_worker(Signal::KILL);
    let status = daemon.wait_for_end();
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    assert_eq!(daemon.lines("the process that starts workers was killed"), 1, "{}", daemon.log());
}
