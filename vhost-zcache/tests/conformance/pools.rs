// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SPEC.md section 7: POOL_CREATE and POOL_DESTROY.

use crate::client::daemon::Daemon;
use crate::client::wire::{PERSISTENT, Req, SHARED, status};
use crate::client::{Client, eventually, page};
use crate::{ALLOW, UUID, requests_on};

const OTHER: [u8; 16] = [0xcd; 16];
const ALLOW_OTHER: &str = "allow-shared=cdcdcdcd-cdcd-cdcd-cdcd-cdcdcdcdcdcd";

/// Socket options that allow both UUIDs.
fn allow_both() -> String {
    format!("{ALLOW},{ALLOW_OTHER}")
}

/// Conformance: ZC-DEV-20.
#[test]
fn attributes_that_make_no_sense_are_invalid() {
    let daemon = Daemon::with(&[&allow_both()], &[]);
    let mut guest = Client::attach(&daemon.socket(0));
    for (what, request) in [
        ("persistent and shared", Req::create(1, PERSISTENT | SHARED, UUID)),
        ("private with a UUID", Req::create(1, 0, UUID)),
        ("persistent with a UUID", Req::create(1, PERSISTENT, UUID)),
        ("shared without a UUID", Req::create(1, SHARED, [0; 16])),
    ] {
        assert_eq!(guest.status(request), status::INVALID, "{what}");
        assert_eq!(guest.status(Req::flush_pool(1)), status::NO_POOL, "{what}: a pool was created");
    }
}

/// Conformance: ZC-DEV-21, ZC-DEV-25.
#[test]
fn creating_a_pool_again_changes_nothing() {
    let daemon = Daemon::with(&[&allow_both()], &[]);
    let mut guest = Client::attach(&daemon.socket(0));
    let kinds = [(1, 0, [0; 16]), (2, PERSISTENT, [0; 16]), (3, SHARED, UUID), (u32::MAX, 0, [0; 16])];
    for (pool, flags, uuid) in kinds {
        assert_eq!(guest.status(Req::create(pool, flags, uuid)), status::OK);
        assert_eq!(guest.put(pool, 1, 1, &page(1)), status::OK);
        assert_eq!(guest.status(Req::create(pool, flags, uuid)), status::OK, "pool {pool} again");
        for (_, flags, uuid) in kinds.iter().filter(|(_, f, u)| (*f, *u) != (flags, uuid)) {
            assert_eq!(guest.status(Req::create(pool, *flags, *uuid)), status::EXISTS, "pool {pool} as {flags}");
        }
        assert_eq!(guest.status(Req::create(pool, SHARED, OTHER)), status::EXISTS, "pool {pool} as another shared one");
        assert_eq!(guest.get(pool, 1, 1), Ok(page(1)), "pool {pool}: its page");
    }
    assert_eq!(guest.status(Req::create(4, SHARED, UUID)), status::EXISTS, "the same UUID under a second id");
}

/// Conformance: ZC-DEV-22, ZC-DEV-24.
#[test]
fn shared_pools_are_for_those_who_may() {
    let daemon = Daemon::with(&[&allow_both(), &allow_both(), ""], &[]);
    let mut one = Client::attach(&daemon.socket(0));
    let mut two = Client::attach(&daemon.socket(1));
    let mut stranger = Client::attach(&daemon.socket(2));
    assert_eq!(stranger.status(Req::create(1, SHARED, UUID)), status::DENIED);
    assert_eq!(stranger.status(Req::flush_pool(1)), status::NO_POOL, "a denied pool was created");

    assert_eq!(one.status(Req::create(1, SHARED, UUID)), status::OK);
    assert_eq!(one.put(1, 1, 1, &page(1)), status::OK);
    assert_eq!(two.status(Req::create(2, SHARED, UUID)), status::OK);
    assert_eq!(two.status(Req::create(3, SHARED, OTHER)), status::OK);
    assert_eq!(two.get(3, 1, 1), Err(status::MISS), "a page of another UUID");
    assert_eq!(two.get(2, 1, 1), Ok(page(1)), "a put of the other member");
    assert_eq!(two.put(2, 1, 1, &page(2)), status::OK);
    assert_eq!(one.get(1, 1, 1), Ok(page(2)), "a replacement by the other member");
    assert_eq!(one.one(Req::flush_page(1, 1, 1)).value, 1);
    assert_eq!(two.get(2, 1, 1), Err(status::MISS), "a flush by the other member");

    assert_eq!(two.put(2, 1, 2, &page(3)), status::OK);
    assert_eq!(one.status(Req::destroy(1)), status::OK);
    assert_eq!(two.get(2, 1, 2), Ok(page(3)), "the pool after one of two members left");
    assert_eq!(two.status(Req::destroy(2)), status::OK);
    assert_eq!(one.status(Req::create(1, SHARED, UUID)), status::OK);
    assert_eq!(one.get(1, 1, 2), Err(status::MISS), "a page that survived the last member");

    assert_eq!(one.put(1, 1, 1, &page(4)), status::OK);
    drop(one);
    eventually("the first guest is gone", || daemon.guest_stats(0)["connected"] == false);
    assert_eq!(two.status(Req::create(2, SHARED, UUID)), status::OK);
    assert_eq!(two.get(2, 1, 1), Err(status::MISS), "a page that survived its only member's connection");
}

/// Conformance: ZC-DEV-90.
#[test]
fn a_flush_of_a_shared_pool_is_for_all_members() {
    let daemon = Daemon::with(&[ALLOW, ALLOW], &[]);
    let mut one = Client::attach(&daemon.socket(0));
    let mut two = Client::attach(&daemon.socket(1));
    for (guest, other) in [(&mut one, 1), (&mut two, 2)] {
        assert_eq!(guest.status(Req::create(1, SHARED, UUID)), status::OK);
        for index in 0..100 {
            assert_eq!(guest.put(1, other, index, &page(index)), status::OK);
        }
    }
    let answer = one.one(Req::flush_pool(1));
    assert_eq!((answer.status, answer.value), (status::OK, 200), "pages of both members");
    for object in [1, 2] {
        assert_eq!(two.get(1, object, 0), Err(status::MISS), "a page after the flush of the other member");
    }
}

/// Conformance: ZC-DEV-23.
#[test]
fn the_number_of_pools_is_limited() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    let most = u32::from_le_bytes(guest.config(20, 4).try_into().expect("four bytes"));
    for pool in 0..most {
        guest.create(pool, (pool % 2) as u16);
    }
    assert_eq!(guest.status(Req::create(most, 0, [0; 16])), status::LIMIT);
    assert_eq!(guest.status(Req::create(0, 0, [0; 16])), status::OK, "a pool that is there already");
    assert_eq!(guest.status(Req::destroy(1)), status::OK);
    guest.create(most, 0);
}

/// Conformance: ZC-DEV-26.
#[test]
fn a_destroyed_pool_never_comes_back() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    for flags in [0, PERSISTENT] {
        guest.create(1, flags);
        for index in 0..100 {
            assert_eq!(guest.put(1, 1, index, &page(index)), status::OK);
        }
        let destroyed = guest.one(Req::destroy(1));
        assert_eq!((destroyed.status, destroyed.value), (status::OK, 100), "pages removed, flags {flags}");
        for request in requests_on(1) {
            let opcode = request.opcode();
            assert_eq!(guest.status(request), status::NO_POOL, "opcode {opcode}, flags {flags}");
        }
        guest.create(1, flags);
        for index in 0..100 {
            assert_eq!(guest.get(1, 1, index), Err(status::MISS), "page {index} of the previous pool, flags {flags}");
        }
        assert_eq!(guest.status(Req::destroy(1)), status::OK);
    }
}
