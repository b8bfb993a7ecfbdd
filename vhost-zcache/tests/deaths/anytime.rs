// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Death at any time.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::daemon::Daemon;
use crate::client::wire::{PERSISTENT, Req, SHARED, status};
use crate::client::{Client, Setup, eventually, page};
use crate::model::{ALLOW, Random, while_guests_work};

/// Two guests work while their worker is killed again and again.
#[test]
fn kills_at_random_lose_nothing() {
    let daemon = Daemon::with(&[ALLOW, ALLOW], &[]);
    while_guests_work(&daemon, 10, || {
        let mut random = Random::new(7);
        let mut killed = None;
        for kill in 0..25 {
            if kill % 5 == 0 {
                // As soon as it is there: one that serves may be killed in the chain that the last
                // one was killed in, which is not served a third time then.
                eventually("there is another worker", || daemon.worker().is_some_and(|pid| Some(pid) != killed));
            } else {
                // After so long that the keeper does not hesitate.
                thread::sleep(Duration::from_millis(220 + random.below(60)));
            }
            killed = daemon.worker();
            daemon.signal_worker(Signal::KILL);
        }
    });
    assert!(daemon.deaths() >= 20, "{} workers have died", daemon.deaths());
    assert_eq!(daemon.lines("connection ended"), 0);
}

/// Ways in which a worker ends by itself.
#[test]
fn a_worker_may_die_of_any_signal() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    let signals = [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::ILL, Signal::FPE, Signal::KILL];
    for (number, signal) in (0..).zip(signals) {
        assert_eq!(guest.put(1, 1, number, &page(number)), status::OK);
        let worker = daemon.worker();
        eventually("the worker dies", || {
            // The runtime ignores the first SIGSEGV that somebody sends.
            if daemon.worker() == worker {
                daemon.signal_worker(signal);
            }
            daemon.worker() != worker
        });
        eventually("the next worker serves", || daemon.deaths() == number + 1);
        for index in 0..=number {
            assert_eq!(guest.get(1, 1, index), Ok(page(index)), "after {signal:?}");
        }
        thread::sleep(Duration::from_millis(200));
    }
    // They are for the keeper, who ends the worker.
    daemon.signal_worker(Signal::TERM);
    daemon.signal_worker(Signal::INT);
    assert_eq!(guest.get(1, 1, 0), Ok(page(0)));
    assert_eq!(daemon.deaths(), signals.len() as u64);
}

#[test]
fn members_of_a_shared_pool_are_members_after_a_death() {
    let daemon = Daemon::with(&[ALLOW, ALLOW], &[]);
    let mut one = Client::attach(&daemon.socket(0));
    let mut two = Client::attach(&daemon.socket(1));
    assert_eq!(one.status(Req::create(1, SHARED, [0xaa; 16])), status::OK);
    assert_eq!(two.status(Req::create(2, SHARED, [0xaa; 16])), status::OK);
    daemon.signal_worker(Signal::KILL);
    assert_eq!(one.put(1, 7, 7, &page(1)), status::OK);
    assert_eq!(two.get(2, 7, 7), Ok(page(1)), "the pools are not one any more");
    assert_eq!(two.one(Req::destroy(2)).status, status::OK);
    assert_eq!(one.get(1, 7, 7), Ok(page(1)));
}

/// A connection that ends while there is no worker, and what comes after it.
#[test]
fn who_leaves_while_there_is_no_worker_leaves_nothing() {
    let daemon = Daemon::start();
    for round in 0..8 {
        let mut guest = Client::connect(&daemon.socket(0), Setup::default());
        assert!(!guest.hello(1).1, "round {round}: the session of another connection");
        assert_eq!(guest.get(1, 1, 1), Err(status::NO_POOL), "round {round}");
        guest.create(1, PERSISTENT);
        assert_eq!(guest.put(1, 1, 1, &page(round)), status::OK);
        daemon.signal_worker(Signal::KILL);
        drop(guest);
    }
    eventually("all is gone", || daemon.stats()["store"]["pages"] == 0);
}

#[test]
fn a_reset_during_a_death_ends_the_session() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    guest.stop_all();
    daemon.signal_worker(Signal::KILL);
    for queue in 0..2 {
        let (ring, ram) = guest.ring(queue);
        ring.reset(ram);
    }
    guest.start_all();
    assert_eq!(guest.status(Req::get(1, 1, 1, 0)), status::NO_SESSION, "another driver's session goes on");
    assert!(guest.hello(1).1, "the instance is forgotten");
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
}
