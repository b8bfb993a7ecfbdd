// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SPEC.md sections 7 (HELLO, order of checks) and 10 (reset, end of the connection).

use crate::client::daemon::Daemon;
use crate::client::wire::{EXCLUSIVE, PERSISTENT, Req, SHARED, TAKE_BACK, opcode, status};
use crate::client::{Client, Setup, eventually, page};
use crate::{ALLOW, UUID, requests_on};

/// One well-formed request of each opcode but HELLO.
fn one_of_each() -> impl Iterator<Item = Req> {
    [Req::create(1, 0, [0; 16]), Req::new(opcode::WANTED, 0, 0)].into_iter().chain(requests_on(1))
}

/// Conformance: ZC-DEV-13.
#[test]
fn unknown_opcodes_are_unsupported() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    for opcode in [0, 11, 12, 255, 256, 257, 0x0104, u16::MAX] {
        assert_eq!(guest.status(Req::new(opcode, 0, 0)), status::UNSUPPORTED, "opcode {opcode}");
    }
}

/// Conformance: ZC-DEV-14.
#[test]
fn fields_and_flags_without_meaning_must_be_zero() {
    let daemon = Daemon::with(&[ALLOW], &[]);
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, 0);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    let opcode = 0..2;
    // For each request: the bytes that have a meaning and must not be changed here.
    let requests: Vec<(Req, Vec<std::ops::Range<usize>>)> = vec![
        (Req::hello(1), vec![0..2, 8..24, 24..32]),
        (Req::create(2, SHARED, UUID), vec![0..2, 4..8, 8..24]),
        (Req::destroy(1), vec![0..2, 4..8]),
        (Req::put(1, 1, 1, &page(2)), vec![0..2, 4..8, 8..40]),
        (Req::get(1, 1, 1, 0), vec![0..2, 4..8, 8..40]),
        (Req::flush_page(1, 1, 1), vec![0..2, 4..8, 8..40]),
        (Req::flush_range(1, 1, 1, 1), vec![0..2, 4..8, 8..48]),
        (Req::flush_object(1, 1), vec![0..2, 4..8, 8..32]),
        (Req::flush_pool(1), vec![0..2, 4..8]),
        (Req::new(opcode::WANTED, 0, 0), vec![opcode]),
    ];
    for (request, used) in requests {
        for at in (0..48).filter(|at| !used.iter().any(|range| range.contains(at))) {
            // 0x40 is a flag of no request.
            let answer = guest.status(request.clone().with(at, &[0x40]));
            assert_eq!(answer, status::INVALID, "opcode {} with byte {at} set", request.opcode());
        }
    }
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "an invalid request had an effect");
    assert_eq!(guest.status(Req::flush_pool(2)), status::NO_POOL, "an invalid request created a pool");
}

/// Conformance: ZC-DEV-15, ZC-DEV-19.
#[test]
fn before_hello_there_is_no_session() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup::default());
    for request in one_of_each() {
        let opcode = request.opcode();
        assert_eq!(guest.status(request), status::NO_SESSION, "opcode {opcode}");
    }
    // Opcode, then format, then session, then the rest.
    assert_eq!(guest.status(Req::new(99, 0xff, 1)), status::UNSUPPORTED, "unknown opcode before HELLO");
    assert_eq!(guest.status(Req::get(1, 1, 1, 0x80)), status::INVALID, "bad flags before HELLO");
    guest.hello(1);
    assert_eq!(guest.status(Req::flush_range(5, 1, 1, 0)), status::INVALID, "bad count, unknown pool");
    assert_eq!(guest.status(Req::flush_range(5, 1, 1, 1)), status::NO_POOL, "a request before HELLO had an effect");
}

/// Conformance: ZC-DEV-16.
#[test]
fn a_hello_of_another_version_changes_nothing() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    for (what, hello) in [
        ("version 0", Req::hello(2).with(24, &[0])),
        ("version 2", Req::hello(2).with(24, &[2])),
        ("version 0x101", Req::hello(2).with(25, &[1])),
        ("a feature that is not offered", Req::hello(2).with_features(2)),
        ("one more than is offered", Req::hello(2).with_features(TAKE_BACK | 0x8000_0000)),
    ] {
        assert_eq!(guest.status(hello), status::UNSUPPORTED, "{what}");
        assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "HELLO with {what} had an effect");
    }
}

/// Conformance: ZC-DEV-17, ZC-DEV-18.
#[test]
fn the_instance_decides_what_stays() {
    let daemon = Daemon::with(&[ALLOW, ALLOW], &[]);
    let mut guest = Client::attach(&daemon.socket(0));
    let mut other = Client::attach(&daemon.socket(1));
    let fill = |guest: &mut Client| {
        guest.create(1, PERSISTENT);
        guest.create(2, 0);
        assert_eq!(guest.status(Req::create(3, SHARED, UUID)), status::OK);
        for pool in 1..=3 {
            assert_eq!(guest.put(pool, 1, 1, &page(u64::from(pool))), status::OK);
        }
    };
    assert_eq!(other.status(Req::create(9, SHARED, UUID)), status::OK);
    fill(&mut guest);
    let (epoch, resumed) = guest.hello(1);
    assert!(resumed, "the same instance was not resumed");
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "a persistent page of a resumed instance");
    assert_eq!(guest.get(2, 1, 1), Err(status::NO_POOL), "an ephemeral pool of a resumed instance");
    assert_eq!(guest.get(3, 1, 1), Err(status::NO_POOL), "a shared pool of a resumed instance");
    assert_eq!(other.status(Req::flush_pool(9)), status::OK, "the other member's shared pool");

    guest.status(Req::destroy(1));
    fill(&mut guest);
    let (next, resumed) = guest.hello(2);
    assert!(!resumed, "another instance was resumed");
    assert_ne!(next, epoch, "the epoch of another instance");
    for pool in 1..=3 {
        assert_eq!(guest.get(pool, 1, 1), Err(status::NO_POOL), "pool {pool} of the previous instance");
    }
    let (same, resumed) = guest.hello(2);
    assert_eq!((same, resumed), (next, true), "the epoch of a resumed instance");
    let (back, resumed) = guest.hello(1);
    assert!(!resumed && back != next, "an instance that was replaced came back");
}

/// Conformance: ZC-DEV-40.
#[test]
fn a_reset_ends_the_session_and_keeps_the_pages() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);

    guest.restart_queue(1);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "one queue of two was restarted");
    guest.reset();
    for request in one_of_each() {
        let opcode = request.opcode();
        assert_eq!(guest.status(request), status::NO_SESSION, "opcode {opcode} after a reset");
    }
    assert!(guest.hello(1).1, "the instance was not resumed after a reset");
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "a persistent page after a reset");
}

/// Conformance: ZC-DEV-41.
#[test]
fn the_end_of_the_connection_ends_it_all() {
    let daemon = Daemon::start();
    for round in 0..2 {
        let mut guest = Client::connect(&daemon.socket(0), Setup::default());
        assert!(!guest.hello(1).1, "round {round}: the instance of a closed connection was resumed");
        assert_eq!(guest.get(1, 1, 1), Err(status::NO_POOL), "round {round}");
        guest.create(1, PERSISTENT);
        assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
        drop(guest);
        eventually("the pages of a closed connection are gone", || daemon.stats()["store"]["pages"] == 0);
    }
}

/// Conformance: ZC-DEV-33.
#[test]
fn exclusive_is_not_for_persistent_pools() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    for index in [1, 2] {
        let answer = guest.one(Req::get(1, 1, index, EXCLUSIVE));
        assert_eq!(answer.status, status::INVALID, "index {index}");
    }
    assert_eq!(guest.one(Req::new(opcode::FLUSH_POOL, 0, 1)).value, 1, "the page is gone");
}
