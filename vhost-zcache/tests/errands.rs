// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the operator has the daemon do once, at the control socket: memory comes back, pages are
//! dropped, guests are frozen; and whoever asks is answered, whatever becomes of the worker.

mod client;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use client::daemon::Daemon;
use client::wire::{PERSISTENT, status};
use client::{Client, eventually, page};
use rustix::process::Signal;

/// Asks for something in a line; the answer.
fn ask(daemon: &Daemon, line: &str) -> String {
    let mut socket = UnixStream::connect(daemon.control_socket()).expect("the control socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    writeln!(socket, "{line}").expect("a line is said");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer within a minute");
    answer.trim_end().to_owned()
}

fn name(socket: &Path) -> &str {
    socket.to_str().expect("a path that is text")
}

/// A guest with so many file pages in pools 1 and 2, and as many swapped ones in pool 3.
fn guest(socket: &Path, pages: u64) -> Client {
    let mut guest = Client::attach(socket);
    for (pool, flags) in [(1, 0), (2, 0), (3, PERSISTENT)] {
        guest.create(pool, flags);
        for index in 0..pages {
            assert_eq!(guest.put(pool, 1, index, &page(index)), status::OK);
        }
    }
    guest
}

/// Pages of a pool that are there.
fn left(guest: &mut Client, pool: u32, pages: u64) -> usize {
    let is_there = |index: &u64| match guest.get(pool, 1, *index) {
        Ok(found) => {
            assert!(found == page(*index), "page {index} is another");
            true
        }
        Err(missed) => {
            assert_eq!(missed, status::MISS, "page {index}");
            false
        }
    };
    (0..pages).filter(is_there).count()
}

#[test]
fn memory_comes_back_with_a_report() {
    let daemon = Daemon::with(&[""], &["--memory-limit", "64M"]);
    let socket = daemon.socket(0);
    let mut guest = guest(&socket, 500);
    let answer = ask(&daemon, "give-back 1000000000");
    let report: serde_json::Value =
        serde_json::from_str(answer.strip_prefix("done ").unwrap_or_else(|| panic!("{answer}"))).expect("JSON");
    let number = |field: &str| report[field].as_u64().unwrap_or_else(|| panic!("{field}: {report}"));
    assert_eq!(number("asked"), 1_000_000_000);
    let ephemeral = report["ephemeral"][name(&socket)].as_u64().unwrap_or_else(|| panic!("{report}"));
    assert!(ephemeral > 500 << 10, "{report}");
    assert_eq!(number("given"), number("garbage") + number("holes") + ephemeral, "{report}");
    assert!(report["milliseconds"].as_f64().is_some_and(|time| time > 0.0), "{report}");
    assert_eq!([1, 2, 3].map(|pool| left(&mut guest, pool, 500)), [0, 0, 500]);
}

#[test]
fn pages_that_may_be_dropped_are_and_others_are_not() {
    let daemon = Daemon::with(&["", ""], &["--memory-limit", "64M"]);
    let socket = daemon.socket(0);
    let mut first = guest(&socket, 100);
    let mut second = guest(&daemon.socket(1), 100);
    assert_eq!(ask(&daemon, &format!("flush {} 1", name(&socket))), "done 100 pages of 1 pools were dropped");
    assert_eq!([1, 2, 3].map(|pool| left(&mut first, pool, 100)), [0, 100, 100]);
    let refused = ask(&daemon, &format!("flush {} 3", name(&socket)));
    assert!(refused.starts_with("refused pool 3 is persistent"), "{refused}");
    let refused = ask(&daemon, &format!("flush {} 4", name(&socket)));
    assert_eq!(refused, "refused the guest has no pool 4");
    assert_eq!(ask(&daemon, "flush nobody"), "refused there is no guest \"nobody\"");
    assert_eq!(ask(&daemon, &format!("flush {}", name(&socket))), "done 100 pages of 2 pools were dropped");
    assert_eq!([1, 2, 3].map(|pool| left(&mut first, pool, 100)), [0, 0, 100]);
    assert_eq!([1, 2, 3].map(|pool| left(&mut second, pool, 100)), [100; 3], "another guest's pages were dropped");
}

#[test]
fn a_frozen_guest_gets_and_flushes_and_nothing_new_is_stored_in_any_worker() {
    let daemon = Daemon::with(&[""], &["--memory-limit", "64M"]);
    let socket = daemon.socket(0);
    let mut guest = guest(&socket, 10);
    let is_frozen = || daemon.guest_stats(0)["frozen"] == true;
    let answer = ask(&daemon, &format!("freeze {}", name(&socket)));
    assert!(answer.starts_with("done "), "{answer}");
    assert!(is_frozen());
    for pool in 1..=3 {
        assert_eq!(guest.put(pool, 1, 20, &page(20)), status::REFUSED);
    }
    daemon.signal_worker(Signal::KILL);
    assert_eq!([1, 2, 3].map(|pool| left(&mut guest, pool, 10)), [10; 3], "pages were lost");
    assert_eq!(guest.put(3, 1, 20, &page(20)), status::REFUSED, "the next worker knows nothing of it");
    assert!(is_frozen());
    assert_eq!(daemon.guest_stats(0)["refused"]["frozen"], 4);
    let answer = ask(&daemon, &format!("thaw {}", name(&socket)));
    assert!(answer.starts_with("done "), "{answer}");
    assert!(!is_frozen());
    assert_eq!(guest.put(3, 1, 20, &page(20)), status::OK);
    let refused = ask(&daemon, "freeze nobody");
    assert!(refused.starts_with("refused ") && refused.contains("nobody"), "{refused}");
}

#[test]
fn whoever_asks_is_answered_although_the_worker_does_nothing() {
    let daemon = Daemon::with(&[""], &["--memory-limit", "64M"]);
    let mut guest = guest(&daemon.socket(0), 10);
    let before = daemon.worker();
    daemon.signal_worker(Signal::STOP);
    assert_eq!(ask(&daemon, "give-back 1000000"), "refused the worker has ended meanwhile: ask again");
    eventually("there is another worker", || daemon.worker().is_some_and(|worker| Some(worker) != before));
    assert_eq!(left(&mut guest, 3, 10), 10);
    eventually("the next worker does it", || ask(&daemon, "give-back 1000000").starts_with("done "));
}
