// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program, asking somebody who is beside a made-up daemon.

mod beside;

use std::fs;
use std::process::{Command, Output};

use beside::Beside;

fn run(arguments: &[&str], beside: Option<&Beside>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zcachectl"));
    command.env_remove("ZCACHE_ADMIN_SOCKET").args(arguments);
    if let Some(beside) = beside {
        command.env("ZCACHE_ADMIN_SOCKET", beside.socket());
    }
    command.output().expect("the program")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// What it prints, when it succeeds.
fn prints(arguments: &[&str], beside: &Beside) -> String {
    let output = run(arguments, Some(beside));
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{arguments:?}");
    text(&output.stdout)
}

#[test]
fn tables_are_aligned() {
    let beside = Beside::start();
    for arguments in [&["guests"][..], &["pools"], &["pools", "vm-001"]] {
        let table = prints(arguments, &beside);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines.len() > 2 && lines[0].starts_with("GUEST"), "{table}");
        // Each number ends where its heading ends.
        let end = lines[0].find("PAGES").expect("a heading") + "PAGES".len();
        for line in &lines[1..] {
            assert!(line.as_bytes()[end - 1].is_ascii_digit(), "{table}");
            assert!(line.as_bytes().get(end).is_none_or(|byte| *byte == b' '), "{table}");
        }
    }
    let stats = prints(&["stats"], &beside);
    assert!(stats.lines().any(|line| line == "memory             3G of 4G (75%)"), "{stats}");
    let guest = prints(&["guests", "vm-001"], &beside);
    assert!(guest.lines().any(|line| line == "limit              1G"), "{guest}");
}

#[test]
fn scripts_get_the_document() {
    let beside = Beside::start();
    let guests: serde_json::Value = serde_json::from_str(&prints(&["--json", "guests"], &beside)).expect("JSON");
    assert_eq!(guests["guests"].as_array().map(Vec::len), Some(3));
    let done: serde_json::Value =
        serde_json::from_str(&prints(&["set", "vm-001", "--weight", "7", "--json"], &beside)).expect("JSON");
    assert_eq!(done["message"], "so it is");
}

#[test]
fn each_command_says_what_is_meant() {
    let beside = Beside::start();
    let set = |text: &str| format!("set {}\n", serde_json::Value::from(text));
    for (arguments, line) in [
        (&["set", "--memory-limit", "8G"][..], set("memory-limit = \"8G\"\n")),
        (&["set", "--guest-memory-limit", "default"], set("guest-memory-limit = \"default\"\n")),
        (&["set", "vm-001", "--reservation", "default"], set("[guest.vm-001]\nreservation = \"default\"\n")),
        (&["set", "vm-001", "--peer", "root", "--peer", "7"], set("[guest.vm-001]\npeers = [\"root\", \"7\"]\n")),
        (&["set", "vm-001", "--peer", "default"], set("[guest.vm-001]\npeers = []\n")),
        (&["set", "vm-001", "--allow-shared", "default"], set("[guest.vm-001]\nallow-shared = []\n")),
        (&["remove", "vm-001"], "remove vm-001\n".into()),
        (&["remove", "vm-001", "--disconnect"], "remove vm-001 --disconnect\n".into()),
        (&["freeze", "vm-001"], "freeze vm-001\n".into()),
        (&["thaw", "vm-001"], "thaw vm-001\n".into()),
        (&["flush", "vm-001", "--pool", "3"], "flush vm-001 3\n".into()),
        (&["give-back", "1G"], "give-back 1073741824\n".into()),
        (&["reload", "--disconnect"], "reload --disconnect\n".into()),
        (&["upgrade"], "upgrade\n".into()),
    ] {
        prints(arguments, &beside);
        assert_eq!(beside.asked(), line, "{arguments:?}");
    }
    prints(&["add", "web1", "/run/zcache/web1", "--group", "kvm", "--weight", "200"], &beside);
    let asked = beside.asked();
    for part in ["add ", "[guest.web1]", "socket = \\\"/run/zcache/web1\\\"", "group = \\\"kvm\\\"", "weight = 200"] {
        assert!(asked.contains(part), "{asked} has no {part}");
    }
}

#[test]
fn mistakes_are_told_in_a_few_lines_and_by_the_exit_status() {
    let beside = Beside::start();
    for (arguments, status, said) in [
        (&[][..], 2, "Usage"),
        (&["guest"], 2, "unrecognized subcommand 'guest'"),
        (&["guests", "a", "b"], 2, "unexpected argument 'b'"),
        (&["guests", "nobody"], 1, "there is no guest \"nobody\""),
        (&["pools", "nobody"], 1, "there is no guest \"nobody\""),
        (&["set"], 2, "Nothing is to be set"),
        (&["set", "vm-001"], 2, "Nothing is to be set"),
        (&["set", "nobody", "--weight", "1"], 1, "there is no guest \"nobody\""),
        (&["set", "--weight", "1"], 2, "name it"),
        (&["set", "--reservation", "1M"], 2, "GUEST"),
        (&["set", "vm-001", "--log-level", "debug"], 2, "cannot be used with"),
        (&["set", "--log-level", "loud"], 2, "debug, trace"),
        (&["set", "--memory-limit", "8GB"], 2, "\"8GB\" is not a size"),
        (&["set", "--memory-limit", "0"], 2, "\"0\" is not a size"),
        (&["set", "--memory-limit", "-1"], 2, ""),
        (&["set", "vm-001", "--weight", "20000"], 2, "is not a weight"),
        (&["set", "vm-001", "--allow-shared", "7"], 2, "is not a UUID"),
        (&["set", "vm-001", "--peer", "default", "--peer", "0"], 2, "--peer default stands alone"),
        (&["add", "web1"], 2, "<SOCKET>"),
        (&["add", "web1", "run/web1"], 2, "begins with /"),
        (&["add", "web1", "/run/web1", "--mode", "rw"], 2, "is not a mode"),
        (&["add", "web 1", "/run/web1"], 1, "no name of a guest"),
        (&["add", "vm-001", "/run/web1"], 1, "there is a guest \"vm-001\" already"),
        (&["remove"], 2, "<GUEST>"),
        (&["remove", "nobody"], 1, "there is no guest \"nobody\""),
        (&["flush", "vm-001", "--pool", "x"], 2, "--pool"),
        (&["give-back"], 2, "<SIZE>"),
        (&["give-back", "lots"], 2, "is not a size"),
        (&["freeze", "vm-002"], 1, "not that one\nnor another"),
        (&["--socket", "/nonexistent/admin", "stats"], 3, "Cannot ask at /nonexistent/admin: "),
        (&["check", "/nonexistent/file"], 2, "Cannot read /nonexistent/file: "),
    ] {
        let output = run(arguments, Some(&beside));
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
        assert!(error.replace("zcachectl: ", "").contains(said), "{arguments:?}: {error}");
        assert!(arguments.is_empty() || error.lines().count() <= 9, "{arguments:?}: {error}");
        assert!(output.stdout.is_empty() && !error.contains("GET /"), "{arguments:?}: {error}");
    }
    let output = run(&["stats"], None);
    assert_eq!(output.status.code(), Some(3), "nobody is at the default socket");
    assert!(text(&output.stderr).contains("Is zcache-admin running"), "{output:?}");
}

#[test]
fn a_daemon_that_is_gone_has_a_status_of_its_own() {
    let mut beside = Beside::start();
    beside.end_daemon();
    let output = run(&["stats"], Some(&beside));
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stderr).contains("there is no daemon at"), "{output:?}");
}

#[test]
fn a_file_is_checked_without_a_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("zcache.toml");
    fs::write(&file, "[guest.a]\nsocket = '/run/a'\n").expect("the file");
    let file = file.to_str().expect("text");
    let output = run(&["check", file], None);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), format!("{file}: no faults, 1 guest\n")));
    fs::write(file, "queues = 0\n[guest.a]\nsocket = 'a'\n").expect("the file");
    let output = run(&["check", file], None);
    let error = text(&output.stderr);
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 2), "{error}");
    assert!(error.starts_with(&format!("{file}:1:10: queues is a number")), "{error}");
}
