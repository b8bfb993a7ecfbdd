// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VMMs by the thousand, VMMs that do not read, and a daemon that stands still as a whole: whoever
//! is served goes on, and nothing is left of the others.

mod client;

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use client::daemon::Daemon;
use client::vmm::{VERSION, Vmm, memory_file, region, request, table, words};
use client::wire::{PERSISTENT, status};
use client::{Client, eventually, page};
use rustix::process::{Resource, Signal, getrlimit, getuid};

/// A field of `/proc/PID/status`, in KiB.
fn kib(process: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("the process");
    let line = text.lines().find(|line| line.starts_with(name)).expect("the field");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// A daemon with a guest at its second socket that has a page, and its first socket for the others.
fn with_bystander() -> (Daemon, Client) {
    let daemon = Daemon::with(&["", ""], &[]);
    let mut guest = Client::attach(&daemon.socket(1));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    (daemon, guest)
}

#[test]
fn thousands_of_vmms_that_leave_in_the_middle_of_a_message_leave_nothing() {
    let (daemon, mut guest) = with_bystander();
    let file = memory_file(0x1000);
    let message = [
        words(&[request::SET_MEM_TABLE, VERSION, 8 + 32 * 4]),
        table(&(0..4u64).map(|n| region(n << 12, 0x1000, n << 12, 0)).collect::<Vec<_>>()),
    ]
    .concat();
    let come_and_go = |number: usize| {
        let vmm = Vmm::on(UnixStream::connect(daemon.socket(0)).expect("a connection"));
        // Cut everywhere: in the header, behind it, in the body.
        vmm.send_bytes(&message[..1 + number % (message.len() - 1)], &[file.as_fd(); 8]);
    };
    for number in 0..200 {
        come_and_go(number);
    }
    let settled = || {
        eventually("the guest is gone", || daemon.guest_stats(0)["connected"] == false);
        (daemon.descriptors(), daemon.threads())
    };
    let before = settled();
    let resident = kib(daemon.keeper(), "VmRSS:");
    for number in 0..3000 {
        come_and_go(number);
        if number % 500 == 0 {
            assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "after {number} connections");
        }
    }
    // The first look may have been at one that was on its way out.
    eventually("descriptors and threads are no more than before", || {
        let after = settled();
        after.0 <= before.0 && after.1 <= before.1
    });
    let now = kib(daemon.keeper(), "VmRSS:");
    assert!(now < resident + 2048, "the keeper has grown from {resident} to {now} KiB");
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert_eq!(daemon.deaths(), 0);
}

#[test]
fn thousands_at_the_door_of_a_guest_that_is_connected_are_turned_away() {
    let (daemon, mut guest) = with_bystander();
    let mut turned_away = 0;
    for _ in 0..20 {
        // As many at once as a process has descriptors for.
        let crowd: Vec<_> = (0..100).map(|_| UnixStream::connect(daemon.socket(1)).expect("a connection")).collect();
        for stream in crowd {
            Vmm::on(stream).expect_closed("a second VMM");
            turned_away += 1;
        }
        assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "after {turned_away} were turned away");
    }
    let lines = daemon.lines("a second VMM was turned away");
    assert!(lines <= 10, "{lines} lines for {turned_away} of them");
}

#[test]
fn a_vmm_that_never_reads_costs_nobody_anything() {
    let (daemon, mut guest) = with_bystander();
    let resident = kib(daemon.keeper(), "VmRSS:");
    let mut stream = UnixStream::connect(daemon.socket(0)).expect("a connection");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let question = [words(&[request::GET_CONFIG, VERSION, 12 + 256, 0, 256, 0]), vec![0; 256]].concat();
    let mut asked = 0u64;
    let error = loop {
        match stream.write_all(&question) {
            Ok(()) => asked += 1,
            Err(error) => break error,
        }
        assert!(asked < 1_000_000, "answers that nobody reads are taken in without end");
    };
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    guest.stop_queue(0);
    guest.start_queue(0);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    let now = kib(daemon.keeper(), "VmRSS:");
    assert!(now < resident + 2048, "the keeper has grown from {resident} to {now} KiB in {asked} questions");
    drop(stream);
    eventually("it is gone", || daemon.guest_stats(0)["connected"] == false);
    Client::attach(&daemon.socket(0)).create(0, 0);
}

#[test]
fn a_daemon_that_was_frozen_as_a_whole_has_no_complaint() {
    let (daemon, mut guest) = with_bystander();
    let worker = daemon.worker();
    daemon.signal_worker(Signal::STOP);
    daemon.signal_keeper(Signal::STOP);
    // Longer than a worker may be silent.
    let frozen = Instant::now();
    std::thread::sleep(Duration::from_secs(8));
    daemon.signal_keeper(Signal::CONT);
    daemon.signal_worker(Signal::CONT);
    assert!(frozen.elapsed() >= Duration::from_secs(8));
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    guest.stop_queue(0);
    guest.start_queue(0);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert_eq!((daemon.deaths(), daemon.worker()), (0, worker), "{}", daemon.log());
}

#[test]
fn the_keeper_is_locked_in_memory() {
    let daemon = Daemon::start();
    let (locked, size) = (kib(daemon.keeper(), "VmLck:"), kib(daemon.keeper(), "VmSize:"));
    let limit = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX) / 1024;
    if locked == 0 && !getuid().is_root() {
        assert!(limit < 2 * size, "{size} KiB are not locked, of which {limit} may be");
        return;
    }
    assert!(locked > size / 2, "{locked} of {size} KiB are locked");
    // What is locked is small, whatever the store's limit is.
    assert!(locked < 64 << 10, "{locked} KiB are locked");
    let worker = daemon.worker().expect("a worker");
    assert_eq!(kib(worker, "VmLck:"), 0, "the store's memory is the host's to swap");
}
