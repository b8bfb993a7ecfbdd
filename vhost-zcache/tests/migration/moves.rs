// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest moves, and goes on where it has stopped; or it does not, and goes on where it is.

use crate::client::daemon::Daemon;
use crate::client::state::Way;
use crate::client::wire::{EXCLUSIVE, Req, status};
use crate::client::{Client, eventually, page};
use crate::guest::{ALLOW, COMMON, FILES, SWAP, expect_nothing, settle, store, verify};

/// Moves a guest to another daemon, as Cloud Hypervisor does.
fn move_to(mut guest: Client, daemon: &Daemon, way: Way) -> Client {
    let state = guest.save(way);
    let mut guest = guest.moved_to(&daemon.socket(0));
    assert!(guest.load(way, &state), "the state was not loaded\n{}", daemon.log());
    guest.start_all();
    guest
}

/// Conformance: ZC-DEV-93.
#[test]
fn a_guest_goes_on_at_another_daemon() {
    for way in [Way::Pipe, Way::Socket] {
        let here = Daemon::with(&[ALLOW], &[]);
        let there = Daemon::with(&[ALLOW, ALLOW], &[]);
        let mut neighbour = settle(&there, 1, 10);
        let mut guest = settle(&here, 0, 700);
        let (epoch, resumed) = guest.hello(1);
        assert!(resumed);
        guest.create(FILES, 0);
        assert_eq!(guest.status(Req::create(COMMON, 2, crate::guest::UUID)), status::OK);
        assert_eq!(guest.put(FILES, 1, 3, &page(3)), status::OK);

        let mut guest = move_to(guest, &there, way);
        eventually("nothing is left where it was", || here.stats()["store"]["pages"] == 0);
        verify(&mut guest, 700);
        // The pools are there, and of those that may lose pages all have.
        assert_eq!(guest.get(FILES, 1, 3), Err(status::MISS));
        assert_eq!(guest.get(COMMON, 1, 3), Err(status::MISS), "a page that the guest may have flushed");
        assert_eq!(neighbour.get(COMMON, 1, 3), Err(status::MISS));
        for pool in [FILES, COMMON] {
            assert_eq!(guest.put(pool, 1, 3, &page(4)), status::OK);
            assert_eq!(guest.one(Req::get(pool, 1, 3, EXCLUSIVE)).page, Some(page(4)));
        }
        assert_eq!(guest.one(Req::flush_object(SWAP, 1)).status, status::OK);
        store(&mut guest, 700);
        verify(&mut guest, 700);
        assert_eq!(guest.hello(1), (epoch, true), "the session is another one");
        verify(&mut guest, 700);
        verify(&mut neighbour, 10);
    }
}

/// Conformance: ZC-DEV-94.
#[test]
fn a_guest_that_was_saved_goes_on_where_it_is() {
    let here = Daemon::with(&[ALLOW], &[]);
    let there = Daemon::with(&[ALLOW], &[]);
    let mut guest = settle(&here, 0, 300);
    let state = guest.save(Way::Socket);
    // It does not arrive.
    let home = guest.set_out_to(&there.socket(0));
    assert!(!guest.load(Way::Socket, &state[..state.len() / 2]), "half a state was loaded");
    expect_nothing(&there, 0);
    guest.come_back_to(home);

    guest.start_all();
    verify(&mut guest, 300);
    assert_eq!(guest.get(FILES, 1, 3), Ok(page(3)), "saving has cost a page");
    assert_eq!(guest.get(COMMON, 1, 3), Ok(page(3)));
    // And once more, for good.
    assert_eq!(guest.put(SWAP, 1, 1000, &page(5)), status::OK);
    let mut guest = move_to(guest, &there, Way::Pipe);
    verify(&mut guest, 300);
    assert_eq!(guest.get(SWAP, 1, 1000), Ok(page(5)));
}

#[test]
fn a_snapshot_is_taken_over_by_as_many_guests_as_want_it() {
    let daemon = Daemon::with(&[ALLOW, ALLOW, ALLOW], &[]);
    let mut first = settle(&daemon, 0, 200);
    let state = first.save(Way::Socket);
    first.start_all();
    for number in 1..3 {
        // A machine of its own, whose rings stand where those of the first did.
        let mut guest = settle(&daemon, number, 0);
        guest.stop_all();
        let mut guest = guest.moved_to(&daemon.socket(number));
        assert!(guest.load(Way::Socket, &state), "{}", daemon.log());
        guest.start_all();
        // They do not stand there, so it is another driver, which says HELLO.
        assert!(guest.hello(1).1, "the pages are not there");
        verify(&mut guest, 200);
        assert_eq!(guest.put(SWAP, 0, 0, &page(77)), status::OK);
    }
    verify(&mut first, 200);
}

#[test]
fn a_guest_moves_to_and_fro_and_works_in_between() {
    let daemons = [Daemon::with(&[ALLOW], &[]), Daemon::with(&[ALLOW], &[])];
    let mut guest = settle(&daemons[0], 0, 150);
    for hop in 1..9u64 {
        let way = if hop % 2 == 0 { Way::Pipe } else { Way::Socket };
        guest = move_to(guest, &daemons[(hop % 2) as usize], way);
        verify(&mut guest, 150);
        assert_eq!(guest.put(SWAP, 200, hop, &page(hop)), status::OK);
        if hop > 1 {
            assert_eq!(guest.get(SWAP, 200, hop - 1), Ok(page(hop - 1)), "what was put before the last hop");
            assert_eq!(guest.one(Req::flush_page(SWAP, 200, hop - 1)).value, 1);
        }
        if hop > 2 {
            assert_eq!(guest.get(SWAP, 200, hop - 2), Err(status::MISS), "what was flushed before the last hop");
        }
    }
}

#[test]
fn a_driver_that_was_reset_before_resumes_after() {
    let here = Daemon::with(&[ALLOW], &[]);
    let there = Daemon::with(&[ALLOW], &[]);
    let mut guest = settle(&here, 0, 100);
    let (epoch, _) = guest.hello(1);
    guest.reset();
    assert_eq!(guest.status(Req::flush_pool(SWAP)), status::NO_SESSION);
    let mut guest = move_to(guest, &there, Way::Socket);
    assert_eq!(guest.status(Req::flush_pool(SWAP)), status::NO_SESSION, "the session is open again");
    assert_eq!(guest.hello(1), (epoch, true));
    verify(&mut guest, 100);
}

#[test]
fn a_guest_without_a_driver_moves_as_well() {
    let here = Daemon::with(&[ALLOW], &[]);
    let there = Daemon::with(&[ALLOW], &[]);
    let guest = Client::connect(&here.socket(0), crate::client::Setup::default());
    let mut guest = move_to(guest, &there, Way::Socket);
    assert!(!guest.hello(1).1);
    guest.create(SWAP, 1);
}

#[test]
fn what_was_moved_survives_the_worker() {
    let here = Daemon::with(&[ALLOW], &[]);
    let there = Daemon::with(&[ALLOW], &[]);
    let mut guest = move_to(settle(&here, 0, 300), &there, Way::Socket);
    there.signal_worker(rustix::process::Signal::KILL);
    verify(&mut guest, 300);
    assert_eq!(there.deaths(), 1);
}
