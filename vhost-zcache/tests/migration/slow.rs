// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VMM that is slow at its end, or does nothing, holds up nobody but its own transfer.

use std::io::{Read, Write};

use crate::client::daemon::Daemon;
use crate::client::state::Way;
use crate::guest::{ALLOW, settle, verify};

/// Another guest works, and the first one's VMM is answered.
fn nobody_is_held_up(daemon: &Daemon, first: &mut crate::client::Client) {
    let mut other = settle(daemon, 1, 50);
    verify(&mut other, 50);
    assert_eq!(&first.config(0, 4), b"ZCCH");
    assert_eq!(daemon.deaths(), 0);
}

#[test]
fn a_slow_reader_is_waited_for() {
    let daemon = Daemon::with(&[ALLOW, ALLOW], &[]);
    for way in [Way::Pipe, Way::Socket] {
        let mut guest = settle(&daemon, 0, 1500);
        guest.stop_all();
        let mut file = guest.begin_save(way).expect("SET_DEVICE_STATE_FD");
        let mut state = vec![0; 1];
        file.read_exact(&mut state).expect("a byte");
        nobody_is_held_up(&daemon, &mut guest);
        file.read_to_end(&mut state).expect("the rest");
        assert!(guest.check_state());
        let mut guest = guest.moved_to(&daemon.socket(0));

        let mut file = guest.begin_load(way).expect("SET_DEVICE_STATE_FD");
        let (first, rest) = state.split_at(10_000);
        for byte in first.chunks(7) {
            file.write_all(byte).expect("a part of the state");
        }
        nobody_is_held_up(&daemon, &mut guest);
        file.write_all(rest).expect("the rest");
        drop(file);
        assert!(guest.check_state());
        guest.start_all();
        verify(&mut guest, 1500);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_reader() {
    let daemon = Daemon::with(&[ALLOW, ALLOW], &[]);
    for way in [Way::Pipe, Way::Socket] {
        let mut guest = settle(&daemon, 0, 1500);
        guest.stop_all();
        let mut file = guest.begin_save(way).expect("SET_DEVICE_STATE_FD");
        file.read_exact(&mut [0; 100]).expect("a part of the state");
        drop(file);
        assert!(!guest.check_state(), "a state that nobody has read was saved");
        guest.start_all();
        verify(&mut guest, 1500);
        // Nor is one that begins anew.
        guest.stop_all();
        let file = guest.begin_save(way).expect("SET_DEVICE_STATE_FD");
        let state = guest.save(way);
        drop(file);
        assert!(state.len() > 1500 * 100);
        guest.start_all();
        verify(&mut guest, 1500);
    }
}

#[test]
fn a_vmm_that_waits_for_itself_is_told_so() {
    let daemon = Daemon::with(&[ALLOW, ALLOW], &[]);
    let mut guest = settle(&daemon, 0, 1500);
    guest.stop_all();
    // It does not read, and asks whether all was read.
    let file = guest.begin_save(Way::Pipe).expect("SET_DEVICE_STATE_FD");
    assert!(!guest.check_state());
    assert_eq!(daemon.lines("the state is not saved: nothing has moved for ten seconds"), 1);
    drop(file);
    guest.start_all();
    verify(&mut guest, 1500);
    nobody_is_held_up(&daemon, &mut guest);
}
