// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Limits change while guests work, and hold.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, eventually, page};
use crate::file::{Configured, with};
use crate::model::while_guests_work_at;

const POOL: u32 = 9;

/// Puts file pages until the guest has so many bytes, or at most so many pages.
fn fill(daemon: &Configured, name: &str, guest: &mut Client, bytes: u64) {
    for number in 0..20_000 {
        guest.put(POOL, 0, number, &page(number));
        if number % 200 == 0 && daemon.number(name, "physical_bytes") >= bytes {
            return;
        }
    }
    panic!("{name} has only {} bytes", daemon.number(name, "physical_bytes"));
}

#[test]
fn a_limit_that_is_lowered_under_load_holds() {
    let daemon = Configured::start(&with("memory-limit = '64M'", &["a", "b", "busy1", "busy2"]));
    let (mut a, mut b) = (Client::attach(&daemon.socket("a")), Client::attach(&daemon.socket("b")));
    a.create(POOL, 0);
    b.create(POOL, 0);
    fill(&daemon, "a", &mut a, 6 << 20);
    fill(&daemon, "b", &mut b, 6 << 20);
    while_guests_work_at(&[daemon.socket("busy1"), daemon.socket("busy2")], 50, || {
        // The guest goes on putting while it is made smaller.
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let putter = scope.spawn(|| {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    a.put(POOL, 1, number % 5000, &page(number));
                    number += 1;
                }
                number
            });
            for _ in 0..3 {
                daemon.write(&with("memory-limit = '64M'\nguest-memory-limit = '2M'", &["a", "b", "busy1", "busy2"]));
                assert_eq!(daemon.reload(), "limits or rights of 4 guests");
                for name in ["a", "b"] {
                    let bytes = daemon.number(name, "physical_bytes");
                    assert!(bytes <= 2 << 20, "{name} has {bytes} bytes when the command is answered");
                    assert_eq!(daemon.guest(name)["memory_limit"], 2 << 20);
                }
                daemon.write(&with("memory-limit = '64M'", &["a", "b", "busy1", "busy2"]));
                assert_eq!(daemon.reload(), "limits or rights of 4 guests");
                assert!(daemon.guest("a")["memory_limit"].is_null());
            }
            done.store(true, Ordering::Relaxed);
            assert!(putter.join().expect("a guest that puts") > 0);
        });
    });
    assert_eq!(daemon.daemon.lines("connection ended"), 0, "a connection was dropped");
    assert_eq!(daemon.daemon.deaths(), 0, "a worker has died");
}

#[test]
fn the_limit_of_the_store_is_lowered_and_raised() {
    let daemon = Configured::start(&with("memory-limit = '32M'", &["a"]));
    let mut guest = Client::attach(&daemon.socket("a"));
    guest.create(POOL, 0);
    guest.create(1, PERSISTENT);
    for number in 0..200 {
        assert_eq!(guest.put(1, 1, number, &page(number)), status::OK);
    }
    fill(&daemon, "a", &mut guest, 8 << 20);
    daemon.write(&with("memory-limit = '4M'", &["a"]));
    assert_eq!(daemon.reload(), "memory-limit is 4194304 bytes; limits or rights of 1 guest");
    let stats = daemon.daemon.stats();
    assert_eq!(stats["store"]["memory_limit"], 4 << 20);
    let bytes = stats["store"]["physical_bytes"].as_u64().expect("a number");
    assert!(bytes <= 4 << 20, "{bytes} bytes are more than the limit");
    assert_eq!(daemon.number("a", "reserved_bytes"), 2 << 20, "half of what there is now");
    for number in 0..200 {
        assert_eq!(guest.get(1, 1, number), Ok(page(number)), "a swapped page has gone");
    }
    daemon.write(&with("memory-limit = '32M'", &["a"]));
    daemon.reload();
    fill(&daemon, "a", &mut guest, 8 << 20);
}

#[test]
fn what_guests_can_count_on_changes_with_their_number() {
    let daemon = Configured::start(&with("memory-limit = '64M'", &["a"]));
    let mut guest = Client::attach(&daemon.socket("a"));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    assert_eq!(daemon.number("a", "reserved_bytes"), 32 << 20);
    daemon.write(&with("memory-limit = '64M'", &["a", "b"]));
    assert_eq!(daemon.reload(), "limits or rights of 1 guest; added b");
    assert_eq!([daemon.number("a", "reserved_bytes"), daemon.number("b", "reserved_bytes")], [16 << 20; 2]);
    daemon.write(&format!("{}reservation = '40M'\n", with("memory-limit = '64M'", &["a", "b"])));
    daemon.reload();
    assert_eq!(daemon.number("a", "reserved_bytes"), 0, "b has more than half of the store");
    assert_eq!(daemon.number("b", "reserved_bytes"), 40 << 20);
    assert_eq!(daemon.daemon.stats()["store"]["reserved_bytes"], 40 << 20, "nothing is left of what was");
    daemon.write(&with("memory-limit = '64M'", &["a"]));
    daemon.reload();
    assert_eq!(daemon.daemon.stats()["store"]["reserved_bytes"], 32 << 20);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
}

/// By a signal only the log answers.
#[test]
fn a_signal_has_the_file_read_again() {
    let daemon = Configured::start(&with("", &["a"]));
    daemon.write(&with("guest-memory-limit = '3M'", &["a"]));
    daemon.daemon.signal_keeper(Signal::HUP);
    eventually("it was read", || daemon.daemon.lines("The configuration was taken: limits or rights of 1") == 1);
    assert_eq!(daemon.guest("a")["memory_limit"], 3 << 20);
}

/// A signal that comes while one is heeded is about what the file says by then.
#[test]
fn the_last_of_many_signals_counts() {
    let daemon = Configured::start(&with("", &["a"]));
    for limit in 1..=50u64 {
        daemon.write(&with(&format!("guest-memory-limit = '{limit}M'"), &["a"]));
        daemon.daemon.signal_keeper(Signal::HUP);
    }
    eventually("the last file counts", || daemon.guest("a")["memory_limit"] == 50u64 << 20);
    assert_eq!(daemon.daemon.lines("stays as it is"), 0, "{}", daemon.daemon.log());
}

#[test]
fn what_the_command_line_says_stays() {
    let daemon = Configured::start(&with("log-level = 'info'", &["a"]));
    daemon.write(&with("log-level = 'error'", &["a"]));
    // The command line says info, in these tests.
    assert_eq!(daemon.reload(), "nothing has changed");
    assert_eq!(daemon.daemon.lines("The command line goes before log-level of the file"), 1);
}

#[test]
fn workers_that_follow_go_by_the_new_limits() {
    let daemon = Configured::start(&with("memory-limit = '64M'", &["a"]));
    let mut a = Client::attach(&daemon.socket("a"));
    a.create(POOL, 0);
    a.create(1, PERSISTENT);
    assert_eq!(a.put(1, 1, 1, &page(1)), status::OK);
    fill(&daemon, "a", &mut a, 4 << 20);
    daemon.write(&with("memory-limit = '48M'\nguest-memory-limit = '2M'", &["a", "b"]));
    daemon.reload();
    let mut b = Client::attach(&daemon.socket("b"));
    b.create(1, PERSISTENT);
    assert_eq!(b.put(1, 1, 1, &page(2)), status::OK);

    let check = |a: &mut Client, b: &mut Client, after: &str| {
        assert_eq!(a.get(1, 1, 1), Ok(page(1)), "{after}");
        assert_eq!(b.get(1, 1, 1), Ok(page(2)), "{after}: a guest that was added");
        for number in 0..3000 {
            a.put(POOL, 2, number, &page(number));
        }
        for name in ["a", "b"] {
            assert_eq!(daemon.guest(name)["memory_limit"], 2 << 20, "{after}: {name}");
            let bytes = daemon.number(name, "physical_bytes");
            assert!(bytes <= 2 << 20, "{after}: {name} has {bytes} bytes");
        }
        assert_eq!(daemon.daemon.stats()["store"]["memory_limit"], 48 << 20, "{after}");
    };
    check(&mut a, &mut b, "before");
    daemon.daemon.signal_worker(Signal::KILL);
    eventually("there is another worker", || daemon.daemon.deaths() == 1);
    check(&mut a, &mut b, "after a death");
    daemon.daemon.signal_keeper(Signal::USR2);
    eventually("a newer program has taken over", || daemon.daemon.lines("has taken over") == 1);
    check(&mut a, &mut b, "after an upgrade");
}

#[test]
fn workers_die_while_the_file_is_read_again_and_again() {
    let daemon = Configured::start(&with("memory-limit = '64M'", &["busy1", "busy2"]));
    while_guests_work_at(&[daemon.socket("busy1"), daemon.socket("busy2")], 60, || {
        for round in 0..10u64 {
            let guests: &[&str] = if round % 2 == 0 { &["busy1", "busy2", "c"] } else { &["busy1", "busy2"] };
            daemon.write(&with(&format!("memory-limit = '{}M'", 40 + round), guests));
            daemon.daemon.signal_worker(Signal::KILL);
            daemon.reload();
            assert_eq!(daemon.daemon.stats()["store"]["memory_limit"], (40 + round) << 20);
            assert_eq!(daemon.daemon.stats()["guests"].as_array().map(Vec::len), Some(guests.len()));
        }
    });
    assert_eq!(daemon.daemon.lines("connection ended"), 0, "a connection was dropped");
}
