// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VMM says wrongly is answered, and ends neither it nor its connection.

mod client;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use client::daemon::Daemon;
use client::vmm::{NEED_REPLY, VERSION, Vmm, borrow, memory_file, region, request, single, table, words};
use client::wire::{Req, status};
use client::{Client, Setup, Shape, page};

/// Conformance: ZC-DEV-73.
#[test]
fn a_message_that_makes_no_sense_is_answered_with_an_error() {
    let daemon = Daemon::start();
    let vmm = Vmm::connect(&daemon.socket(0));
    let file = memory_file(0x1000);
    let files: Vec<_> = (0..33).map(|_| memory_file(0x1000)).collect();
    let one = region(0x1000, 0x1000, 0x1000, 0);
    let number = |number: u64| number.to_ne_bytes().to_vec();
    let cases: Vec<(&str, u32, Vec<u8>, Vec<_>)> = vec![
        ("an unknown message", 99, vec![1; 40], vec![]),
        ("an unknown message with a file", 0, vec![], vec![file.as_fd()]),
        ("a message that is not offered", request::RESET_DEVICE, vec![], vec![]),
        ("an inflight region", request::SET_INFLIGHT_FD, vec![0; 24], vec![file.as_fd()]),
        ("half a word", request::SET_FEATURES, vec![0; 4], vec![]),
        ("an unknown feature", request::SET_FEATURES, number(1 << 34), vec![]),
        ("a table of no length", request::SET_MEM_TABLE, vec![], vec![]),
        ("a table that counts wrongly", request::SET_MEM_TABLE, words(&[2, 0]), vec![file.as_fd()]),
        ("a table without files", request::SET_MEM_TABLE, table(std::slice::from_ref(&one)), vec![]),
        ("a table with too many files", request::SET_MEM_TABLE, table(std::slice::from_ref(&one)), borrow(&files[..2])),
        ("a region without a file", request::ADD_MEM_REG, single(&one), vec![]),
        ("a region with two files", request::ADD_MEM_REG, single(&one), borrow(&files[..2])),
        ("half a region", request::ADD_MEM_REG, vec![0; 16], vec![file.as_fd()]),
        ("an empty region", request::ADD_MEM_REG, single(&region(0, 0, 0, 0)), vec![file.as_fd()]),
        ("a region that is not there", request::REM_MEM_REG, single(&one), vec![]),
        ("the size of no queue", request::SET_VRING_NUM, words(&[64, 256]), vec![]),
        ("the base of no queue", request::SET_VRING_BASE, words(&[u32::MAX, 0]), vec![]),
        ("the place of no queue", request::SET_VRING_ADDR, [words(&[64, 0]), vec![0; 32]].concat(), vec![]),
        ("half a place", request::SET_VRING_ADDR, vec![0; 20], vec![]),
        ("the kick of no queue", request::SET_VRING_KICK, number(64), vec![file.as_fd()]),
        ("the call of no queue", request::SET_VRING_CALL, number(64), vec![file.as_fd()]),
        ("the error of no queue", request::SET_VRING_ERR, number(255), vec![file.as_fd()]),
        ("a kick without a file", request::SET_VRING_KICK, number(0), vec![]),
        ("two calls", request::SET_VRING_CALL, number(0), borrow(&files[..2])),
        ("enabling no queue", request::SET_VRING_ENABLE, words(&[8, 1]), vec![]),
        ("enabling by half", request::SET_VRING_ENABLE, words(&[0, 2]), vec![]),
        ("half a write of configuration", request::SET_CONFIG, vec![0; 8], vec![]),
    ];
    for (what, request, body, files) in &cases {
        assert_eq!(vmm.ask(*request, body, files), 1, "{what} was not answered with an error");
        vmm.expect_alive(what);
        vmm.send(*request, VERSION, body, files);
        vmm.expect_alive(&format!("{what}, with no answer wanted,"));
    }
    vmm.send(request::SET_OWNER, VERSION | NEED_REPLY | 4, &[], &[]);
    vmm.expect_alive("an answer that nobody asked for");
    assert_eq!(vmm.ask(request::SET_OWNER, &[], &[file.as_fd()]), 0, "a file too many does no harm");

    assert!(daemon.lines("failed:") <= 2, "each of {} messages is a line in the log", 2 * cases.len());
    drop(vmm);
    Client::attach(&daemon.socket(0)).create(0, 0);
}

/// Conformance: ZC-DEV-74.
#[test]
fn a_question_that_makes_no_sense_is_answered_with_zeros() {
    let daemon = Daemon::start();
    let vmm = Vmm::connect(&daemon.socket(0));
    let ask = |request: u32, body: &[u8]| {
        vmm.send(request, VERSION, body, &[]);
        vmm.answer(request)
    };
    assert_eq!(ask(request::GET_VRING_BASE, &words(&[64, 7])), words(&[64, 0]), "the base of no queue");
    assert_eq!(ask(request::GET_VRING_BASE, &[1, 2]), words(&[0, 0]), "half a queue");
    assert_eq!(ask(request::GET_QUEUE_NUM, &[9; 24]), 8u64.to_ne_bytes(), "a body too many");
    assert_eq!(ask(request::GET_CONFIG, &words(&[4, 8, 0])), words(&[4, 0, 0]), "a read without room");
    assert_eq!(ask(request::GET_CONFIG, &[7; 3]), words(&[0, 0, 0]), "half a read");
    vmm.expect_alive("bad questions");
}

/// Conformance: ZC-DEV-4, ZC-DEV-77.
#[test]
fn configuration_reads_of_any_size_and_place_are_answered() {
    let daemon = Daemon::start();
    let vmm = Vmm::connect(&daemon.socket(0));
    let read = |offset: u32, size: u32| {
        let head = words(&[offset, size, 0]);
        vmm.send(request::GET_CONFIG, VERSION, &[&head[..], &vec![0xee; size as usize]].concat(), &[]);
        let answer = vmm.answer(request::GET_CONFIG);
        assert_eq!(answer[..12], head, "a read of {size} bytes at {offset}");
        answer[12..].to_vec()
    };
    assert_eq!(&read(0, 4084)[..8], b"ZCCH\x01\x00\x00\x00");
    assert_eq!(read(0, 4084)[32..], [0; 4052]);
    assert_eq!(read(2, 4084)[..2], *b"CH", "a read that ends past the end");
    for (offset, size) in [(0, 0), (31, 0), (4096, 0), (4090, 10), (4096, 4), (u32::MAX, 4), (u32::MAX - 3, 4084)] {
        assert_eq!(read(offset, size), vec![0; size as usize], "{size} bytes at {offset}");
    }
    vmm.expect_alive("all these reads");
}

/// Conformance: ZC-DEV-75.
#[test]
fn only_what_is_no_message_ends_a_connection() {
    let daemon = Daemon::start();
    for (what, header) in [
        ("version 0", [1, 0, 0]),
        ("version 2", [1, 2, 0]),
        ("an unknown flag", [1, 0x11, 0]),
        ("a body too long", [1, 1, 4097]),
        ("text", [0x2054_4547, 0x5448_202f, 0x312f_5054]),
    ] {
        let mut vmm = Vmm::connect(&daemon.socket(0));
        vmm.send_bytes(&words(&header), &[]);
        vmm.expect_closed(what);
    }
    Client::attach(&daemon.socket(0)).create(0, 0);
}

/// Conformance: ZC-DEV-79.
#[test]
fn half_a_message_holds_nothing_up() {
    let daemon = Daemon::start();
    let vmm = Vmm::connect(&daemon.socket(0));
    let message = words(&[request::GET_FEATURES, VERSION, 0]);
    vmm.send_bytes(&message[..5], &[]);
    let mut second = Vmm::on(UnixStream::connect(daemon.socket(0)).expect("a connection"));
    second.expect_closed("a second VMM beside half a message");
    vmm.send_bytes(&message[5..], &[]);
    vmm.answer(request::GET_FEATURES);

    // More answers than the socket holds, and not so many messages that this test would wait.
    for _ in 0..400 {
        vmm.send(request::GET_FEATURES, VERSION, &[], &[]);
    }
    let mut second = Vmm::on(UnixStream::connect(daemon.socket(0)).expect("a connection"));
    second.expect_closed("a second VMM beside one that does not read");
    for _ in 0..400 {
        vmm.answer(request::GET_FEATURES);
    }
}

/// Conformance: ZC-DEV-76.
#[test]
fn a_machine_whose_memory_is_not_shared_lives_on_and_is_told_why() {
    let daemon = Daemon::start();
    let vmm = Vmm::connect(&daemon.socket(0));
    // What QEMU sends when the guest starts the device, less the memory it cannot share.
    vmm.send(request::SET_FEATURES, VERSION, &0x1_7000_0000u64.to_ne_bytes(), &[]);
    let event = memory_file(0);
    for queue in 0..4u32 {
        vmm.send(request::SET_VRING_NUM, VERSION, &words(&[queue, 1024]), &[]);
        vmm.send(request::SET_VRING_BASE, VERSION, &words(&[queue, 0]), &[]);
        let places = [0x7f00_0000_0000u64, 0x7f00_0001_0000, 0x7f00_0000_8000, 0];
        let places: Vec<u8> = places.iter().flat_map(|place| place.to_ne_bytes()).collect();
        let body = [words(&[queue, 0]), places].concat();
        assert_eq!(vmm.ask(request::SET_VRING_ADDR, &body, &[]), 0, "an error here ends Cloud Hypervisor");
        vmm.send(request::SET_VRING_KICK, VERSION, &u64::from(queue).to_ne_bytes(), &[event.as_fd()]);
        vmm.send(request::SET_VRING_CALL, VERSION, &u64::from(queue).to_ne_bytes(), &[event.as_fd()]);
    }
    for queue in 0..4u32 {
        vmm.send(request::SET_VRING_ENABLE, VERSION, &words(&[queue, 1]), &[]);
    }
    vmm.expect_alive("a start without memory");
    assert_eq!(daemon.lines("share=on"), 1, "one line says what is missing");
    assert_eq!(daemon.guest_stats(0)["connected"], true);
    vmm.send(request::GET_VRING_BASE, VERSION, &words(&[0, 0]), &[]);
    assert_eq!(vmm.answer(request::GET_VRING_BASE), words(&[0, 0]), "the rings were left alone");
}

/// Conformance: ZC-DEV-76.
#[test]
fn a_ring_of_impossible_size_is_not_served_and_another_is() {
    let daemon = Daemon::start();
    let stream = UnixStream::connect(daemon.socket(0)).expect("a connection");
    let vmm = Vmm::on(stream.try_clone().expect("a descriptor"));
    let mut guest = Client::from_stream(stream, Setup::default());
    guest.hello(1);
    guest.create(0, 0);
    for size in [0u32, 100, 2048, u32::MAX] {
        assert_eq!(vmm.ask(request::SET_VRING_NUM, &words(&[1, size]), &[]), 0, "{size} entries");
        let unanswered = guest.post(1, &[Req::flush_pool(0)], Shape::Whole);
        guest.expect_silence(1);
        assert_eq!(unanswered.queue, 1);
        assert_eq!(guest.put(0, 1, 1, &page(1)), status::OK, "the other queue goes on");
        guest.restart_queue(1);
        // A ring that was cleared is another driver's.
        guest.hello(1);
        guest.create(0, 0);
        assert_eq!(guest.submit(1, &[Req::flush_pool(0)])[0].status, status::OK, "a good size mends it");
    }
}
