// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that workers die of when they take it over.

use rustix::process::Signal;

use crate::client::daemon::{Daemon, Start};
use crate::client::wire::{PERSISTENT, Req, status};
use crate::client::{Client, Shape, eventually, page};

/// Workers that take the first guest over die at a place, until they are not asked to.
fn dies_of_the_first_guest(die_at: &str) {
    let daemon = Daemon::start_as(&["", ""], Start { die_at: Some(die_at), ..Start::default() });
    let mut victim = Client::attach(&daemon.socket(0));
    victim.create(1, PERSISTENT);
    assert_eq!(victim.put(1, 1, 1, &page(1)), status::OK);
    let mut other = Client::attach(&daemon.socket(1));
    daemon.signal_worker(Signal::KILL);
    eventually("three workers have died", || daemon.deaths() == 3);
    assert_eq!(daemon.lines("quarantined"), 1, "one line says so");
    assert_eq!(daemon.guest_stats(0)["quarantined"], true);
    assert_eq!(daemon.guest_stats(1)["quarantined"], false);

    other.create(1, PERSISTENT);
    assert_eq!(other.put(1, 1, 1, &page(2)), status::OK);
    let posted = victim.post(0, &[Req::get(1, 1, 1, 0)], Shape::Whole);
    victim.expect_silence(0);
    assert_eq!(&victim.config(0, 4)[..], b"ZCCH");
    // Its VMM can still take it apart.
    victim.stop_all();
    drop((victim, posted));

    // It is not forgotten that it is not to be taken over, and nothing of it is there any more.
    daemon.signal_worker(Signal::KILL);
    assert_eq!(other.get(1, 1, 1), Ok(page(2)));
    let mut again = Client::attach(&daemon.socket(0));
    assert_eq!(daemon.guest_stats(0)["quarantined"], false);
    again.create(1, PERSISTENT);
    assert_eq!(again.get(1, 1, 1), Err(status::MISS), "a page of another connection");
    assert_eq!(again.put(1, 1, 1, &page(3)), status::OK);
    daemon.signal_worker(Signal::KILL);
    assert_eq!(again.get(1, 1, 1), Ok(page(3)));
    assert_eq!(daemon.deaths(), 5);
}

#[test]
fn a_session_that_workers_die_of_is_not_taken_over_a_third_time() {
    dies_of_the_first_guest("session-restored:1:3:abort");
}

#[test]
fn pages_that_workers_die_of_are_not_taken_over_a_third_time() {
    dies_of_the_first_guest("rebuilding:1:3:abort");
}

/// Whoever kills workers says nothing about a guest.
#[test]
fn a_worker_that_was_killed_has_not_died_of_a_guest() {
    let start = Start { die_at: Some("session-restored:1:4"), ..Start::default() };
    let daemon = Daemon::start_as(&[""], start);
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    daemon.signal_worker(Signal::KILL);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert_eq!(daemon.deaths(), 4);
    assert_eq!(daemon.lines("quarantined"), 0);
}
