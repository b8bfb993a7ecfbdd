// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whoever dies while something is saved or taken back, no page is lost that need not be, and none
//! is older than it was.

use std::time::Duration;

use rustix::process::Signal;

use crate::client::daemon::Daemon;
use crate::client::{Client, eventually};
use crate::host::{Host, end, store, verify};

/// A daemon that ends, and does not come to an end of saving this guest.
fn in_the_middle_of_its_end(host: &Host) -> (Daemon, Client) {
    let daemon = host.start();
    let (guest, _) = host.settle("a", 50);
    daemon.signal_worker(Signal::STOP);
    daemon.signal_keeper(Signal::TERM);
    eventually("it is being saved", || host.files() == ["a.saved.part"]);
    (daemon, guest)
}

#[test]
fn what_is_put_after_it_is_never_followed_by_what_was_saved() {
    let host = Host::new();
    let epoch = host.save(50);
    let mut daemon = host.start();
    let mut guest = host.connect("a");
    assert_eq!(guest.hello(1), (epoch, true));
    store(&mut guest, 50, 1);
    daemon.end(Signal::KILL);
    assert_eq!(host.files(), [""; 0], "a file that is older than the guest's pages");

    let mut daemon = host.start();
    let mut guest = host.connect("a");
    let (other, resumed) = guest.hello(1);
    assert!(!resumed && other != epoch);
    end(&mut daemon);
    let _daemon = host.start();
    let mut guest = host.connect("a");
    assert_eq!(guest.hello(1), (other, true), "another session was saved");
}

#[test]
fn a_daemon_that_is_killed_while_it_saves_leaves_nothing() {
    let host = Host::new();
    let (mut daemon, _guest) = in_the_middle_of_its_end(&host);
    daemon.end(Signal::KILL);
    let daemon = host.start();
    assert_eq!(host.files(), [""; 0], "half a file is left\n{}", daemon.log());
    let mut guest = host.connect("a");
    assert!(!guest.hello(1).1);
}

#[test]
fn a_worker_that_hangs_does_not_hold_up_the_end() {
    let host = Host::with("save-timeout = 1");
    let mut daemon = host.start();
    let (_guest, _) = host.settle("a", 50);
    daemon.signal_worker(Signal::STOP);
    let (status, took) = daemon.end(Signal::TERM);
    assert!(status.success() && took < Duration::from_secs(4), "{status} after {took:?}");
    assert_eq!(daemon.lines("a: not saved: there was no time"), 1, "{}", daemon.log());
    drop(daemon);
    drop(host.start());
    assert_eq!(host.files(), [""; 0]);
}

#[test]
fn a_second_signal_ends_the_daemon_at_once() {
    let host = Host::new();
    let (mut daemon, _guest) = in_the_middle_of_its_end(&host);
    let (status, took) = daemon.end(Signal::TERM);
    assert!(status.success() && took < Duration::from_secs(2), "{status} after {took:?}");
}

#[test]
fn a_worker_that_dies_while_it_saves_is_followed_by_one_that_does() {
    let host = Host::new();
    let mut daemon = host.start_dying("state-moved:2:1");
    let (_guest, epoch) = host.settle("a", 300);
    let (_other, _) = host.settle("b", 100);
    end(&mut daemon);
    assert_eq!(daemon.lines("once more, as the worker has died"), 1, "{}", daemon.log());
    assert_eq!(host.files(), ["a.saved", "b.saved"]);
    let _daemon = host.start();
    let mut guest = host.connect("a");
    assert_eq!(guest.hello(1), (epoch, true));
    verify(&mut guest, 300, 0);
}

#[test]
fn a_worker_that_dies_while_it_loads_is_followed_by_one_that_has_it_all() {
    for place in ["state-moved:1:1", "state-loaded:1:1", "changed:12:1", "acknowledged:12:1"] {
        let host = Host::new();
        let epoch = host.save(300);
        let daemon = host.start_dying(place);
        let mut guest = host.connect("a");
        assert_eq!(guest.hello(1), (epoch, true), "{place}\n{}", daemon.log());
        verify(&mut guest, 300, 0);
        eventually("a worker has died", || daemon.deaths() == 1);
        assert_eq!(host.files(), [""; 0], "{place}");
    }
}

#[test]
fn what_workers_die_of_again_and_again_is_not_taken_back() {
    let host = Host::new();
    host.save(50);
    let daemon = host.start_dying("state-loaded:1:9");
    let mut guest = host.connect("a");
    assert!(!guest.hello(1).1, "{}", daemon.log());
    assert_eq!(daemon.deaths(), 4);
}

#[test]
fn an_end_while_a_guest_takes_its_pages_back_loses_nothing() {
    let host = Host::with("save-timeout = 1");
    let epoch = host.save(50);
    // Its thread stands still when it has read the first part.
    let mut daemon = host.start_dying("state-moved:1:1:hang");
    let guest = host.connect("a");
    end(&mut daemon);
    assert_eq!(host.files(), ["a.saved"], "{}", daemon.log());
    drop(guest);
    let _daemon = host.start();
    let mut guest = host.connect("a");
    assert_eq!(guest.hello(1), (epoch, true));
    verify(&mut guest, 50, 0);
}
