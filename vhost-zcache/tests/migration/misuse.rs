// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VMM asks for what cannot be, and harms nobody.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::client::daemon::Daemon;
use crate::client::state::Way;
use crate::client::vmm::{VERSION, Vmm, memory_file, request, words};
use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, Setup, page};
use crate::guest::{ALLOW, expect_nothing, settle, verify};

const SAVE: u32 = 0;
const LOAD: u32 = 1;
const REFUSED: u64 = 0x101;

fn begin(vmm: &Vmm, body: &[u8], files: &[BorrowedFd<'_>]) -> u64 {
    vmm.send(request::SET_DEVICE_STATE_FD, VERSION, body, files);
    u64::from_ne_bytes(vmm.answer(request::SET_DEVICE_STATE_FD).try_into().expect("a number"))
}

#[test]
fn what_makes_no_sense_is_refused() {
    let daemon = Daemon::start();
    let vmm = Vmm::connect(&daemon.socket(0));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let file = memory_file(0x1000);
    let null = File::open("/dev/null").expect("a device");
    let network = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for (what, body, files) in [
        ("no file", words(&[SAVE, 0]), vec![]),
        ("two files", words(&[SAVE, 0]), vec![writer.as_fd(), reader.as_fd()]),
        ("an unknown direction", words(&[2, 0]), vec![writer.as_fd()]),
        ("an unknown phase", words(&[SAVE, 1]), vec![writer.as_fd()]),
        ("half a message", words(&[SAVE]), vec![writer.as_fd()]),
        ("a file that is no pipe", words(&[SAVE, 0]), vec![file.as_fd()]),
        ("a device", words(&[SAVE, 0]), vec![null.as_fd()]),
        ("a socket of the network", words(&[LOAD, 0]), vec![network.as_fd()]),
        ("what cannot be written to", words(&[SAVE, 0]), vec![reader.as_fd()]),
        ("what cannot be read from", words(&[LOAD, 0]), vec![writer.as_fd()]),
    ] {
        assert_eq!(begin(&vmm, &body, &files), REFUSED, "{what}");
        assert_eq!(vmm.number(request::CHECK_DEVICE_STATE), 1, "{what}");
        vmm.expect_alive(what);
    }
    assert_eq!(begin(&vmm, &words(&[SAVE, 0]), &[writer.as_fd()]), 0x100);
    assert_eq!(vmm.number(request::CHECK_DEVICE_STATE), 0, "the state of nothing fits in the pipe");
}

#[test]
fn queues_are_stopped_before_and_stay_so() {
    let daemon = Daemon::with(&[ALLOW], &[]);
    let mut guest = settle(&daemon, 0, 600);
    assert!(guest.begin_save(Way::Pipe).is_err(), "a state was saved while queues are served");
    assert!(guest.begin_load(Way::Pipe).is_err(), "a state is loaded while queues are served");
    verify(&mut guest, 600);

    guest.stop_all();
    let mut pipe = guest.begin_save(Way::Pipe).expect("SET_DEVICE_STATE_FD");
    guest.start_all();
    let mut state = Vec::new();
    pipe.read_to_end(&mut state).expect("what there is of the state");
    assert!(!guest.check_state(), "the guest may have changed what was saved");
    verify(&mut guest, 600);

    let state = guest.save(Way::Pipe);
    assert!(guest.begin_load(Way::Pipe).is_err(), "a state is loaded into a guest that has something");
    guest.start_all();
    verify(&mut guest, 600);

    let mut guest = guest.moved_to(&daemon.socket(0));
    let mut pipe = guest.begin_load(Way::Pipe).expect("SET_DEVICE_STATE_FD");
    pipe.write_all(&state[..state.len() - 100]).expect("most of the state");
    guest.start_all();
    // The next one is the last thing that it reads.
    let _ = pipe.write_all(&state[state.len() - 100..]);
    drop(pipe);
    assert!(!guest.check_state(), "a driver may have been at work");
    assert!(!guest.hello(1).1, "half a session was resumed");
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
}

#[test]
fn what_the_destination_has_not_is_not_promised() {
    let here = Daemon::with(&[ALLOW], &["--queues", "8"]);
    let mut guest = settle(&here, 0, 2000);
    let state = guest.save(Way::Socket);
    for (options, arguments, why) in [
        ("", &[][..], "allow-shared"),
        (&format!("{ALLOW},memory-limit=1M"), &[], "limit"),
        (ALLOW, &["--memory-limit", "2M"], "refused"),
        (ALLOW, &["--queues", "1"], "--queues"),
    ] {
        let there = Daemon::with(&[options], arguments);
        let home = guest.set_out_to(&there.socket(0));
        assert!(!guest.load(Way::Socket, &state), "{why}");
        let log = there.log();
        assert!(log.lines().any(|line| line.contains("is not loaded") && line.contains(why)), "{why}: {log}");
        expect_nothing(&there, 0);
        guest.come_back_to(home);
    }
    guest.start_all();
    verify(&mut guest, 2000);
}

#[test]
fn a_page_that_is_damaged_is_not_passed_on() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    let mut secret = page(1);
    secret[..8].copy_from_slice(b"damaged!");
    assert_eq!(guest.put(1, 1, 1, &secret), status::OK);
    assert_eq!(guest.put(1, 1, 2, &page(2)), status::OK);
    assert_eq!(daemon.damage(b"damaged!"), 1);
    guest.stop_all();
    let mut pipe = guest.begin_save(Way::Pipe).expect("SET_DEVICE_STATE_FD");
    pipe.read_to_end(&mut Vec::new()).expect("what there is of the state");
    assert!(!guest.check_state(), "a damaged page was saved");
    assert_eq!(daemon.lines("the state is not saved: a stored page is damaged"), 1);
    guest.start_all();
    assert_eq!(guest.get(1, 1, 2), Ok(page(2)), "the others are there");
    assert_eq!(guest.get(1, 1, 1), Err(status::CORRUPT));
}

#[test]
fn whoever_leaves_in_the_middle_leaves_nothing() {
    let daemon = Daemon::with(&[ALLOW], &[]);
    let state = settle(&daemon, 0, 500).save(Way::Pipe);
    for _ in 0..3 {
        let guest = Client::connect(&daemon.socket(0), Setup { start: false, ..Setup::default() });
        let mut pipe = guest.begin_load(Way::Pipe).expect("SET_DEVICE_STATE_FD");
        pipe.write_all(&state[..state.len() / 2]).expect("half of the state");
        drop(guest);
        crate::client::eventually("the half is gone", || daemon.stats()["store"]["pages"] == 0);
        // The pipe is still open.
        drop(pipe);
    }
    let mut guest = settle(&daemon, 0, 20);
    verify(&mut guest, 20);
}
