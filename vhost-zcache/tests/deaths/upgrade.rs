// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Another program takes the worker's place.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::daemon::{Daemon, run};
use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, PATIENCE, eventually, page};
use crate::model::{ALLOW, while_guests_work};

/// A program at a path of its own.
struct Program {
    directory: TempDir,
}

impl Program {
    fn of(bytes: &[u8]) -> Self {
        let program = Self { directory: tempfile::tempdir().expect("a directory") };
        fs::write(program.path(), bytes).expect("the program");
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).expect("the program");
        program
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("vhost-zcache")
    }
}

fn daemon_upgraded_to(path: &Path) -> Daemon {
    Daemon::with(&[ALLOW, ALLOW], &["--upgrade-binary", path.to_str().expect("a path that is text")])
}

fn this() -> Vec<u8> {
    fs::read(env!("CARGO_BIN_EXE_vhost-zcache")).expect("the daemon")
}

fn program_of_worker(daemon: &Daemon) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{}/exe", daemon.worker()?)).ok()
}

#[test]
fn a_program_at_another_path_takes_over_under_load() {
    let program = Program::of(&this());
    let daemon = daemon_upgraded_to(&program.path());
    while_guests_work(&daemon, 30, || {
        for upgrade in 1..=8 {
            daemon.signal_keeper(Signal::USR2);
            eventually("the program has taken over", || daemon.lines("has taken over") == upgrade);
        }
    });
    assert_eq!(daemon.lines("has made room"), 8);
    assert_eq!(daemon.lines("chains in service"), 0, "a worker has died");
    assert_eq!(daemon.lines("connection ended"), 0);
    assert_eq!(program_of_worker(&daemon), Some(program.path()));

    // What takes a worker's place after a death is of the same program, wherever that is now.
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    fs::remove_file(program.path()).expect("the program");
    daemon.signal_worker(Signal::KILL);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    let name = program_of_worker(&daemon).expect("a worker");
    assert!(name.starts_with(program.directory.path()), "the worker is of {}", name.display());
}

/// `vhost-zcache upgrade`.
fn ask(daemon: &Daemon) -> Output {
    run(&["upgrade", "--control-socket", daemon.control_socket().to_str().expect("a path that is text")])
}

#[test]
fn who_asks_for_an_upgrade_is_told_when_it_is_done() {
    let program = Program::of(&this());
    let daemon = daemon_upgraded_to(&program.path());
    while_guests_work(&daemon, 40, || {
        for upgrade in 1..=3 {
            let output = ask(&daemon);
            assert!(output.status.success(), "{output:?}");
            let release = env!("CARGO_PKG_VERSION");
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("Release {release} serves\n"));
            assert_eq!(daemon.lines("has taken over"), upgrade, "it was not done yet");
        }
    });
    assert_eq!(daemon.lines("chains in service"), 0, "a worker has died");
}

#[test]
fn nobody_is_kept_from_asking_by_others_who_have_connected() {
    let program = Program::of(&this());
    let daemon = daemon_upgraded_to(&program.path());
    let connect = || {
        let stream = UnixStream::connect(daemon.control_socket()).expect("the operator's socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    };
    let said = |mut stream: UnixStream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    };
    let silent: Vec<UnixStream> = (0..50).map(|_| connect()).collect();
    let mut half = connect();
    half.write_all(b"upgr").expect("half a word");
    let mut wrong = connect();
    wrong.write_all(b"restart\n").expect("a word");
    assert_eq!(said(wrong), "refused it is not understood\n");
    assert!(ask(&daemon).status.success());
    drop((silent, half));
    assert!(ask(&daemon).status.success());
    let nobody = run(&["upgrade", "--control-socket", "/nonexistent/control"]);
    assert_eq!(nobody.status.code(), Some(1));
    let text = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("Cannot ask the daemon at /nonexistent/control"), "{text}");
}

/// A program that does not take over, and why it says so.
fn is_refused(path: &Path, why: &str) {
    let daemon = daemon_upgraded_to(path);
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    let worker = daemon.worker();
    for attempt in 1..=2 {
        daemon.signal_keeper(Signal::USR2);
        eventually("a line says why", || daemon.lines(why) == attempt);
        assert_eq!(daemon.lines("No upgrade"), attempt, "one line for each attempt");
    }
    let output = ask(&daemon);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("No upgrade") && text.contains(why), "{text}");
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert_eq!(daemon.worker(), worker, "the worker has not stayed");
    assert_eq!(daemon.deaths(), 0);
}

#[test]
fn a_program_that_fails_does_not_take_over() {
    let program = Program::of(&fs::read("/bin/false").expect("a program that fails"));
    is_refused(&program.path(), "it does not start");
}

#[test]
fn a_file_that_is_no_program_does_not_take_over() {
    let program = Program::of(b"no program");
    is_refused(&program.path(), "cannot be started");
}

#[test]
fn a_program_that_is_not_there_does_not_take_over() {
    is_refused(Path::new("/nonexistent/vhost-zcache"), "cannot be started");
}

/// Takes the daemon and gives a layout in it another version, wherever it is written.
fn with_another(layout: u64) -> Program {
    let mut bytes = this();
    let layout = layout.to_le_bytes();
    let places: Vec<usize> =
        bytes.windows(layout.len()).enumerate().filter(|(_, w)| *w == layout).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the layout's version is not in the program");
    for at in places {
        bytes[at + layout.len() - 1] += 1;
    }
    Program::of(&bytes)
}

#[test]
fn a_program_with_another_layout_of_the_store_does_not_take_over() {
    let program = with_another(zcache_store::LAYOUT);
    is_refused(&program.path(), "another version of the store's memory");
}

#[test]
fn a_program_with_another_layout_of_the_ledger_does_not_take_over() {
    let program = with_another(vhost_zcache::ledger::LAYOUT);
    is_refused(&program.path(), "another version of the ledger");
}

#[test]
fn a_program_that_could_not_follow_the_keeper_does_not_take_over() {
    let program = with_another(vhost_zcache::keeper::handover::manifest::LAYOUT);
    is_refused(&program.path(), "another version of what a keeper leaves to the next");
}
