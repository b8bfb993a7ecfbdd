// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The keeper ends while a VMM has said something.

use std::io::Write;
use std::os::fd::AsFd;

use rustix::process::Signal;

use crate::client::eventually;
use crate::client::vmm::{NEED_REPLY, VERSION, Vmm, memory_file, region, request, single};
use crate::manager::Managed;

/// A message's bytes.
fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).expect("a size");
    [request, flags, size].iter().flat_map(|word| word.to_ne_bytes()).chain(body.iter().copied()).collect()
}

#[test]
fn half_a_message_is_whole_when_the_rest_comes() {
    let mut service = Managed::start(&["a"], &[]);
    let mut vmm = Vmm::connect(&service.socket(0));
    let file = memory_file(0x10000);
    let bytes = message(request::ADD_MEM_REG, VERSION | NEED_REPLY, &single(&region(0, 0x10000, 0, 0)));
    for (number, at) in [1, 12, 13, bytes.len() - 1].into_iter().enumerate() {
        let has_file = || service.kept().iter().any(|name| name.starts_with("zcache-f"));
        eventually("nothing of the last round is kept", || !has_file());
        // The file comes with the first byte.
        vmm.send_bytes(&bytes[..at], &[file.as_fd()]);
        eventually("the half has been read", has_file);
        service.end(if number % 2 == 0 { Signal::KILL } else { Signal::TERM });
        service.again();
        vmm.stream().write_all(&bytes[at..]).expect("the rest");
        assert_eq!(vmm.answer(request::ADD_MEM_REG), 0u64.to_ne_bytes(), "after {at} bytes");
        assert_eq!(vmm.ask(request::REM_MEM_REG, &single(&region(0, 0x10000, 0, 0)), &[]), 0, "after {at} bytes");
    }
    assert_eq!(service.lines("connection ended"), 0);
}

#[test]
fn what_is_said_while_there_is_no_keeper_is_heard() {
    let mut service = Managed::start(&["a"], &[]);
    let vmm = Vmm::connect(&service.socket(0));
    let file = memory_file(0x10000);
    service.end(Signal::KILL);
    vmm.send(request::ADD_MEM_REG, VERSION | NEED_REPLY, &single(&region(0, 0x10000, 0, 0)), &[file.as_fd()]);
    vmm.send(request::GET_QUEUE_NUM, VERSION, &[], &[]);
    service.again();
    assert_eq!(vmm.answer(request::ADD_MEM_REG), 0u64.to_ne_bytes());
    assert_eq!(vmm.answer(request::GET_QUEUE_NUM), 8u64.to_ne_bytes());
}

/// The worker stands still, so that a change stays under way.
#[test]
fn a_change_that_is_under_way_is_carried_out_by_the_next() {
    let mut service = Managed::start(&["a"], &[]);
    let vmm = Vmm::connect(&service.socket(0));
    let file = memory_file(0x10000);
    let worker = service.worker().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(worker.expect("a worker"), Signal::STOP).expect("the worker");
    vmm.send(request::ADD_MEM_REG, VERSION | NEED_REPLY, &single(&region(0, 0x10000, 0, 0)), &[file.as_fd()]);
    eventually("the change is noted", || service.kept().iter().any(|name| name.starts_with("zcache-f")));
    // Behind it: one that is held, and one in the socket.
    vmm.send(request::GET_QUEUE_NUM, VERSION, &[], &[]);
    service.end(Signal::KILL);
    service.again();
    assert_eq!(vmm.answer(request::ADD_MEM_REG), 0u64.to_ne_bytes());
    assert_eq!(vmm.answer(request::GET_QUEUE_NUM), 8u64.to_ne_bytes());
    assert_eq!(vmm.ask(request::REM_MEM_REG, &single(&region(0, 0x10000, 0, 0)), &[]), 0);
}

#[test]
fn a_file_that_is_passed_again_is_kept_once() {
    let mut service = Managed::start(&["a"], &[]);
    let vmm = Vmm::connect(&service.socket(0));
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("an event");
    for _ in 0..3 {
        for ring in 0..2u64 {
            assert_eq!(vmm.ask(request::SET_VRING_CALL, &ring.to_ne_bytes(), &[event.as_fd()]), 0);
        }
    }
    assert_eq!(service.kept().iter().filter(|name| name.starts_with("zcache-f")).count(), 1);
    service.end(Signal::KILL);
    service.again();
    for ring in 0..2u64 {
        assert_eq!(vmm.ask(request::SET_VRING_CALL, &ring.to_ne_bytes(), &[event.as_fd()]), 0);
    }
    assert_eq!(service.kept().iter().filter(|name| name.starts_with("zcache-f")).count(), 1);
    assert_eq!(service.refused(), 0);
}
