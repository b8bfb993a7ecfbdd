// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Start and end of the daemon and of connections.

mod client;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use client::daemon::{Daemon, binary, run, wait};
use client::wire::{PERSISTENT, Req, SHARED, status};
use client::{Client, PATIENCE, Setup, Shape, eventually, page};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn reconnecting_leaves_nothing_behind() {
    let daemon = Daemon::start();
    let use_it = |number: u64| {
        let mut guest = Client::attach(&daemon.socket(0));
        guest.create(0, PERSISTENT);
        assert_eq!(guest.get(0, 1, 1), Err(status::MISS), "the page of the last connection is still there");
        assert_eq!(guest.put(0, 1, 1, &page(number)), status::OK);
    };
    let gone = || {
        eventually("the guest is gone", || daemon.guest_stats(0)["connected"] == false);
        (daemon.descriptors(), daemon.threads())
    };
    use_it(0);
    let before = gone();
    for number in 0..1000 {
        use_it(number);
    }
    // The thread of the last statistics reader's connection may still close its socket.
    eventually("descriptors and threads are as many as before", || gone() == before);
    eventually("the store is empty again", || daemon.stats()["store"]["physical_bytes"] == 0);
}

#[test]
fn a_connection_that_makes_no_sense_is_closed_and_the_next_one_served() {
    let daemon = Daemon::start();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80], b""] {
        let mut socket = UnixStream::connect(daemon.socket(0)).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // The daemon may close its end before all is written.
        let _ = socket.write_all(garbage);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        // Reset by peer is another way to close.
        let _ = socket.read_to_end(&mut rest);
    }
    Client::attach(&daemon.socket(0)).create(0, 0);
}

#[test]
fn the_daemon_ends_at_once_when_told_to() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start();
        let mut guest = Client::attach(&daemon.socket(0));
        guest.create(0, PERSISTENT);
        for _ in 0..50 {
            let _ = guest.post(0, &[Req::put(0, 1, 1, &page(1))], Shape::Whole);
        }
        let (status, took) = daemon.end(signal);
        assert_eq!(status.code(), Some(0), "after {signal:?}");
        assert!(took < Duration::from_secs(2), "it took {took:?} after {signal:?}");
        let left: Vec<_> = fs::read_dir(daemon.directory()).expect("the directory").collect();
        assert!(left.is_empty(), "files are left behind after {signal:?}: {left:?}");
    }
}

#[test]
fn a_killed_daemon_is_replaced_and_a_live_one_is_not() {
    let mut first = Daemon::start();
    let socket = first.socket(0).display().to_string();

    let second = run(&["--socket-path", &socket, "--log-level", "error"]);
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8(second.stderr).expect("a message");
    assert_eq!(message, format!("vhost-zcache: Socket {socket} is in use by another process\n"));
    Client::attach(&first.socket(0)).create(0, 0);

    first.end(Signal::KILL);
    assert!(first.socket(0).exists(), "the test needs a stale socket");
    let mut third = binary().args(["--socket-path", &socket, "--log-level", "error"]).spawn().expect("the daemon");
    eventually("the new daemon answers", || UnixStream::connect(first.socket(0)).is_ok());
    Client::attach(&first.socket(0)).create(0, 0);
    third.kill().expect("the daemon");
    wait(&mut third);
}

#[test]
fn wrong_command_lines_get_one_clear_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("file"), "data").expect("a file");
    let cases: [(&[&str], &str); 21] = [
        (&[], "There is no guest: give --socket-path, --fd or --config"),
        (&["--bogus"], "--bogus"),
        (&["--socket-path"], "--socket-path"),
        (&["--socket-path", ""], "socket is missing"),
        (&["--socket-path", "a,size=1"], "size=1"),
        (&["--socket-path", "a,memory-limit=lots"], "memory-limit"),
        (&["--socket-path", "a,allow-shared=me"], "UUID"),
        (&["--socket-path", "a", "--memory-limit", "1.5G"], "--memory-limit"),
        (&["--socket-path", "a", "--memory-limit", "0"], "zero"),
        (&["--socket-path", "a", "--queues", "65"], "1..=64"),
        (&["--socket-path", "a", "--queues", "0"], "1..=64"),
        (&["--socket-path", "a", "--log-level", "loud"], "--log-level"),
        (&["--socket-path", "a", "--socket-path", "a"], "twice"),
        (&["--socket-count", "1", "--socket-path", "a", "--socket-path", "a"], "a0 is given twice"),
        (&["--socket-count", "2", "--fd", "3"], "--socket-path"),
        (&["--socket-path", "a,group=no such group"], "no such group"),
        (&["--socket-path", "a", "--socket-owner", "no such user"], "no such user"),
        (&["--socket-path", "a", "--socket-mode", "u+rw"], "octal number"),
        (&["--fd", "1"], "from 3 on"),
        (&["--fd", "977"], "977 is not open"),
        (&["--fd", "x"], "--fd"),
    ];
    let directory_missing = path("missing/guest");
    let too_long = path(&"x".repeat(200));
    let more: [(&[&str], &str); 3] = [
        (&["--socket-path", &directory_missing], "No such file or directory"),
        (&["--socket-path", &path("file")], "is not a socket"),
        (&["--socket-path", &too_long], "too long for a socket's path"),
    ];
    for (arguments, expected) in cases.into_iter().chain(more) {
        let output = run(arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        assert!(message.contains(expected), "{arguments:?} says {message:?} and not {expected:?}");
        assert!(message.starts_with("vhost-zcache: "), "{arguments:?} says {message:?}");
        assert_eq!(message.matches('\n').count(), 1, "{arguments:?} says more than a line: {message:?}");
        assert!(output.stdout.is_empty(), "{arguments:?} prints to standard output");
    }
    let left = fs::read_dir(directory.path()).expect("the directory").count();
    assert_eq!(left, 1, "failed starts leave files behind");
}

#[test]
fn capabilities_are_json() {
    let output = run(&["--print-capabilities"]);
    assert!(output.status.success());
    let capabilities: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(capabilities["type"], "zcache");
    let features = capabilities["features"].as_array().expect("a list");
    for feature in ["socket-path", "fd", "socket-count"] {
        assert!(features.iter().any(|known| known == feature), "{feature} is not among {features:?}");
    }
    let again = run(&["--bogus", "--print-capabilities", "--socket-path"]);
    assert!(again.status.success(), "QEMU's conventions have it that other arguments are ignored");
    assert_eq!(again.stdout, output.stdout);
}

/// As the daemons of rust-vmm's vhost-device have it: the paths are numbered, also a single one.
#[test]
fn a_count_of_sockets_makes_numbered_ones_with_the_same_options() {
    for count in [1, 3] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vm.sock").display().to_string();
        let stats = directory.path().join("stats").display().to_string();
        let mut command = binary();
        command.args(["--socket-count", &count.to_string(), "--socket-path", &format!("{path},memory-limit=1M")]);
        let mut child = command.args(["--stats-socket", &stats, "--log-level", "error"]).spawn().expect("the daemon");
        for number in 0..count {
            let socket = PathBuf::from(format!("{path}{number}"));
            eventually("there is the socket", || UnixStream::connect(&socket).is_ok());
            let mut guest = Client::attach(&socket);
            guest.create(0, PERSISTENT);
            assert_eq!(guest.put(0, 1, 1, &page(1)), status::OK, "at {}", socket.display());
        }
        let known: Value = serde_json::from_reader(UnixStream::connect(&stats).expect("statistics")).expect("JSON");
        let known = known["guests"].as_array().expect("guests");
        assert_eq!(known.len(), count, "of --socket-count {count}");
        for (number, guest) in known.iter().enumerate() {
            let (name, limit) = (&guest["name"], &guest["memory_limit"]);
            assert_eq!((name, limit), (&format!("{path}{number}").into(), &(1 << 20).into()));
        }
        child.kill().expect("the daemon");
        wait(&mut child);
    }
}

#[test]
fn an_inherited_connection_is_served_and_ends_the_daemon() {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let number = inherit(&theirs).to_string();
    let mut child = binary().args(["--fd", &number, "--log-level", "error"]).spawn().expect("the daemon");
    drop(theirs);
    let mut guest = Client::from_stream(ours, Setup::default());
    guest.hello(1);
    guest.create(0, 0);
    assert_eq!(guest.put(0, 1, 1, &page(1)), status::OK);
    drop(guest);
    assert_eq!(wait(&mut child).code(), Some(0), "nobody can connect any more");
}

#[test]
fn an_inherited_listener_is_served() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let number = inherit(&listener).to_string();
    let mut child = binary().args(["--fd", &number, "--log-level", "error"]).spawn().expect("the daemon");
    drop(listener);
    for _ in 0..2 {
        Client::attach(&path).create(0, 0);
    }
    child.kill().expect("the daemon");
    wait(&mut child);
    assert!(path.exists(), "a socket that somebody else made is not removed");
}

/// As systemd gives the sockets of a socket unit, with the name of its `FileDescriptorName=`.
#[test]
fn a_socket_that_a_service_manager_gives_is_known_by_its_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let start = |arguments: &[&str]| {
        // The shell becomes the daemon, and knows its number.
        let script = format!(
            "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web1; exec \"$0\" \"$@\" 3<&{}",
            inherit(&listener)
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_vhost-zcache")]).args(arguments).stdin(Stdio::null());
        shell.args(["--log-level", "error"]).stderr(Stdio::piped()).spawn().expect("the daemon")
    };
    let mut child = start(&["--fd", "web1"]);
    for _ in 0..2 {
        Client::attach(&path).create(0, 0);
    }
    child.kill().expect("the daemon");
    wait(&mut child);
    let file = directory.path().join("zcache.toml");
    fs::write(&file, "[guest.first]\nfd = 'web1'\nmemory-limit = '1M'\n").expect("the file");
    let stats = directory.path().join("stats");
    let (file, path_of_stats) = (file.display().to_string(), stats.display().to_string());
    let mut child = start(&["--config", &file, "--stats-socket", &path_of_stats]);
    Client::attach(&path).create(0, 0);
    let known: Value = serde_json::from_reader(UnixStream::connect(&stats).expect("statistics")).expect("JSON");
    assert_eq!(
        (&known["guests"][0]["name"], &known["guests"][0]["memory_limit"]),
        (&"first".into(), &(1 << 20).into())
    );
    child.kill().expect("the daemon");
    wait(&mut child);
    for (arguments, expected) in [
        (&["--fd", "web2"][..], "No socket named \"web2\" was given for --fd"),
        (&["--fd", "web1", "--fd", "3"][..], "File descriptor 3 is given twice"),
    ] {
        let output = start(arguments).wait_with_output().expect("its output");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(expected) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
}

#[test]
fn an_inherited_file_of_another_kind_is_refused() {
    let file = tempfile::tempfile().expect("a file");
    let number = inherit(&file).to_string();
    let child = binary().args(["--fd", &number]).stderr(Stdio::piped()).spawn().expect("the daemon");
    let output = child.wait_with_output().expect("its output");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!("vhost-zcache: File descriptor {number} is not a Unix stream socket\n")
    );
    assert_eq!(output.status.code(), Some(1));
}

/// Lets child processes inherit a descriptor under its number.
fn inherit(file: &(impl AsFd + AsRawFd)) -> i32 {
    fcntl_setfd(file, FdFlags::empty()).expect("an open descriptor");
    file.as_raw_fd()
}

#[test]
fn statistics_are_for_the_owner_and_say_what_happened() {
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    let daemon =
        Daemon::with(&[&format!("memory-limit=8M,allow-shared={uuid}"), ""], &["--memory-limit", "64M", "--queues=3"]);
    let mode = fs::metadata(daemon.directory().join("stats")).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others may read the statistics");

    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(5, PERSISTENT);
    let bytes = [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
    assert_eq!(guest.status(Req::create(6, SHARED, bytes)), status::OK);
    guest.put(5, 1, 1, &page(1));
    guest.put(5, 1, 2, &page(2));
    assert_eq!(guest.get(5, 1, 1), Ok(page(1)));
    assert_eq!(guest.get(5, 1, 3), Err(status::MISS));
    guest.raw(1, b"short", 16, Shape::Whole);
    guest.raw(1, &client::wire::encode(&[Req::new(77, 0, 0)]), 16, Shape::Whole);

    let stats = daemon.stats();
    assert_eq!(stats["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(stats["store"]["memory_limit"], 64 << 20);
    assert_eq!(stats["store"]["pages"], 2);
    let guest = &stats["guests"][0];
    assert_eq!(guest["name"], daemon.socket(0).display().to_string());
    assert_eq!(guest["connected"], true);
    assert_eq!(guest["session"], true);
    assert_eq!(guest["memory_limit"], 8 << 20);
    assert_eq!(guest["eviction"], "s3-fifo");
    assert_eq!(guest["queues"].as_array().map(Vec::len), Some(3));
    assert_eq!(guest["queues"][1]["chains"], 2);
    assert_eq!(guest["queues"][1]["malformed_chains"], 1);
    assert_eq!(guest["queues"][1]["requests"], 1);
    assert_eq!(guest["requests"]["put"]["ok"], 2);
    assert_eq!(guest["requests"]["get"]["ok"], 1);
    assert_eq!(guest["requests"]["get"]["miss"], 1);
    assert_eq!(guest["requests"]["unknown"]["unsupported"], 1);
    assert_eq!(guest["pools"][0]["id"], 5);
    assert_eq!(guest["pools"][0]["kind"], "persistent");
    assert_eq!(guest["pools"][0]["uuid"], Value::Null);
    assert_eq!(guest["pools"][0]["pages"], 2);
    assert_eq!(guest["pools"][0]["puts"], 2);
    assert_eq!(guest["pools"][0]["hits"], 1);
    assert_eq!(guest["pools"][1]["kind"], "shared");
    assert_eq!(guest["pools"][1]["uuid"], uuid);
    assert_eq!(stats["guests"][1]["connected"], false);
}
