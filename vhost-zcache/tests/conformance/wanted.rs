// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SPEC.md section 7, WANTED: the host would like to be rid of persistent pages.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::client::daemon::Daemon;
use crate::client::state::Way;
use crate::client::wire::{PERSISTENT, Req, TAKE_BACK, opcode, status};
use crate::client::{Client, page};

/// Pages and milliseconds of the answer to a guest that asks.
fn ask(guest: &mut Client) -> (u64, u64) {
    let answer = guest.one(Req::new(opcode::WANTED, 0, 0));
    assert_eq!((answer.status, answer.flags), (status::OK, 0));
    (answer.value & 0xffff_ffff, answer.value >> 32)
}

/// A guest that takes pages back, with some in a persistent pool.
fn guest(daemon: &Daemon, number: usize, pages: u64) -> Client {
    let mut guest = Client::connect(&daemon.socket(number), crate::client::Setup::default());
    assert_eq!(guest.status(Req::hello(1).with_features(TAKE_BACK)), status::OK);
    guest.create(1, PERSISTENT);
    for index in 0..pages {
        assert_eq!(guest.put(1, 1, index, &page(index)), status::OK);
    }
    guest
}

/// Has the daemon want so much memory back.
fn give_back(daemon: &Daemon, bytes: u64) -> serde_json::Value {
    let mut socket = UnixStream::connect(daemon.control_socket()).expect("the control socket");
    writeln!(socket, "give-back {bytes}").expect("a line is said");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let report = answer.trim_end().strip_prefix("done ").unwrap_or_else(|| panic!("{answer}"));
    serde_json::from_str(report).expect("JSON")
}

/// Conformance: ZC-DEV-97, ZC-DEV-98.
#[test]
fn who_has_not_acknowledged_it_may_not_ask() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    assert_eq!(guest.config(8, 4), TAKE_BACK.to_le_bytes(), "it is not offered");
    let wanted = || Req::new(opcode::WANTED, 0, 0);
    assert_eq!(guest.status(wanted()), status::UNSUPPORTED);
    assert_eq!(guest.status(wanted().with(20, &[1])), status::INVALID, "the format comes first");
    assert_eq!(guest.status(Req::hello(1).with_features(TAKE_BACK)), status::OK);
    let (pages, again) = ask(&mut guest);
    assert_eq!(pages, 0, "a guest without pages is to take some back");
    assert!((100..=60_000).contains(&again), "it is to ask again after {again} ms");
    guest.hello(1);
    assert_eq!(guest.status(wanted()), status::UNSUPPORTED, "another HELLO does not count");
}

/// Conformance: ZC-DEV-98.
#[test]
fn a_session_that_was_loaded_has_it() {
    let (here, there) = (Daemon::start(), Daemon::start());
    let mut moved = guest(&here, 0, 20);
    let state = moved.save(Way::Socket);
    let mut moved = moved.moved_to(&there.socket(0));
    assert!(moved.load(Way::Socket, &state), "the state was not loaded\n{}", there.log());
    moved.start_all();
    assert_eq!(ask(&mut moved).0, 0);
    assert_eq!(moved.get(1, 1, 7), Ok(page(7)));
}

/// Conformance: ZC-DEV-97, ZC-DEV-99, ZC-DEV-100.
#[test]
fn what_is_wanted_is_what_is_there_and_becomes_less() {
    const PAGES: u64 = 600;
    let daemon = Daemon::with(&["", ""], &["--memory-limit", "64M"]);
    let mut asking = guest(&daemon, 0, PAGES);
    let mut silent = guest(&daemon, 1, PAGES);
    let (_, calm) = ask(&mut asking);
    let report = give_back(&daemon, 1 << 30);
    let names: Vec<_> = report["wanted_pages"].as_object().expect("an object").keys().collect();
    assert_eq!(names, [daemon.socket(0).to_str().expect("text")], "who has not asked is asked: {report}");

    let (pages, again) = ask(&mut asking);
    assert_eq!(pages, PAGES, "of so many pages");
    assert!((100..calm).contains(&again), "it is to ask again after {again} ms, and otherwise after {calm}");
    assert_eq!(daemon.guest_stats(0)["wanted_pages"], PAGES);
    for index in 0..50 {
        assert_eq!(asking.status(Req::flush_page(1, 1, index)), status::OK);
    }
    assert_eq!(asking.one(Req::flush_range(1, 1, 50, 50)).value, 50);
    assert_eq!(asking.status(Req::flush_page(1, 1, 0)), status::OK);
    assert_eq!(ask(&mut asking).0, PAGES - 100);
    assert_eq!(daemon.guest_stats(0)["taken_back_pages"], 100);

    // Nobody has to.
    for guest in [&mut asking, &mut silent] {
        for index in 100..PAGES {
            assert_eq!(guest.get(1, 1, index), Ok(page(index)), "page {index}");
        }
        assert_eq!(guest.put(1, 2, 0, &page(9)), status::OK, "a page is refused");
    }
    assert_eq!(ask(&mut asking).0, PAGES - 100, "a page that was put is wanted as well");
}

/// A worker that takes over wants nothing, and knows who asks.
#[test]
fn what_was_wanted_ends_with_the_worker() {
    let daemon = Daemon::with(&[""], &["--memory-limit", "64M"]);
    let mut guest = guest(&daemon, 0, 100);
    ask(&mut guest);
    give_back(&daemon, 1 << 30);
    assert_eq!(ask(&mut guest).0, 100);
    daemon.signal_worker(rustix::process::Signal::KILL);
    assert_eq!(ask(&mut guest).0, 0, "the next worker wants what the one before has wanted");
    give_back(&daemon, 1 << 30);
    assert_eq!(ask(&mut guest).0, 100, "the next worker does not know that the guest asks");
}
