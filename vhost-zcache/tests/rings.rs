// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rings that a driver or a VMM has got wrong, on purpose or not.

mod client;

use std::time::Duration;

use client::daemon::Daemon;
use client::ram::RAM_BASE;
use client::ring::Descriptor;
use client::wire::{PERSISTENT, Req, encode, status};
use client::{Client, Setup, Shape, eventually, page};
use vhost::vhost_user::VhostUserFrontend;
use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

/// Queue that is spoiled; queue 0 has to go on.
const VICTIM: usize = 1;

/// Puts one descriptor as the only one of a chain on the victim queue and publishes it.
fn post(client: &mut Client, descriptor: &Descriptor) {
    let (ring, ram) = client.ring(VICTIM);
    ring.write_descriptor(ram, 0, descriptor);
    ring.add_head(ram, 0);
    ring.publish(ram);
}

/// Spoils the victim queue and checks that it falls silent, that all else goes on, and that it
/// works again after a restart.
fn spoil(what: &str, spoil: impl FnOnce(&mut Client)) {
    println!("{what}");
    let mut daemon = Daemon::with(&["", ""], &[]);
    let mut guest = Client::attach(&daemon.socket(0));
    let mut other = Client::attach(&daemon.socket(1));
    guest.create(0, PERSISTENT);
    other.create(0, PERSISTENT);
    assert_eq!(guest.submit(VICTIM, &[Req::put(0, 1, 1, &page(1))])[0].status, status::OK);

    spoil(&mut guest);
    eventually("the queue is stopped", || daemon.guest_stats(0)["queues"][VICTIM]["stopped"] == true);
    guest.expect_silence(VICTIM);
    assert!(daemon.is_alive(), "the daemon has died");
    let queues = &daemon.guest_stats(0)["queues"];
    assert_eq!(queues[VICTIM]["ring_errors"], 1, "the error is counted once");
    assert_eq!(queues[0]["stopped"], false, "the other queue is not stopped");

    assert_eq!(guest.get(0, 1, 1), Ok(page(1)), "the other queue works");
    assert_eq!(other.put(0, 1, 1, &page(2)), status::OK, "the other guest works");
    let used = daemon.processor_time();
    std::thread::sleep(Duration::from_millis(300));
    let used = daemon.processor_time() - used;
    assert!(used < Duration::from_millis(100), "a stopped queue costs {used:?} of processor time in 300 ms");

    let stopped_at = guest.stop_queue(VICTIM);
    let (ring, ram) = guest.ring(VICTIM);
    assert_eq!(stopped_at, ring.used_index(ram), "the base is the index of the first chain that was not used");
    ring.reset(ram);
    guest.start_queue(VICTIM);
    assert!(guest.hello(1).1, "the instance is resumed");
    assert_eq!(guest.submit(VICTIM, &[Req::get(0, 1, 1, 0)])[0].page, Some(page(1)), "after a restart it works");
    assert_eq!(daemon.guest_stats(0)["queues"][VICTIM]["stopped"], false);
}

/// User-mode Linux does not stop a ring when its driver lets go of the device, and sets it up again
/// when a driver comes. In between its memory is somebody else's.
#[test]
fn a_ring_that_is_set_up_anew_is_served_again() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(0, PERSISTENT);
    assert_eq!(guest.submit(VICTIM, &[Req::put(0, 1, 1, &page(1))])[0].status, status::OK);
    let (ring, ram) = guest.ring(VICTIM);
    ring.set_available_index(ram, 0x5555);
    ring.kick();
    eventually("the queue is stopped", || daemon.guest_stats(0)["queues"][VICTIM]["stopped"] == true);
    let (ring, ram) = guest.ring(VICTIM);
    ring.reset(ram);
    guest.place_queue(VICTIM, 0);
    assert!(guest.hello(1).1, "the instance is resumed");
    assert_eq!(guest.submit(VICTIM, &[Req::get(0, 1, 1, 0)])[0].status, status::OK, "it is not served");
    assert_eq!(daemon.guest_stats(0)["queues"][VICTIM]["stopped"], false);
}

/// Conformance: ZC-DEV-43, ZC-DEV-44.
#[test]
fn an_available_index_that_jumps_stops_the_queue() {
    spoil("one more than the queue's size", |guest| {
        let (ring, ram) = guest.ring(VICTIM);
        let index = ring.used_index(ram);
        ring.set_available_index(ram, index.wrapping_add(ring.size + 1));
        ring.kick();
    });
    spoil("one less than before", |guest| {
        let (ring, ram) = guest.ring(VICTIM);
        let index = ring.used_index(ram);
        ring.set_available_index(ram, index.wrapping_sub(1));
        ring.kick();
    });
}

/// Conformance: ZC-DEV-43, ZC-DEV-44.
#[test]
fn a_head_outside_the_table_stops_the_queue() {
    spoil("the first number outside", |guest| {
        let (ring, ram) = guest.ring(VICTIM);
        ring.add_head(ram, ring.size);
        ring.publish(ram);
    });
    spoil("the greatest number", |guest| {
        let (ring, ram) = guest.ring(VICTIM);
        ring.add_head(ram, u16::MAX);
        ring.publish(ram);
    });
}

/// Conformance: ZC-DEV-43, ZC-DEV-44.
#[test]
fn a_chain_without_end_stops_the_queue() {
    spoil("a descriptor that follows itself", |guest| {
        post(guest, &Descriptor::new(RAM_BASE, 64, VRING_DESC_F_NEXT));
    });
}

/// Conformance: ZC-DEV-43, ZC-DEV-44.
#[test]
fn buffers_outside_memory_stop_the_queue() {
    for (address, length) in
        [(0, 64), (RAM_BASE - 1, 64), (u64::MAX - 8, 64), (RAM_BASE, u32::MAX as usize), (u64::MAX, u32::MAX as usize)]
    {
        spoil(&format!("{length} readable bytes at {address:#x}"), |guest| {
            post(guest, &Descriptor::new(address, length, 0));
        });
        spoil(&format!("{length} writable bytes at {address:#x}"), |guest| {
            post(guest, &Descriptor::new(address, length, VRING_DESC_F_WRITE));
        });
    }
}

/// Conformance: ZC-DEV-43, ZC-DEV-44.
#[test]
fn wrong_indirect_tables_stop_the_queue() {
    for (what, address, length) in [
        ("an empty table", RAM_BASE, 0),
        ("half an entry", RAM_BASE, 24),
        ("a table outside memory", 0x1000, 32),
        // Its first entry, all zero, is in memory and would do.
        ("a table that ends outside memory", RAM_BASE + (8 << 20), 0xffff_fff0),
        ("a huge table outside memory", u64::MAX - 31, 0xffff_fff0),
    ] {
        spoil(what, |guest| post(guest, &Descriptor::new(address, length, VRING_DESC_F_INDIRECT)));
    }
    spoil("a table that leads to itself", |guest| {
        let table = guest.ram().borrow(16);
        let nested = Descriptor::new(table, 16, VRING_DESC_F_INDIRECT);
        guest.ram().write(table, &nested.bytes());
        post(guest, &nested);
    });
}

/// Conformance: ZC-DEV-43, ZC-DEV-44.
#[test]
fn a_readable_descriptor_after_a_writable_one_stops_the_queue() {
    spoil("wrong order", |guest| {
        let address = guest.ram().borrow(64);
        let (ring, ram) = guest.ring(VICTIM);
        ring.add(ram, &[Descriptor::new(address, 16, VRING_DESC_F_WRITE), Descriptor::new(address, 16, 0)]);
        ring.publish(ram);
    });
}

/// Conformance: ZC-DEV-55.
#[test]
fn a_ring_whose_memory_goes_away_stops_until_it_is_back() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup { memory_slots: true, ..Setup::default() });
    guest.hello(1);
    guest.create(0, 0);
    let region = guest.ram().region();
    guest.frontend().remove_mem_region(&region).expect("REM_MEM_REG");
    eventually("the ring without memory is stopped", || daemon.guest_stats(0)["queues"][0]["stopped"] == true);
    guest.frontend().add_mem_region(&region).expect("ADD_MEM_REG");
    assert_eq!(guest.submit(0, &[Req::flush_pool(0)])[0].status, status::OK, "with its memory back");
    assert_eq!(daemon.guest_stats(0)["queues"][0]["stopped"], false);
}

/// Conformance: ZC-DEV-48, ZC-DEV-43.
#[test]
fn indirect_descriptors_stand_last_and_have_to_be_negotiated() {
    let daemon = Daemon::start();
    for indirect in [true, false] {
        let mut guest = Client::connect(&daemon.socket(0), Setup { indirect, ..Setup::default() });
        guest.hello(1);
        guest.create(3, 0);
        let request = encode(&[Req::flush_pool(3)]);
        let readable = guest.ram().borrow(request.len());
        guest.ram().write(readable, &request);
        let writable = guest.ram().borrow(16);
        let table = guest.ram().borrow(16);
        guest.ram().write(table, &Descriptor::new(writable, 16, VRING_DESC_F_WRITE).bytes());
        let (ring, ram) = guest.ring(VICTIM);
        ring.add(
            ram,
            &[
                Descriptor::new(readable, request.len(), 0),
                Descriptor::new(table, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE),
            ],
        );
        ring.publish(ram);
        if indirect {
            let used = ring.wait_used(ram, client::PATIENCE);
            assert_eq!(used.map(|(_, written)| written), Some(16), "an indirect descriptor after a plain one");
        } else {
            guest.expect_silence(VICTIM);
            assert_eq!(daemon.guest_stats(0)["queues"][VICTIM]["stopped"], true, "it was not negotiated");
        }
        drop(guest);
        eventually("the guest is gone", || daemon.guest_stats(0)["connected"] == false);
    }
}

/// Conformance: ZC-DEV-56.
#[test]
fn empty_descriptors_are_no_error() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(3, 0);
    let request = encode(&[Req::flush_pool(3)]);
    let readable = guest.ram().borrow(request.len());
    guest.ram().write(readable, &request);
    let writable = guest.ram().borrow(16);
    let (ring, ram) = guest.ring(0);
    ring.add(
        ram,
        &[
            Descriptor::new(0, 0, 0),
            Descriptor::new(readable, request.len(), 0),
            Descriptor::new(u64::MAX, 0, VRING_DESC_F_WRITE),
            Descriptor::new(writable, 16, VRING_DESC_F_WRITE),
        ],
    );
    ring.publish(ram);
    let used = ring.wait_used(ram, client::PATIENCE);
    assert_eq!(used.map(|(_, written)| written), Some(16), "the chain was answered");
    assert_eq!(guest.ram().read(writable, 2), [0, 0], "with OK");
}

/// Conformance: ZC-DEV-42.
#[test]
fn nothing_is_written_after_a_queue_was_stopped() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup { queue_size: 1024, ..Setup::default() });
    guest.hello(1);
    guest.create(0, PERSISTENT);
    for round in 0..20 {
        let batch: Vec<Req> = (0..16).map(|index| Req::put(0, 1, index, &page(index))).collect();
        let posted: Vec<_> = (0..40).map(|_| guest.post(VICTIM, &batch, Shape::Whole)).collect();
        let base = guest.stop_queue(VICTIM);
        let (ring, ram) = guest.ring(VICTIM);
        let used = ring.used_index(ram);
        assert_eq!(base, used, "round {round}: the base is the index of the first chain that is not completed");
        let before = ram.read(RAM_BASE, 4 << 20);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(ring.used_index(ram), used, "round {round}: a chain was used after the stop");
        assert!(ram.read(RAM_BASE, 4 << 20) == before, "round {round}: memory changed after the stop");
        guest.start_queue(VICTIM);
        for chain in &posted {
            let done = guest.wait(chain);
            assert_eq!(done.written, 16 * 16, "round {round}: the rest is served after the start");
        }
    }
}

/// Conformance: ZC-DEV-54.
#[test]
fn a_vmm_that_passes_the_available_index_as_base_loses_nothing() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(0, 0);
    guest.stop_queue(VICTIM);
    let first = guest.post(VICTIM, &[Req::put(0, 1, 1, &page(1))], Shape::Whole);
    let second = guest.post(VICTIM, &[Req::get(0, 1, 1, 0)], Shape::Whole);
    guest.start_queue_at(VICTIM, 2);
    guest.wait(&first);
    assert_eq!(guest.wait(&second).written, 16 + 4096, "both chains were served, in order");
}

#[test]
fn indexes_wrap_around() {
    let daemon = Daemon::start();
    for event_idx in [true, false] {
        let setup = Setup { queue_size: 8, event_idx, ..Setup::default() };
        let mut guest = Client::connect(&daemon.socket(0), setup);
        guest.stop_queue(VICTIM);
        let (ring, ram) = guest.ring(VICTIM);
        ring.begin_at(ram, u16::MAX - 9);
        guest.start_queue(VICTIM);
        guest.hello(1);
        guest.create(0, 0);
        for number in 0..30 {
            let put = guest.post(VICTIM, &[Req::put(0, 1, 1, &page(number))], Shape::Whole);
            let get = guest.post(VICTIM, &[Req::get(0, 1, 1, 0)], Shape::Whole);
            guest.wait(&put);
            let done = guest.wait(&get);
            assert!(done.bytes[16..] == page(number), "chain {number} with event_idx {event_idx}");
        }
    }
}

#[test]
fn a_busy_ring_needs_few_kicks() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(0, 0);
    let batch: Vec<Req> = (0..32).map(|index| Req::put(0, 1, index, &page(index))).collect();
    let (before, _) = guest.ring(VICTIM);
    let before = before.kicks;
    let posted: Vec<_> = (0..40).map(|_| guest.post(VICTIM, &batch, Shape::Whole)).collect();
    for chain in &posted {
        guest.wait(chain);
    }
    let (ring, _) = guest.ring(VICTIM);
    let kicks = ring.kicks - before;
    assert!((1..40).contains(&kicks), "{kicks} kicks for 40 chains: the device never asked not to be kicked");
}
