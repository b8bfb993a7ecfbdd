// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each kind of thread does what it may not, at the moment it is confined.

use std::process::{Command, Stdio};

use vhost_zcache::sandbox::probe::VARIABLE;
use vhost_zcache::sandbox::rule::Kind;

use crate::client::daemon::{Daemon, Start, binary, wait};
use crate::client::state::Way;
use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, Setup, eventually, page};

/// A daemon in which threads of a kind do something.
fn daemon(kind: Kind, deed: &str, arguments: &[&str]) -> Daemon {
    let probe = format!("{}:{deed}", kind.name());
    let start = Start { arguments, ..Start::default() };
    Daemon::prepared(&[""], start, |command| {
        command.env(VARIABLE, probe).env("RUST_BACKTRACE", "1");
    })
}

/// Has the daemon have a thread of each kind.
fn use_all(daemon: &Daemon) {
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    for number in 0..50 {
        assert_eq!(guest.put(1, 1, number, &page(number)), status::OK);
    }
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert_eq!(daemon.stats()["store"]["pages"], 50);
    guest.save(Way::Pipe);
}

/// Waits for a line of the log: threads do not wait for one another to begin.
fn expect_line(daemon: &Daemon, text: &str) {
    eventually(text, || daemon.lines(text) > 0);
}

/// The daemon of a process that dies over and over never serves; its log, once it says so.
fn log_of_one_that_dies(kind: Kind, deed: &str, says: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("socket");
    let log = tempfile::NamedTempFile::new().expect("a log");
    let stats = directory.path().join("stats");
    let mut child = binary()
        .arg("--socket-path")
        .arg(&socket)
        .arg("--stats-socket")
        .arg(&stats)
        .env(VARIABLE, format!("{}:{deed}", kind.name()))
        .stderr(log.reopen().expect("the log"))
        .spawn()
        .expect("the daemon");
    let text = || std::fs::read_to_string(log.path()).expect("the log");
    if kind == Kind::Keeper {
        let end = wait(&mut child);
        assert!(end.to_string().contains(says), "{kind:?}: {end}\n{}", text());
        return;
    }
    let mut guest = None;
    eventually("a worker dies", || {
        let begins_later = [Kind::Queue, Kind::Statistics, Kind::State].contains(&kind);
        if guest.is_none() && begins_later && text().contains("ready") {
            guest = Some(std::os::unix::net::UnixStream::connect(&socket).map(|stream| {
                // The thread of a ring begins with the ring, that of a state with the transfer.
                std::thread::spawn(move || {
                    let setup = Setup { start: kind != Kind::State, ..Setup::default() };
                    let client = Client::from_stream(stream, setup);
                    if kind == Kind::State {
                        let _ = client.begin_save(Way::Pipe);
                    }
                    client
                })
            }));
        }
        text().contains(says)
    });
    child.kill().expect("the daemon");
    wait(&mut child);
}

#[test]
fn a_call_without_a_rule_kills() {
    for kind in Kind::ALL {
        let says = if kind == Kind::Keeper { "31" } else { "was killed because it made a system call" };
        log_of_one_that_dies(kind, "denied", says);
    }
}

#[test]
fn nothing_can_be_executed() {
    for kind in Kind::ALL {
        let says = if kind == Kind::Keeper { "31" } else { "was killed because it made a system call" };
        log_of_one_that_dies(kind, "execute", says);
    }
}

#[test]
fn abort_is_an_abort() {
    for kind in Kind::ALL {
        let says = if kind == Kind::Keeper { "signal: 6" } else { "was killed by signal 6" };
        log_of_one_that_dies(kind, "abort", says);
        log_of_one_that_dies(kind, "overflow", says);
    }
}

#[test]
fn a_call_without_a_rule_is_carried_out_where_it_is_only_logged() {
    for kind in Kind::ALL {
        for mode in ["log", "none"] {
            let daemon = daemon(kind, "denied", &["--seccomp", mode]);
            use_all(&daemon);
            expect_line(&daemon, &format!("Probe of {}: denied: Ok", kind.name()));
        }
    }
}

#[test]
fn no_file_can_be_opened() {
    // Refused by the filter, as libraries try to; by Landlock where there is no filter.
    for kind in Kind::ALL {
        for (deed, mode) in [("open", "kill"), ("open", "none"), ("write", "kill"), ("write", "none")] {
            let daemon = daemon(kind, deed, &["--seccomp", mode]);
            use_all(&daemon);
            let refused = format!("Probe of {}: {deed}: Err(Os {{ code: 13", kind.name());
            expect_line(&daemon, &refused);
        }
    }
}

#[test]
fn landlock_lets_nobody_else_be_signalled() {
    for kind in Kind::ALL {
        let daemon = daemon(kind, "signal", &["--seccomp", "none"]);
        use_all(&daemon);
        let refused = format!("Probe of {}: signal: Some(Err(Os {{ code: 1,", kind.name());
        expect_line(&daemon, &refused);
    }
}

#[test]
fn landlock_lets_nothing_be_executed() {
    for kind in Kind::ALL {
        let daemon = daemon(kind, "execute", &["--seccomp", "none"]);
        use_all(&daemon);
        let refused = format!("Probe of {}: execute: Err(Os {{ code: 13", kind.name());
        expect_line(&daemon, &refused);
    }
}

#[test]
fn a_panic_says_what_it_can_and_the_daemon_goes_on() {
    // Of others nobody catches it.
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Statistics) {
        let daemon = daemon(kind, "panic", &[]);
        use_all(&daemon);
        expect_line(&daemon, "a panic to order");
        expect_line(&daemon, &format!("Probe of {}: panic: true", kind.name()));
        assert_eq!(daemon.deaths(), 0, "{}", daemon.log());
    }
}

#[test]
fn a_panic_that_nobody_catches_is_an_abort() {
    log_of_one_that_dies(Kind::Statistics, "panic", "was killed by signal 6");
}

#[test]
fn an_action_that_there_is_not_is_a_mistake() {
    let output = Command::new(env!("CARGO_BIN_EXE_vhost-zcache"))
        .args(["--socket-path", "/nowhere", "--seccomp", "trap"])
        .stdin(Stdio::null())
        .output()
        .expect("the daemon");
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
}
