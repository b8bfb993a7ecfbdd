// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process, from its start to its end, beside no daemon.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vhost_zcache::sandbox::probe::VARIABLE;
use vhost_zcache::sandbox::rule::Rule;
use zcache_admin::confine::RULES;
use zcache_admin::server::MOST_CONNECTIONS;

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

/// Sockets of a daemon that has statistics, and does all that it is asked for.
fn daemon_in(directory: &Path) {
    let bind = |name| UnixListener::bind(directory.join(name)).expect("a socket");
    let (stats, control) = (bind("stats"), bind("control"));
    let document = serde_json::to_vec(&zcache_report::sample::report(100, 10)).expect("a document");
    thread::spawn(move || {
        for reader in stats.incoming() {
            // Who has read enough leaves.
            let _ = reader.and_then(|mut reader| reader.write_all(&document));
        }
    });
    thread::spawn(move || {
        for asker in control.incoming().flatten() {
            let mut line = String::new();
            let _ = BufReader::new(&asker).read_line(&mut line);
            let _ = (&asker).write_all(b"done so it is\n");
        }
    });
}

/// What it does for its peers it has rules for: otherwise it would be killed.
#[test]
fn confined_it_does_all_that_it_is_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    daemon_in(directory.path());
    let port = {
        // Free at the moment, and not used by anybody who is given any port.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its number").port()
    };
    let address = format!("127.0.0.1:{port}");
    let arguments =
        ["--socket", &path("admin"), "--stats-socket", &path("stats"), "--control-socket", &path("control")];
    let mut child = Running(program(&[&arguments[..], &["--metrics-address", &address]].concat()).spawn().expect("it"));
    let end = Instant::now() + PATIENCE;
    while UnixStream::connect(path("admin")).is_err() {
        assert!(Instant::now() < end, "nobody listens");
        thread::sleep(Duration::from_millis(5));
    }
    let admin = directory.path().join("admin");
    let stats = ask(&admin, "/v1/stats");
    assert!(stats.starts_with("HTTP/1.1 200 ") && stats.len() > 100_000, "{} bytes: {:.300}", stats.len(), stats);
    assert!(ask(&admin, "/metrics").starts_with("HTTP/1.1 200 "));
    let mut metrics = String::new();
    let mut stream = TcpStream::connect(&address).expect("the address for metrics");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
    stream.read_to_string(&mut metrics).expect("metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics:.300}");
    let mut stream = UnixStream::connect(&admin).expect("the socket");
    let body = r#"{"memory_limit": "1G"}"#;
    let head = "PATCH /v1/settings HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // More than it serves at once, of which some leave in the middle of a word, and nonsense.
    let crowd: Vec<UnixStream> =
        (0..MOST_CONNECTIONS + 8).map(|_| UnixStream::connect(&admin).expect("the socket")).collect();
    for (number, mut peer) in crowd.into_iter().enumerate() {
        let said: &[u8] = if number % 2 == 0 { b"GET /v1/st" } else { b"\xff\0\r\n\r\n" };
        // The oldest were sent away.
        let _ = peer.write_all(said);
    }
    assert!(ask(&admin, "/v1/health").starts_with("HTTP/1.1 200 "));
    kill_process(Pid::from_child(&child.0), Signal::INT).expect("the process");
    assert!(child.0.wait().expect("its end").success());
    assert!(!admin.exists(), "its socket is left");
}

#[test]
fn a_call_without_a_rule_kills() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("admin").display().to_string();
    for (deed, signal) in [("denied", 31), ("execute", 31), ("abort", 6)] {
        let output = program(&["--socket", &socket]).env(VARIABLE, format!("admin:{deed}")).output().expect("it");
        assert_eq!(output.status.signal(), Some(signal), "{deed}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn landlock_keeps_files_and_others_away() {
    for (deed, error) in [
        ("open", "Err(Os { code: 13"),
        ("write", "Err(Os { code: 13"),
        ("execute", "Err(Os { code: 13"),
        ("signal", "Some(Err(Os { code: 1,"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("admin").display().to_string();
        let mut command = program(&["--socket", &socket, "--seccomp", "none"]);
        let mut child = Running(command.env(VARIABLE, format!("admin:{deed}")).spawn().expect("it"));
        let mut lines = BufReader::new(child.0.stderr.take().expect("its log")).lines();
        let said = lines.find_map(|line| line.ok().filter(|line| line.contains("Probe of admin"))).expect("its deed");
        assert!(said.contains(&format!("{deed}: {error}")), "{said}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_documentation_has_its_rules() {
    let row = |rule: &Rule| format!("| `{}` | {} | {} |\n", rule.name(), rule.only, rule.why);
    let table = format!("| call | if | what for |\n|---|---|---|\n{}", RULES.iter().map(row).collect::<String>());
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sandbox.md")).expect("the document");
    assert!(text.contains(&table), "docs/sandbox.md should have this table:\n{table}");
}
