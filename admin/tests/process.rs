// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process, from its start to its end, beside no daemon.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zcache-admin"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A process that is killed when the test ends.
struct Running(Child);

impl Running {
    fn start(socket: &str) -> Self {
        let nowhere = ["--stats-socket", "/nonexistent/stats", "--control-socket", "/nonexistent/control"];
        let child = program(&[&["--socket", socket], &nowhere[..]].concat()).spawn().expect("the program");
        let path = socket.split(',').next().unwrap_or(socket);
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(path).is_err() {
            assert!(Instant::now() < end, "nobody listens at {path}");
            thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One that ends by itself, with one line.
fn fails(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = program(arguments).output().expect("the program");
    let said = String::from_utf8(stderr).expect("text");
    assert!(!status.success(), "{arguments:?}: {said}");
    said
}

fn ask(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn it_listens_as_it_is_told_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("admin");
    let mut running = Running::start(&format!("{},mode=0640", path.display()));
    let mode = fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(ask(&path, "/v1/openapi.json").starts_with("HTTP/1.1 200 "));
    let answer = ask(&path, "/v1/stats");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("there is no daemon at /nonexistent/stats"),
        "{answer}"
    );
    let said = fails(&["--socket", path.to_str().expect("text")]);
    assert!(said.contains("is in use by another process") && said.lines().count() == 1, "{said}");
    assert!(ask(&path, "/v1/openapi.json").starts_with("HTTP/1.1 200 "), "the first goes on");
    kill_process(Pid::from_child(&running.0), Signal::TERM).expect("the process");
    assert!(running.0.wait().expect("its end").success());
    assert_eq!(fs::read_dir(directory.path()).expect("the directory").count(), 0, "something is left");
}

#[test]
fn others_are_turned_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("admin");
    let other = rustix::process::getuid().as_raw() + 1;
    let _running = Running::start(&format!("{},peer={other}", path.display()));
    let mut stream = UnixStream::connect(&path).expect("the socket");
    let _ = stream.write_all(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn what_it_cannot_do_it_says() {
    for (arguments, said) in [
        (&[][..], "No --socket was given, and no service manager has given one"),
        (&["--socket", "/nonexistent/admin"], "/nonexistent/admin"),
        (&["--socket", "/tmp/x,mode=rw"], "\"rw\" is not a mode"),
        (&["--socket", "/tmp/x", "--metrics-address", "0.0.0.0:9464"], "not an address of this machine alone"),
    ] {
        let error = fails(arguments);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}
