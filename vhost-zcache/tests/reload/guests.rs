// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests come and go.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::client::wire::{PERSISTENT, Req, SHARED, status};
use crate::client::{Client, eventually, page};
use crate::file::{Configured, succeeds, with};
use crate::model::while_guests_work_at;

#[test]
fn a_guest_that_is_added_is_served_and_others_go_on() {
    let daemon = Configured::start(&with("", &["busy1", "busy2"]));
    while_guests_work_at(&[daemon.socket("busy1"), daemon.socket("busy2")], 70, || {
        let mut guests = vec!["busy1", "busy2"];
        for name in ["c", "d", "e"] {
            guests.push(name);
            daemon.write(&format!("{}mode = '0666'\n", with("", &guests)));
            assert!(daemon.reload().ends_with(&format!("added {name}")));
            let mode = fs::metadata(daemon.socket(name)).expect("the socket").permissions().mode();
            assert_eq!(mode & 0o777, 0o666);
            let mut guest = Client::attach(&daemon.socket(name));
            guest.create(1, PERSISTENT);
            assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
            assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
            assert_eq!(daemon.guest(name)["connected"], true);
            // The next file says it differently.
            drop(guest);
            daemon.write(&with("socket.mode = '0666'", &guests));
            let refused = daemon.is_refused();
            assert!(refused.contains("guest.busy1: the mode, owner or group of its socket cannot change"), "{refused}");
            eventually("the guest is gone", || daemon.guest(name)["connected"] == false);
            guests.pop();
            daemon.write(&with("", &guests));
            assert!(daemon.reload().ends_with(&format!("removed {name}")));
        }
    });
    assert_eq!(daemon.daemon.lines("connection ended"), 0, "a connection was dropped");
}

#[test]
fn a_guest_that_is_removed_leaves_nothing() {
    let daemon = Configured::start(&with("", &["a", "b"]));
    let files = || fs::read_dir(daemon.path().parent().expect("a folder")).expect("the folder").count();
    let (before, descriptors) = (files(), daemon.daemon.descriptors());
    let mut guest = Client::attach(&daemon.socket("b"));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(7)), status::OK);
    drop(guest);
    eventually("the guest is gone", || daemon.guest("b")["connected"] == false);
    daemon.write(&with("", &["a"]));
    assert!(daemon.reload().ends_with("removed b"));
    assert!(!daemon.socket("b").exists());
    assert_eq!(files(), before - 2, "its lock is left");
    assert!(daemon.guest("b").is_null());

    // Another guest gets its number, and nothing else.
    daemon.write(&with("", &["a", "c"]));
    daemon.reload();
    assert_eq!(daemon.guest("c")["queues"][0]["chains"], 0, "counters of another guest");
    let mut guest = Client::attach(&daemon.socket("c"));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.get(1, 1, 1), Err(status::MISS));
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    daemon.daemon.signal_worker(Signal::KILL);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    drop(guest);
    // As often as one likes.
    for _ in 0..30 {
        daemon.write(&with("", &["a"]));
        eventually("the guest is gone", || daemon.guest("c")["connected"] == false);
        daemon.reload();
        daemon.write(&with("", &["a", "c"]));
        daemon.reload();
    }
    eventually("no descriptor is left open", || daemon.daemon.descriptors() <= descriptors);
}

#[test]
fn a_guest_that_is_connected_is_removed_when_asked_for() {
    let daemon = Configured::start(&with("", &["a", "b"]));
    let mut a = Client::attach(&daemon.socket("a"));
    a.create(1, PERSISTENT);
    assert_eq!(a.put(1, 1, 1, &page(1)), status::OK);
    let mut b = Client::attach(&daemon.socket("b"));
    b.create(1, PERSISTENT);
    assert_eq!(b.put(1, 1, 1, &page(2)), status::OK);
    daemon.write(&with("guest-memory-limit = '1M'", &["a"]));
    let refused = daemon.is_refused();
    assert!(refused.contains("guest.b is not removed while its VMM is connected"), "{refused}");
    assert_eq!(refused.lines().count(), 1, "{refused}");
    assert_eq!(b.get(1, 1, 1), Ok(page(2)), "nothing has changed");
    assert!(daemon.guest("a")["memory_limit"].is_null(), "nothing has changed");
    daemon.daemon.signal_keeper(Signal::HUP);
    eventually("the log says so, too", || daemon.daemon.lines("guest.b is not removed") == 2);
    assert_eq!(b.get(1, 1, 1), Ok(page(2)));

    let said = succeeds(&daemon.ask(&["--disconnect"]));
    assert_eq!(said, "limits or rights of 1 guest; removed b");
    assert_eq!(daemon.daemon.lines("b: connection ended: the guest was removed"), 1, "{}", daemon.daemon.log());
    assert_eq!(daemon.daemon.stats()["guests"].as_array().map(Vec::len), Some(1));
    assert!(UnixStream::connect(daemon.socket("b")).is_err());
    assert_eq!(a.get(1, 1, 1), Ok(page(1)));
    assert_eq!(daemon.daemon.stats()["store"]["guests"], 1, "what it had is gone");

    daemon.write(&with("", &["a", "b"]));
    daemon.reload();
    let mut b = Client::attach(&daemon.socket("b"));
    b.create(1, PERSISTENT);
    assert_eq!(b.get(1, 1, 1), Err(status::MISS), "a page of the guest before");
}

#[test]
fn a_daemon_may_begin_without_guests() {
    let daemon = Configured::start("");
    // Where a socket may be is known by the others, and there is none beside the file yet.
    daemon.write(&format!("[guest.a]\nsocket = '{}/a'\n", daemon.daemon.directory().display()));
    assert_eq!(daemon.reload(), "added a");
    Client::attach(&daemon.daemon.directory().join("a")).create(1, PERSISTENT);
}

#[test]
fn there_is_room_for_so_many_guests() {
    let daemon = Configured::start(&with("max-guests = 3", &["a"]));
    daemon.write(&with("max-guests = 3", &["a", "b", "c"]));
    assert!(daemon.reload().ends_with("added b, c"));
    daemon.write(&with("max-guests = 3", &["a", "b", "c", "d"]));
    assert!(daemon.is_refused().contains("max-guests is 3, and there are 4 guests"));
    daemon.write(&with("max-guests = 3", &["d"]));
    let refused = daemon.is_refused();
    assert!(refused.contains("there is room for 3 guests"), "those that go are there until it is done: {refused}");
    // Who made it removes it, a moment after the answer.
    eventually("the socket that was made for it is gone", || !daemon.socket("d").exists());
    daemon.write(&with("max-guests = 3", &["a", "b"]));
    daemon.reload();
    daemon.write(&with("max-guests = 3", &["a", "b", "d"]));
    assert!(daemon.reload().ends_with("added d"));
}

#[test]
fn who_may_connect_changes_for_those_who_come() {
    let me = rustix::process::getuid().as_raw();
    let daemon = Configured::start(&with("", &["a"]));
    let mut first = Client::attach(&daemon.socket("a"));
    first.create(1, PERSISTENT);
    daemon.write(&format!("{}peers = [{}]\n", with("", &["a"]), me + 1));
    daemon.reload();
    assert_eq!(first.put(1, 1, 1, &page(1)), status::OK, "who is there stays");
    drop(first);
    eventually("the guest is gone", || daemon.guest("a")["connected"] == false);
    let _second = UnixStream::connect(daemon.socket("a")).expect("the socket");
    eventually("who comes is turned away", || daemon.daemon.lines("was turned away: a process of user") == 1);
    daemon.write(&format!("{}peers = [{me}]\n", with("", &["a"])));
    daemon.reload();
    Client::attach(&daemon.socket("a")).create(1, PERSISTENT);
}

/// With whom a connection shares pools is decided once, whoever serves it.
#[test]
fn a_trust_domain_is_for_who_connects_next() {
    let uuid = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";
    let file = |domain: &str| {
        let guest = |name: &str, domain: &str| {
            format!("[guest.{name}]\nsocket = 'DIR/{name}'\nallow-shared = ['{uuid}']\ntrust-domain = '{domain}'\n")
        };
        guest("a", "red") + &guest("b", domain)
    };
    let daemon = Configured::start(&file("red"));
    let mut guests = ["a", "b"].map(|name| Client::attach(&daemon.socket(name)));
    for guest in &mut guests {
        assert_eq!(guest.status(Req::create(1, SHARED, [0xaa; 16])), status::OK);
    }
    daemon.write(&file("blue"));
    daemon.reload();
    let [a, b] = &mut guests;
    for round in 0..3 {
        assert_eq!(a.put(1, 1, round, &page(1)), status::OK);
        assert_eq!(b.get(1, 1, round), Ok(page(1)), "the connection is another domain's after {round} deaths");
        daemon.daemon.signal_worker(Signal::KILL);
    }
    assert_eq!(a.put(1, 1, 9, &page(1)), status::OK);
    guests = {
        let [a, b] = guests;
        drop(b);
        eventually("the guest is gone", || daemon.guest("b")["connected"] == false);
        [a, Client::attach(&daemon.socket("b"))]
    };
    let [_, b] = &mut guests;
    assert_eq!(b.status(Req::create(1, SHARED, [0xaa; 16])), status::OK);
    assert_eq!(b.get(1, 1, 9), Err(status::MISS), "it shares with the domain that it was in before");
}
