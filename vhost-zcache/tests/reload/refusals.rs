// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A file that is not taken changes nothing.

use std::fs;
use std::os::unix::process::CommandExt;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::daemon::{Daemon, Start, run};
use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, eventually, page};
use crate::file::{Configured, with};

const BEFORE: &str = "memory-limit = '64M'\nguest-memory-limit = '8M'";

/// A file is refused with one line each of which begins or ends so, and nothing has changed.
fn changes_nothing(daemon: &Configured, guest: &mut Client, text: &str, lines: &[&str]) {
    let folder = daemon.path();
    let files = || fs::read_dir(folder.parent().expect("a folder")).expect("the folder").count();
    let before = (daemon.daemon.worker(), files());
    daemon.write(text);
    let said = daemon.is_refused();
    assert_eq!(said.lines().count(), lines.len(), "{text}\n{said}");
    for (said, expected) in said.lines().zip(lines) {
        assert!(said.contains(expected), "{said:?} does not say {expected:?}");
    }
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "the guest goes on");
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK, "the guest goes on");
    assert_eq!(daemon.guest("a")["memory_limit"], 8 << 20, "{text}: a limit has changed");
    let stats = daemon.daemon.stats();
    assert_eq!(stats["store"]["memory_limit"], 64 << 20, "{text}: a limit has changed");
    assert_eq!(stats["guests"].as_array().map(Vec::len), Some(1), "{text}: a guest has come");
    assert_eq!((daemon.daemon.worker(), files()), before, "{text}: a file is left, or a worker is another");
}

#[test]
fn what_has_faults_or_cannot_change_changes_nothing() {
    let daemon = Configured::start(&with(BEFORE, &["a"]));
    let mut guest = Client::attach(&daemon.socket("a"));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    let path = daemon.path().display().to_string();
    let mut refused = |text: &str, lines: &[&str]| changes_nothing(&daemon, &mut guest, text, lines);

    // Everything else in these files would be a change.
    let more = "memory-limit = '32M'\nguest-memory-limit = '1M'";
    let faulty = with(&format!("{more}\nqueues = 0\nlog-level = 'loud'"), &["a", "b"]);
    refused(&faulty, &[&format!("{path}:3:10: queues is a number"), &format!("{path}:4:13: log-level is one of")]);
    refused(&format!("{more}\n[guest.a\n"), &[&format!("{path}:3:")]);
    for key in ["queues = 4", "workers = 7", "seccomp = 'log'", "max-guests = 9", "crash-directory = '/tmp'"] {
        let name = key.split(' ').next().expect("a key");
        let line = format!("{name} cannot change while the daemon runs");
        refused(&with(&format!("{more}\n{key}"), &["a", "b"]), &[&line]);
    }
    let elsewhere = format!("{}[guest.b]\nsocket = '/tmp/zcache-elsewhere'\n", with(more, &["a"]));
    refused(&elsewhere, &["guest.b.socket: /tmp/zcache-elsewhere is in no folder that had a socket"]);
    let taken = format!("{}[guest.b]\nsocket = '{path}'\n", with(more, &["a", "c"]));
    refused(&taken, &["exists and is not a socket"]);
    fs::remove_file(daemon.path()).expect("the file");
    let said = daemon.is_refused();
    assert!(said.contains(&format!("Cannot read {path}")), "{said}");
    daemon.write(&with(BEFORE, &["a"]));
    assert_eq!(daemon.reload(), "nothing has changed");
}

#[test]
fn a_signal_with_a_faulty_file_changes_nothing_and_the_log_says_where() {
    let daemon = Configured::start(&with(BEFORE, &["a"]));
    daemon.write(&with("memory-limit = '32M'\nqueues = 99", &["a"]));
    daemon.daemon.signal_keeper(Signal::HUP);
    let line = format!("The configuration stays as it is: {}:2:10: queues is a number", daemon.path().display());
    eventually("the log says where", || daemon.daemon.lines(&line) == 1);
    assert_eq!(daemon.daemon.stats()["store"]["memory_limit"], 64 << 20);
}

/// A file that nobody has written to yet, as one of a host that is far away.
#[test]
fn who_reads_the_file_may_hang_and_die() {
    let daemon = Configured::start(&with(BEFORE, &["a"]));
    let mut guest = Client::attach(&daemon.socket("a"));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    fs::remove_file(daemon.path()).expect("the file");
    mknodat(CWD, daemon.path(), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    daemon.daemon.signal_keeper(Signal::HUP);
    eventually("somebody reads the file", || daemon.daemon.reader().is_some());
    for _ in 0..100 {
        assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "the guest goes on");
    }
    assert!(daemon.is_refused().contains("one is under way"));
    fs::write(daemon.path(), with(BEFORE, &["a"]).replace("DIR", &folder(&daemon))).expect("the pipe");
    eventually("it was read", || daemon.daemon.lines("was taken: nothing has changed") == 1);

    daemon.daemon.signal_keeper(Signal::HUP);
    eventually("somebody reads the file", || daemon.daemon.reader().is_some());
    let reader = daemon.daemon.reader().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    kill_process(reader.expect("a process"), Signal::KILL).expect("the process");
    eventually("it is said", || daemon.daemon.lines("the process that reads it has ended") == 1);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    daemon.write(&with(BEFORE, &["a", "b"]));
    assert!(daemon.reload().ends_with("added b"));
    assert_eq!(daemon.daemon.lines("cannot be left") + daemon.daemon.lines("cannot be waited on"), 0);
}

fn folder(daemon: &Configured) -> String {
    daemon.path().parent().expect("a folder").display().to_string()
}

#[test]
fn without_a_file_there_is_nothing_to_read() {
    let daemon = Daemon::start();
    let control = daemon.control_socket();
    let output = run(&["reload", "--control-socket", control.to_str().expect("text")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("there is no --config to read again"), "{said}");
}

#[test]
fn a_signal_ends_a_daemon_that_has_no_file() {
    let mut daemon = Daemon::prepared(&[""], Start::default(), |command| {
        // Whoever runs the tests may have it ignored.
        // SAFETY: it makes a system call, and nothing else.
        unsafe { command.pre_exec(|| reset(libc::SIGHUP)) };
    });
    let (status, _) = daemon.end(Signal::HUP);
    assert_eq!(status.code(), None, "as it ends any program");
}

/// Gives a signal its usual meaning.
fn reset(signal: libc::c_int) -> std::io::Result<()> {
    // SAFETY: the default takes no handler.
    let before = unsafe { libc::signal(signal, libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn several_who_ask_are_all_answered() {
    let daemon = Configured::start(&with(BEFORE, &["a"]));
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| daemon.ask(&[]))).collect();
        for output in asked.into_iter().map(|asked| asked.join().expect("an answer")) {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success()
                    || said.contains("one is under way")
                    || said.contains("has not said")
                    || said.contains("Cannot ask"),
                "{said}"
            );
        }
    });
    assert_eq!(daemon.reload(), "nothing has changed");
}
