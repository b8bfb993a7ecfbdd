// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory that VMMs share: how much, from which files, and that it goes away.

mod client;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use client::daemon::Daemon;
use client::ring::Descriptor;
use client::vmm::{Vmm, memory_file, region, request, single, table};
use client::wire::{PERSISTENT, Req, encode, status};
use client::{Client, Setup, eventually, page};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::VhostUserFrontend;
use virtio_bindings::bindings::virtio_ring::VRING_DESC_F_WRITE;

/// Guest-physical address far from the client's memory.
const ELSEWHERE: u64 = 1 << 40;

/// Conformance: ZC-DEV-71.
#[test]
fn a_region_longer_than_its_file_is_refused_and_nobody_harmed() {
    let daemon = Daemon::with(&["", ""], &[]);
    let mut other = Client::attach(&daemon.socket(1));
    other.create(0, PERSISTENT);
    let vmm = Vmm::connect(&daemon.socket(0));
    let file = memory_file(0x3000);
    for (size, offset, what) in [(0x4000, 0, "longer than"), (0x2000, 0x2000, "beyond"), (0x1000, u64::MAX, "far of")] {
        let bad = region(0x1000, size, 0x1000, offset);
        let files = [file.as_fd()];
        assert_eq!(
            vmm.ask(request::SET_MEM_TABLE, &table(std::slice::from_ref(&bad)), &files),
            1,
            "a region {what} its file"
        );
        assert_eq!(vmm.ask(request::ADD_MEM_REG, &single(&bad), &files), 1, "a region {what} its file");
        vmm.expect_alive("a refused region");
    }
    assert_eq!(vmm.ask(request::ADD_MEM_REG, &single(&region(0x1000, 0x3000, 0x1000, 0)), &[file.as_fd()]), 0);
    assert_eq!(other.put(0, 1, 1, &page(1)), status::OK, "the other guest goes on");
}

/// Conformance: ZC-DEV-70.
#[test]
fn regions_are_counted_and_the_number_told_is_true() {
    let daemon = Daemon::with(&["", ""], &[]);
    let mut other = Client::attach(&daemon.socket(1));
    let vmm = Vmm::connect(&daemon.socket(0));
    let slots = vmm.number(request::GET_MAX_MEM_SLOTS);
    assert!((8..=509).contains(&slots), "{slots} slots");
    let file = memory_file(0x1000);
    let add = |number: u64| {
        let bytes = single(&region(number << 12, 0x1000, number << 12, 0));
        vmm.ask(request::ADD_MEM_REG, &bytes, &[file.as_fd()])
    };
    assert_eq!(add(0), 0);
    let before = daemon.descriptors();
    for number in 1..slots {
        assert_eq!(add(number), 0, "region {number} of {slots}");
    }
    assert_eq!(daemon.descriptors(), before, "more regions of one file cost descriptors");
    for number in slots..slots + 50 {
        assert_eq!(add(number), 1, "region {number} of {slots} was accepted");
    }
    vmm.expect_alive("too many regions");
    assert_eq!(vmm.ask(request::REM_MEM_REG, &single(&region(0, 0x1000, 0, 0)), &[]), 0);
    assert_eq!(add(0), 0, "a region that was removed makes room for another");

    let huge = memory_file(1 << 50);
    let bytes = single(&region(ELSEWHERE, 1 << 50, ELSEWHERE, 0));
    assert_eq!(vmm.ask(request::REM_MEM_REG, &single(&region(0, 0x1000, 0, 0)), &[]), 0);
    assert_eq!(vmm.ask(request::ADD_MEM_REG, &bytes, &[huge.as_fd()]), 1, "a pebibyte was accepted");
    other.create(0, PERSISTENT);
    assert_eq!(other.put(0, 1, 1, &page(1)), status::OK);
}

/// Conformance: ZC-DEV-71.
#[test]
fn regions_that_do_not_fit_together_are_refused_and_the_old_ones_stay() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup { memory_slots: true, ..Setup::default() });
    guest.hello(1);
    guest.create(0, 0);
    let own = guest.ram().region();
    guest.frontend().add_mem_region(&own).expect_err("the same region twice");
    let overlap = VhostUserMemoryRegionInfo { guest_phys_addr: own.guest_phys_addr + 0x1000, ..own };
    guest.frontend().add_mem_region(&overlap).expect_err("a region that overlaps");
    let stranger = VhostUserMemoryRegionInfo { guest_phys_addr: ELSEWHERE, ..own };
    guest.frontend().remove_mem_region(&stranger).expect_err("a region that is not there");
    assert_eq!(guest.put(0, 1, 1, &page(1)), status::OK, "the old memory is used");

    let vmm = Vmm::connect(&Daemon::start().socket(0));
    drop(vmm);
    let second = Daemon::start();
    let vmm = Vmm::connect(&second.socket(0));
    let file = memory_file(0x2000);
    let unsorted = table(&[region(0x9000, 0x1000, 0x9000, 0), region(0x1000, 0x1000, 0x1000, 0x1000)]);
    assert_eq!(vmm.ask(request::SET_MEM_TABLE, &unsorted, &[file.as_fd(), file.as_fd()]), 0, "any order will do");
    let longer = [table(&[region(0x1000, 0x1000, 0x1000, 0)]), vec![0; 32]].concat();
    assert_eq!(vmm.ask(request::SET_MEM_TABLE, &longer, &[file.as_fd()]), 0, "as user-mode Linux sends it");
    assert_eq!(vmm.ask(request::SET_MEM_TABLE, &table(&[]), &[]), 0, "no memory is a table, too");
}

/// What is the same however memory goes away: the guest stops with one line in the log, the
/// other goes on, and a new VMM at the socket is served.
fn expect_only_that_guest_stops(daemon: &mut Daemon, other: &mut Client, victim: Client) {
    eventually("the guest's queue is stopped", || daemon.guest_stats(0)["queues"][0]["stopped"] == true);
    assert!(daemon.is_alive(), "the daemon has died of SIGBUS");
    let stats = daemon.stats();
    assert_eq!(stats["guests"][0]["lost_regions"], 1, "the loss is counted");
    assert_eq!(stats["guests"][1]["lost_regions"], 0, "of the right guest");
    assert_eq!(stats["guests"][1]["queues"][0]["stopped"], false);
    assert_eq!(daemon.lines("has gone away"), 1, "one line says why");
    assert_eq!(other.get(0, 1, 1), Ok(page(1)), "the other guest goes on");
    drop(victim);
    eventually("the guest is gone", || daemon.guest_stats(0)["connected"] == false);
    let mut successor = Client::attach(&daemon.socket(0));
    successor.create(0, 0);
    assert_eq!(successor.put(0, 1, 1, &page(2)), status::OK, "the next VMM is served");
    assert_eq!(daemon.guest_stats(0)["lost_regions"], 0);
}

/// A daemon with a guest at its second socket.
fn daemon_with_bystander() -> (Daemon, Client) {
    let daemon = Daemon::with(&["", ""], &[]);
    let mut other = Client::attach(&daemon.socket(1));
    other.create(0, PERSISTENT);
    assert_eq!(other.put(0, 1, 1, &page(1)), status::OK);
    (daemon, other)
}

/// Conformance: ZC-DEV-72.
#[test]
fn a_file_that_is_cut_off_stops_its_guest_only() {
    let (mut daemon, mut other) = daemon_with_bystander();
    let mut victim = Client::connect(&daemon.socket(0), Setup { sealed: false, ..Setup::default() });
    victim.hello(1);
    victim.ram().cut_off();
    for queue in 0..2 {
        victim.ring(queue).0.kick();
    }
    eventually("both queues are stopped", || {
        let queues = daemon.guest_stats(0)["queues"].take();
        queues[0]["stopped"] == true && queues[1]["stopped"] == true
    });
    expect_only_that_guest_stops(&mut daemon, &mut other, victim);
}

/// Gives a guest a second region, lets it PUT a page that is there, and loses the region before
/// the device reads it.
fn put_out_of_lost_memory(victim: &mut Client, file: &File, size: u64, lose: impl FnOnce()) {
    victim.create(0, PERSISTENT);
    let base = victim.ram().region();
    let second = VhostUserMemoryRegionInfo {
        guest_phys_addr: ELSEWHERE,
        memory_size: size,
        userspace_addr: ELSEWHERE,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    assert_ne!(base.guest_phys_addr, second.guest_phys_addr);
    // While the queue is stopped, so that it starts with the region.
    victim.stop_queue(0);
    victim.frontend().add_mem_region(&second).expect("ADD_MEM_REG");
    victim.start_queue(0);
    lose();
    let request = &encode(&[Req::put(0, 1, 1, &page(1))])[..56];
    let readable = victim.ram().borrow(request.len());
    victim.ram().write(readable, request);
    let writable = victim.ram().borrow(16);
    let (ring, ram) = victim.ring(0);
    ring.add(
        ram,
        &[
            Descriptor::new(readable, request.len(), 0),
            Descriptor::new(ELSEWHERE, 4096, 0),
            Descriptor::new(writable, 16, VRING_DESC_F_WRITE),
        ],
    );
    ring.publish(ram);
    victim.expect_silence(0);
}

/// Conformance: ZC-DEV-72.
#[test]
fn nothing_is_stored_out_of_memory_that_has_gone_away() {
    let (mut daemon, mut other) = daemon_with_bystander();
    let mut victim = Client::attach(&daemon.socket(0));
    let file = memory_file(0x4000);
    put_out_of_lost_memory(&mut victim, &file, 0x4000, || ftruncate(&file, 0).expect("ftruncate"));
    assert_eq!(daemon.guest_stats(0)["pages"], 0, "zeros were stored in the place of a page that is lost");
    expect_only_that_guest_stops(&mut daemon, &mut other, victim);
}

/// Conformance: ZC-DEV-72.
#[test]
fn huge_pages_that_are_not_there_stop_their_guest_only() {
    let pages = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let file = match (pages, memfd_create("guest", flags)) {
        (Ok(free), Ok(file)) if free.trim() == "0" => File::from(file),
        _ => {
            println!("Skipped: this host has no hugetlb files, or has pages for them");
            return;
        }
    };
    ftruncate(&file, 4 << 20).expect("ftruncate");
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).expect("seal");

    let (mut daemon, mut other) = daemon_with_bystander();
    let mut victim = Client::attach(&daemon.socket(0));
    // Not a whole number of huge pages, as the regions of a VMM may be.
    put_out_of_lost_memory(&mut victim, &file, (2 << 20) + 0x1000, || {});
    expect_only_that_guest_stops(&mut daemon, &mut other, victim);
}
