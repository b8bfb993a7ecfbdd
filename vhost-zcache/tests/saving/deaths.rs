// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whoever dies while something is saved or taken back, no page is lost that need not be, and none
//! is older than it was.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::daemon::Daemon;
use crate::client::{Client, PATIENCE, eventually};
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
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
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
    // Of the changes that a connection makes those from the seventh on are around the load and its
    // end.
    let places = ["state-moved:1:1", "state-loaded:1:1"].map(str::to_owned).into_iter();
    let changes = (7..18).step_by(2).flat_map(|pass| [format!("changed:{pass}:1"), format!("acknowledged:{pass}:1")]);
    for place in &places.chain(changes).collect::<Vec<_>>() {
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

/// Between the load and its end there is a moment at which the worker has everything, and there is
/// a file as well. Nothing was served by then, so the file counts.
#[test]
fn a_daemon_that_is_killed_before_the_file_is_gone_leaves_it() {
    for place in ["state-moved:2:1:hang", "state-loaded:1:1:hang"] {
        let host = Host::new();
        let epoch = host.save(300);
        let mut daemon = host.start_dying(place);
        let guest = host.connect("a");
        eventually("the worker stands still there", || daemon.lines("This worker ends at ") == 1);
        daemon.end(Signal::KILL);
        assert_eq!(host.files(), ["a.saved"], "{place}");
        drop(guest);
        let _daemon = host.start();
        let mut guest = host.connect("a");
        assert_eq!(guest.hello(1), (epoch, true), "{place}");
        verify(&mut guest, 300, 0);
        assert_eq!(host.files(), [""; 0], "{place}");
    }
}

/// Kills the process that saves and reads states, as soon as there is one.
fn kill_saver(daemon: &Daemon) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(saver) = daemon.saver().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(saver, Signal::KILL);
            return;
        }
    }
    panic!("nobody saves or reads anything\n{}", daemon.log());
}

#[test]
fn who_saves_may_be_killed() {
    let host = Host::new();
    let (mut daemon, _guest) = in_the_middle_of_its_end(&host);
    kill_saver(&daemon);
    eventually("it begins once more", || daemon.lines("a: not saved: the process that does it has ended") == 1);
    daemon.signal_worker(Signal::CONT);
    assert!(daemon.wait_for_end().success(), "{}", daemon.log());
    assert_eq!(host.files(), ["a.saved"], "{}", daemon.log());
    let _daemon = host.start();
    let mut guest = host.connect("a");
    assert!(guest.hello(1).1);
    verify(&mut guest, 50, 0);
}

#[test]
fn who_takes_back_may_be_killed() {
    let host = Host::new();
    let epoch = host.save(3000);
    let daemon = host.start();
    thread::scope(|scope| {
        scope.spawn(|| kill_saver(&daemon));
        let mut guest = host.connect("a");
        assert_eq!(guest.hello(1), (epoch, true), "{}", daemon.log());
        verify(&mut guest, 3000, 0);
    });
    // It may be killed before it is told to read, or when all is read.
    let late = daemon.lines("no queue is served before");
    assert_eq!(daemon.lines("a: what was saved was not read to its end") + late, 1, "{}", daemon.log());
    assert_eq!(host.files(), [""; 0]);
}

#[test]
fn what_workers_die_of_again_and_again_is_not_taken_back() {
    let host = Host::new();
    host.save(50);
    let daemon = host.start_dying("state-loaded:1:9");
    let mut guest = host.connect("a");
    assert!(!guest.hello(1).1, "{}", daemon.log());
    assert_eq!(daemon.deaths(), 4);
    assert_eq!(host.files(), [""; 0], "it may be believed later");
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
