// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The start that README.md gives is one: its daemon serves its guests.

mod client;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;

use client::daemon::{binary, run, wait};
use client::wire::{PERSISTENT, status};
use client::{Client, eventually, page};
use serde_json::Value;

const README: &str = include_str!("../../README.md");

/// Where its sockets are.
const FOLDER: &str = "/run/zcache";

/// The block that contains some text, with its sockets elsewhere.
fn block(containing: &str, folder: &Path) -> String {
    let mut blocks = README.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.contains(containing)).expect("the block");
    block.replace(FOLDER, folder.to_str().expect("a path that is text"))
}

/// Its guests are served, and statistics say so.
fn serves(mut daemon: Child, folder: &Path) {
    for (number, name) in (0u64..).zip(["a.sock", "b.sock"]) {
        let socket = folder.join(name);
        eventually("a guest's socket is there", || UnixStream::connect(&socket).is_ok());
        let mut guest = Client::attach(&socket);
        guest.create(1, PERSISTENT);
        assert_eq!(guest.put(1, 1, 1, &page(number)), status::OK);
        assert_eq!(guest.get(1, 1, 1), Ok(page(number)));
        let stats = UnixStream::connect(folder.join("stats.sock")).expect("statistics");
        let stats: Value = serde_json::from_reader(stats).expect("JSON");
        assert_eq!(stats["guests"][usize::from(name == "b.sock")]["memory_limit"], 4u64 << 30);
    }
    daemon.kill().expect("the daemon");
    wait(&mut daemon);
}

#[test]
fn its_command_line_serves_two_guests() {
    let directory = tempfile::tempdir().expect("a directory");
    let block = block("target/release/vhost-zcache", directory.path()).replace("\\\n", " ");
    let line = block.lines().find_map(|line| line.strip_prefix("target/release/vhost-zcache ")).expect("the line");
    let daemon = binary().args(line.split_whitespace()).spawn().expect("the daemon");
    serves(daemon, directory.path());
}

#[test]
fn its_file_serves_two_guests_and_is_read_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = block("[guest.a]", directory.path());
    let file = directory.path().join("zcache.toml");
    fs::write(&file, text.strip_prefix("toml").expect("TOML")).expect("the file");
    let daemon = binary().arg("--config").arg(&file).spawn().expect("the daemon");
    let control = directory.path().join("control.sock").display().to_string();
    eventually("it can be asked", || run(&["reload", "--control-socket", &control]).status.success());
    serves(daemon, directory.path());
}
