// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the operator finds when a worker has died.

use std::fs;
use std::path::Path;

use crate::client::daemon::{Daemon, Start};
use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, eventually, page};

/// The one report that there is to be.
fn report(directory: &Path) -> String {
    let mut text = String::new();
    eventually("there is a report", || {
        let names: Vec<_> = fs::read_dir(directory).expect("the directory").collect();
        assert!(names.len() <= 1, "there are {} reports of one death", names.len());
        for name in names {
            text = fs::read_to_string(name.expect("a report").path()).expect("a report");
        }
        // It is written in one go.
        !text.is_empty()
    });
    text
}

/// A daemon whose first worker dies at a place, and that writes reports to a directory.
fn dies_at(place: &str, directory: &Path) -> Daemon {
    let directory = directory.to_str().expect("a path that is text");
    Daemon::start_as(
        &[""],
        Start { die_at: Some(place), arguments: &["--crash-directory", directory], ..Start::default() },
    )
}

#[test]
fn a_report_names_the_chain_that_was_in_service() {
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = dies_at("chain-taken:3:1", directory.path());
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    let text = report(directory.path());
    let chain =
        format!("queue 0 of {}: chain 2, of which 0 requests were done, taken 1 times", daemon.socket(0).display());
    assert!(text.contains("worker 1 was killed by signal 9"), "{text}");
    assert!(text.contains(&chain), "{text}");
    assert!(text.contains(": 2 chains, 0 malformed, 0 ring errors"), "{text}");
}

#[test]
fn a_panic_is_reported_with_its_backtrace_and_costs_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    // The change is the stop of a queue; 13 are made before.
    let daemon = dies_at("stop-noted:1:1:panic", directory.path());
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    guest.stop_queue(0);
    guest.start_queue(0);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "a panic has taken a page along");
    let text = report(directory.path());
    assert!(text.contains("worker 1 was killed by signal 6"), "{text}");
    assert!(text.contains("Thread main: panicked at"), "{text}");
    assert!(text.contains("a test has asked for it"), "{text}");
    assert!(text.contains("src/worker/vring.rs"), "there is no backtrace:\n{text}");
}

#[test]
fn a_report_that_cannot_be_written_costs_a_line_of_the_log() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let daemon = dies_at("chain-taken:3:1", file.path());
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    eventually("there is a line", || daemon.lines("A crash report cannot be written to") == 1);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert_eq!(daemon.deaths(), 1);
}
