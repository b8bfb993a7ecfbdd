// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device writes to guest memory is in the VMM's log.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use vhost::vhost_user::message::VhostUserVirtioFeatures;
use vhost::{VhostBackend, VhostUserDirtyLogRegion};
use vhost_zcache::crash::Place;

use crate::client::daemon::{Daemon, Start};
use crate::client::ram::RAM_BASE;
use crate::client::vmm::memory_file;
use crate::client::wire::{PERSISTENT, Req, status};
use crate::client::{Client, Setup, Shape, page};

const PAGE: usize = 0x1000;
const RAM: usize = 2 << 20;

/// A driver that writes nothing while it waits.
fn setup() -> Setup {
    Setup { queues: 1, ram: RAM, event_idx: false, ..Setup::default() }
}

fn attach(daemon: &Daemon) -> Client {
    let mut guest = Client::connect(&daemon.socket(0), setup());
    guest.hello(1);
    guest.create(1, PERSISTENT);
    for index in 0..8 {
        assert_eq!(guest.put(1, 1, index, &page(index)), status::OK);
    }
    guest
}

/// A log for all of a guest's memory, which the device gets.
fn set_log(guest: &mut Client) -> File {
    let size = (RAM_BASE + RAM as u64) / PAGE as u64 / 8;
    let file = memory_file(size);
    let region = VhostUserDirtyLogRegion { mmap_size: size, mmap_offset: 0, mmap_handle: file.as_raw_fd() };
    guest.frontend().set_log_base(0, Some(region)).expect("SET_LOG_BASE");
    file
}

/// Switches the log on or off, as Cloud Hypervisor does.
fn switch(guest: &mut Client, on: bool) {
    let log = if on { VhostUserVirtioFeatures::LOG_ALL.bits() } else { 0 };
    let features = setup().features() | log;
    guest.frontend().set_features(features).expect("SET_FEATURES");
}

/// Pages of memory that are marked.
fn marked(log: &File) -> Vec<usize> {
    let first = usize::try_from(RAM_BASE).expect("an address") / PAGE;
    let mut bits = vec![0; RAM / PAGE / 8];
    log.read_exact_at(&mut bits, first as u64 / 8).expect("the log");
    (0..RAM / PAGE).filter(|page| bits[page / 8] >> (page % 8) & 1 == 1).collect()
}

fn contents(guest: &mut Client) -> Vec<u8> {
    guest.ram().read(RAM_BASE, RAM)
}

/// Pages of memory that differ.
fn changed(before: &[u8], after: &[u8]) -> Vec<usize> {
    let pages = before.chunks(PAGE).zip(after.chunks(PAGE)).enumerate();
    pages.filter(|(_, (before, after))| before != after).map(|(page, _)| page).collect()
}

/// Has some pages read, and looks whether all that changes is marked.
fn what_is_written_is_marked(daemon: &Daemon, guest: &mut Client, log: &File) {
    guest.stop_queue(0);
    let gets: Vec<Req> = (0..8).map(|index| Req::get(1, 1, index, 0)).collect();
    let posted = guest.post(0, &gets, Shape::Pieces(1500));
    let before = contents(guest);
    guest.start_queue(0);
    // What starts a queue is no write of its driver's.
    let done = guest.wait(&posted);
    for (index, answer) in crate::client::wire::decode(&gets, &done).into_iter().enumerate() {
        assert_eq!(answer.page, Some(page(index as u64)));
    }
    guest.stop_queue(0);
    let changed = changed(&before, &contents(guest));
    let marked = marked(log);
    assert!(changed.len() >= 9, "eight pages and a ring: {changed:?}");
    let missing: Vec<_> = changed.iter().filter(|page| !marked.contains(page)).collect();
    assert!(missing.is_empty(), "{missing:?} were written and not marked\n{}", daemon.log());
    assert!(marked.len() < 24, "pages are marked that were not written: {marked:?}");
    guest.start_queue(0);
}

/// Conformance: ZC-DEV-96.
#[test]
fn what_is_written_is_in_the_log() {
    let daemon = Daemon::start();
    let mut guest = attach(&daemon);
    let first = set_log(&mut guest);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert!(marked(&first).is_empty(), "it is not switched on");
    switch(&mut guest, true);
    what_is_written_is_marked(&daemon, &mut guest, &first);

    let second = set_log(&mut guest);
    let in_first = marked(&first);
    what_is_written_is_marked(&daemon, &mut guest, &second);
    assert_eq!(marked(&first), in_first, "the log before was written to");

    switch(&mut guest, false);
    let third = set_log(&mut guest);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert!(marked(&third).is_empty(), "it is switched off");
}

#[test]
fn a_worker_that_dies_leaves_no_write_without_a_mark() {
    for place in
        [Place::PageWritten, Place::ResultNoted, Place::RequestDone, Place::ResultsWritten, Place::UsedPublished]
    {
        // HELLO, POOL_CREATE and eight PUTs come before, each in a chain of its own.
        let pass = if place == Place::PageWritten { 3 } else { 11 };
        let die_at = format!("{}:{pass}", place.name());
        let daemon = Daemon::start_as(&[""], Start { die_at: Some(&die_at), ..Start::default() });
        let mut guest = attach(&daemon);
        switch(&mut guest, true);
        let log = set_log(&mut guest);
        what_is_written_is_marked(&daemon, &mut guest, &log);
        assert_eq!(daemon.deaths(), 1, "{}", place.name());
    }
}

#[test]
fn a_log_that_is_none_is_no_log() {
    let daemon = Daemon::start();
    let mut guest = attach(&daemon);
    switch(&mut guest, true);
    let log = |guest: &mut Client, size: u64, offset: u64, file: &File| {
        let region = VhostUserDirtyLogRegion { mmap_size: size, mmap_offset: offset, mmap_handle: file.as_raw_fd() };
        guest.frontend().set_log_base(0, Some(region)).is_ok()
    };
    let small = memory_file(0x1000);
    assert!(!log(&mut guest, 0x2000, 0, &small), "a log beyond its file");
    assert!(!log(&mut guest, 0x100, 0x80, &small), "a log that cannot be mapped");
    assert!(!log(&mut guest, 1 << 50, 0, &small), "a log of impossible size");
    // One that is too small, and one that goes away.
    assert!(log(&mut guest, 0x1000, 0, &small));
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    let log = set_log(&mut guest);
    log.set_len(0).expect("the log goes away");
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert_eq!(daemon.deaths(), 0);
}
