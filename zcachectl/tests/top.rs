// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `zcachectl top` where there is no terminal, beside a made-up daemon.

#[allow(dead_code, reason = "other tests use the rest")]
mod beside;

use std::process::{Command, Output};

use beside::Beside;

fn top(arguments: &[&str], beside: &Beside) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zcachectl"));
    command.env("ZCACHE_ADMIN_SOCKET", beside.socket()).arg("top").args(arguments);
    command.output().expect("the program")
}

#[test]
fn it_is_one_table() {
    let beside = Beside::start();
    for arguments in [&["--delay", "0.1"][..], &["--once", "-d", "0.5"]] {
        let output = top(arguments, &beside);
        let table = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}");
        let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0][..4], ["GUEST", "PUT/s", "GET/s", "HIT"], "{table}");
        let guests: Vec<&str> = words[1..].iter().map(|line| line[0]).collect();
        assert_eq!(guests, ["vm-001", "vm-002", "vm-003"], "{table}");
        // Nothing has happened between two documents that are the same.
        assert!(words[1..].iter().all(|line| line[1..3] == ["0", "0"]), "{table}");
    }
}

#[test]
fn what_it_cannot_do_it_says() {
    let mut beside = Beside::start();
    let output = top(&["--json"], &beside);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--json is not for top"));
    for delay in ["0", "x", "1e9"] {
        let output = top(&["--delay", delay], &beside);
        assert_eq!(output.status.code(), Some(2), "--delay {delay}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("seconds"), "--delay {delay}");
    }
    beside.end_daemon();
    let output = top(&[], &beside);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no daemon at"));
}
