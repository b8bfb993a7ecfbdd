// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The worker dies in a transfer: it has failed, and nothing is lost.

use std::io::{Read, Write};

use rustix::process::Signal;
use vhost_zcache::crash::Place;

use crate::client::daemon::{Daemon, Start};
use crate::client::state::Way;
use crate::client::{Client, eventually};
use crate::guest::{ALLOW, expect_nothing, settle, verify};

fn daemon_that_dies(place: Place, pass: u64) -> Daemon {
    let die_at = format!("{}:{pass}", place.name());
    Daemon::start_as(&[ALLOW, ALLOW], Start { die_at: Some(&die_at), ..Start::default() })
}

/// The state of a guest with so many pages.
fn state(pages: u64) -> (Client, Vec<u8>, Daemon) {
    let daemon = Daemon::with(&[ALLOW], &[]);
    let mut guest = settle(&daemon, 0, pages);
    let state = guest.save(Way::Socket);
    (guest, state, daemon)
}

#[test]
fn a_death_while_a_state_is_saved_fails_that() {
    for pass in [1, 3] {
        let daemon = daemon_that_dies(Place::StateMoved, pass);
        let mut guest = settle(&daemon, 0, 500);
        guest.stop_all();
        let mut file = guest.begin_save(Way::Socket).expect("SET_DEVICE_STATE_FD");
        let mut part = Vec::new();
        let _ = file.read_to_end(&mut part);
        assert!(!guest.check_state(), "a part of a state was saved");
        assert_eq!(daemon.deaths(), 1);

        let home = guest.set_out_to(&daemon.socket(1));
        assert!(!guest.load(Way::Socket, &part), "a part of a state was loaded");
        guest.come_back_to(home);
        guest.start_all();
        verify(&mut guest, 500);
        // The next one does it.
        let state = guest.save(Way::Pipe);
        let mut guest = guest.moved_to(&daemon.socket(1));
        assert!(guest.load(Way::Pipe, &state));
        guest.start_all();
        verify(&mut guest, 500);
    }
}

#[test]
fn a_death_while_a_state_is_loaded_leaves_nothing() {
    let (mut guest, state, _source) = state(500);
    for (place, pass) in [(Place::StateMoved, 1), (Place::StateMoved, 3), (Place::StateLoaded, 1)] {
        let daemon = daemon_that_dies(place, pass);
        let home = guest.set_out_to(&daemon.socket(0));
        assert!(!guest.load(Way::Socket, &state), "{}", place.name());
        assert_eq!(daemon.deaths(), 1, "{}", place.name());
        expect_nothing(&daemon, 0);
        eventually("its pages are gone", || daemon.stats()["store"]["pages"] == 0);
        assert!(guest.load(Way::Socket, &state), "the next one does not do it: {}\n{}", place.name(), daemon.log());
        guest.come_back_to(home);
    }
    guest.start_all();
    verify(&mut guest, 500);
}

#[test]
fn a_death_before_the_end_was_seen_is_one_of_the_transfer() {
    let (mut guest, state, _source) = state(500);
    let daemon = Daemon::with(&[ALLOW], &[]);
    let home = guest.set_out_to(&daemon.socket(0));
    let mut file = guest.begin_load(Way::Pipe).expect("SET_DEVICE_STATE_FD");
    file.write_all(&state).expect("the state");
    drop(file);
    eventually("it is loaded", || daemon.lines("the state is loaded") == 1);
    daemon.signal_worker(Signal::KILL);
    assert!(!guest.check_state(), "the worker that knew is dead");
    expect_nothing(&daemon, 0);
    assert!(guest.load(Way::Pipe, &state));
    // Once the VMM knows, and a queue is served, it stays.
    daemon.signal_worker(Signal::KILL);
    guest.start_all();
    verify(&mut guest, 500);
    daemon.signal_worker(Signal::KILL);
    verify(&mut guest, 500);
    drop(home);
}

#[test]
fn a_guest_that_was_served_since_keeps_what_it_has() {
    let daemon = Daemon::with(&[ALLOW], &[]);
    let (guest, state, _source) = state(100);
    let mut guest = guest.moved_to(&daemon.socket(0));
    let mut file = guest.begin_load(Way::Pipe).expect("SET_DEVICE_STATE_FD");
    file.write_all(&state).expect("the state");
    drop(file);
    eventually("it is loaded", || daemon.lines("the state is loaded") == 1);
    // The VMM does not care how it came out.
    guest.start_all();
    verify(&mut guest, 100);
    daemon.signal_worker(Signal::KILL);
    verify(&mut guest, 100);
}

#[test]
fn a_newer_program_takes_over_in_the_middle() {
    let daemon = Daemon::with(&[ALLOW], &[]);
    let mut guest = settle(&daemon, 0, 1500);
    guest.stop_all();
    let mut file = guest.begin_save(Way::Pipe).expect("SET_DEVICE_STATE_FD");
    daemon.signal_keeper(Signal::USR2);
    eventually("it has taken over", || daemon.lines("has taken over") == 1);
    file.read_to_end(&mut Vec::new()).expect("a part of the state");
    assert!(!guest.check_state(), "half a state was saved");
    assert_eq!(daemon.lines("has made room"), 1);
    guest.start_all();
    verify(&mut guest, 1500);
}
