// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SPEC.md sections 10 and 13: queues that stop and start, memory that changes under them, and what
//! a driver has to acknowledge.

use std::thread;
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserVirtioFeatures;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_INDIRECT, VRING_DESC_F_WRITE};

use crate::client::daemon::Daemon;
use crate::client::ram::Ram;
use crate::client::ring::Descriptor;
use crate::client::wire::{self, EXCLUSIVE, PAGE, PERSISTENT, Req, SHARED, status};
use crate::client::{Client, Setup, Shape, eventually, page};
use crate::{ALLOW, UUID};

/// A guest with a page in a persistent and one in an ephemeral pool.
fn with_pages(daemon: &Daemon) -> Client {
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    guest.create(2, 0);
    for pool in [1, 2] {
        assert_eq!(guest.put(pool, 1, 1, &page(pool.into())), status::OK);
        assert_eq!(guest.submit(1, &[Req::put(pool, 2, 1, &page(9))])[0].status, status::OK);
    }
    guest
}

/// Conformance: ZC-DEV-40.
#[test]
fn queues_that_come_back_as_they_were_go_on() {
    let daemon = Daemon::start();
    let mut guest = with_pages(&daemon);
    for round in 0..20 {
        guest.stop_all();
        // What is made available meanwhile is served afterwards.
        let posted = guest.post(1, &[Req::get(1, 2, 1, 0)], Shape::Whole);
        guest.expect_silence(1);
        guest.start_all();
        assert_eq!(wire::decode(&[Req::get(1, 2, 1, 0)], &guest.wait(&posted))[0].page, Some(page(9)), "{round}");
        for pool in [1, 2] {
            assert_eq!(guest.get(pool, 1, 1), Ok(page(pool.into())), "round {round}: pool {pool} after a pause");
        }
    }
    assert_eq!(daemon.guest_stats(0)["session"], true);
}

/// Conformance: ZC-DEV-40.
#[test]
fn queues_that_come_back_otherwise_are_another_drivers() {
    let daemon = Daemon::start();
    let mut guest = with_pages(&daemon);
    guest.stop_all();
    thread::sleep(Duration::from_millis(50));
    assert_eq!(daemon.guest_stats(0)["pages"], 4, "what a pause may bring back is kept");
    for queue in 0..2 {
        let (ring, ram) = guest.ring(queue);
        ring.reset(ram);
        guest.start_queue(queue);
    }
    for pool in [1, 2] {
        assert_eq!(guest.get(pool, 1, 1), Err(status::NO_SESSION), "pool {pool} before HELLO");
    }
    eventually("the ephemeral pages go at once", || daemon.guest_stats(0)["pages"] == 2);
    assert!(guest.hello(1).1, "the instance was not resumed");
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "a persistent page of the resumed instance");
    assert_eq!(guest.get(2, 1, 1), Err(status::NO_POOL));
}

/// Conformance: ZC-DEV-51.
#[test]
fn queues_that_start_late_end_no_session() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup { start: false, ..Setup::default() });
    guest.start_queue(0);
    guest.hello(1);
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    guest.start_queue(1);
    let get = [Req::get(1, 1, 1, 0)];
    assert_eq!(guest.submit(1, &get)[0].page, Some(page(1)), "a queue that started for the first time");

    // A new driver says HELLO on its first queue before the VMM has started the second.
    guest.stop_all();
    for queue in 0..2 {
        let (ring, ram) = guest.ring(queue);
        ring.reset(ram);
    }
    guest.start_queue(0);
    guest.hello(2);
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(2)), status::OK);
    guest.start_queue(1);
    assert_eq!(guest.submit(1, &get)[0].page, Some(page(2)), "a queue of the old session ended the new one");
}

/// Conformance: ZC-DEV-43.
#[test]
fn a_stopped_queue_stays_stopped_whatever_changes_around_it() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    let (ring, ram) = guest.ring(1);
    ring.add_head(ram, u16::MAX);
    ring.publish(ram);
    let is_stopped = || daemon.guest_stats(0)["queues"][1]["stopped"] == true;
    eventually("the queue is stopped", is_stopped);
    let region = guest.ram().region();
    guest.frontend().set_mem_table(&[region]).expect("SET_MEM_TABLE");
    let features = Setup::default().features();
    guest.frontend().set_features(features & !(1 << VIRTIO_RING_F_EVENT_IDX)).expect("SET_FEATURES");
    for enable in [false, true] {
        guest.frontend().set_vring_enable(1, enable).expect("SET_VRING_ENABLE");
    }
    assert_eq!(daemon.guest_stats(0)["queues"][1]["ring_errors"], 1, "the queue was served again");
    assert!(is_stopped());
    assert_eq!(guest.stop_queue(1), 0, "the index of the chain that makes no sense");
}

/// Conformance: ZC-DEV-47.
#[test]
fn a_driver_of_another_age_is_not_served() {
    let daemon = Daemon::start();
    let mut guest = with_pages(&daemon);
    guest.stop_all();
    let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    guest.frontend().set_features(protocol).expect("SET_FEATURES");
    guest.start_queue(1);
    let posted = guest.post(1, &[Req::flush_pool(1)], Shape::Whole);
    guest.expect_silence(1);
    guest.stop_queue(1);
    guest.start_all();
    assert_eq!(wire::decode(&[Req::flush_pool(1)], &guest.wait(&posted))[0].value, 2, "with the feature it is served");
}

/// Conformance: ZC-DEV-52.
#[test]
fn queues_are_enabled_where_nothing_can_enable_them_and_else_as_was_said_last() {
    let daemon = Daemon::start();
    let mut guest = with_pages(&daemon);
    // A stop does not change it.
    guest.frontend().set_vring_enable(1, false).expect("SET_VRING_ENABLE");
    guest.stop_queue(1);
    guest.place_queue(1, 0);
    let (ring, _) = guest.ring(1);
    let kick = ring.kick.try_clone().expect("an event");
    guest.frontend().set_vring_kick(1, &kick).expect("SET_VRING_KICK");
    let posted = guest.post(1, &[Req::get(1, 1, 1, 0)], Shape::Whole);
    guest.expect_silence(1);
    guest.frontend().set_vring_enable(1, true).expect("SET_VRING_ENABLE");
    guest.wait(&posted);
}

/// Conformance: ZC-DEV-53.
#[test]
fn a_change_of_memory_is_seen_by_the_next_chain() {
    let daemon = Daemon::start();
    let mut guest =
        Client::connect(&daemon.socket(0), Setup { queue_size: 512, memory_slots: true, ..Setup::default() });
    guest.hello(1);
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    let more = Ram::new(1 << 20);
    let mut region = more.region();
    region.guest_phys_addr = 1 << 40;
    let request = wire::encode(&[Req::get(1, 1, 1, 0)]);
    for round in 0..100 {
        // A queue that has enough to do all the time.
        let busy: Vec<_> = (0..100).map(|_| guest.post(1, &[Req::flush_page(1, 9, 9)], Shape::Whole)).collect();
        guest.frontend().add_mem_region(&region).expect("ADD_MEM_REG");
        more.write(more.end() - (1 << 20), &vec![0xee; 2 * PAGE]);
        let readable = guest.ram().borrow(request.len());
        guest.ram().write(readable, &request);
        let (ring, ram) = guest.ring(1);
        ring.add(
            ram,
            &[
                Descriptor::new(readable, request.len(), 0),
                Descriptor::new(region.guest_phys_addr, 16 + PAGE, VRING_DESC_F_WRITE),
            ],
        );
        ring.publish(ram);
        let wanted = ram.load_u16(ring.available + 2);
        eventually("all chains are used", || ring.used_index(ram) == wanted);
        while ring.take_used(ram).is_some() {}
        guest.ram().give_back();
        drop(busy);
        assert_eq!(more.read(more.end() - (1 << 20) + 16, PAGE), page(1), "round {round}: memory that was just added");
        guest.frontend().remove_mem_region(&region).expect("REM_MEM_REG");
    }
}

/// Conformance: ZC-DEV-48.
#[test]
fn an_indirect_table_may_be_longer_than_the_queue_and_come_last() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup { queue_size: 4, ..Setup::default() });
    guest.hello(1);
    guest.create(1, 0);
    let request = wire::encode(&[Req::flush_pool(1)]);
    let (readable, writable) = (guest.ram().borrow(request.len()), guest.ram().borrow(16));
    let table = guest.ram().borrow(64 * 16);
    guest.ram().write(readable, &request);
    guest.ram().write(table, &Descriptor::new(writable, 16, VRING_DESC_F_WRITE).bytes());
    let (ring, ram) = guest.ring(1);
    ring.add(
        ram,
        &[Descriptor::new(readable, request.len(), 0), Descriptor::new(table, 64 * 16, VRING_DESC_F_INDIRECT)],
    );
    ring.publish(ram);
    eventually("the chain is used", || ring.used_index(ram) == 1);
    assert_eq!(ram.read(writable, 2), [0, 0], "the status");
}

/// Conformance: ZC-DEV-49.
#[test]
fn epochs_say_nothing_about_others() {
    let daemon = Daemon::with(&["", ""], &[]);
    let mut guests = [0, 1].map(|number| Client::connect(&daemon.socket(number), Setup::default()));
    let mut epochs: Vec<u64> =
        (1..=32).flat_map(|instance| guests.each_mut().map(|guest| guest.hello(instance).0)).collect();
    epochs.sort_unstable();
    // Of 64 random numbers the closest two are 2^52 apart or more, but for one case in a few
    // hundred thousand; those that count or tell the time are much closer.
    let closest = epochs.windows(2).map(|pair| pair[1] - pair[0]).min();
    assert!(closest > Some(1 << 32), "two of 64 epochs are {closest:?} apart");
}

/// Conformance: ZC-DEV-50.
#[test]
fn an_exclusive_get_in_a_shared_pool_is_for_all_members() {
    let daemon = Daemon::with(&[ALLOW, ALLOW], &[]);
    let mut guests = [0, 1].map(|number| Client::attach(&daemon.socket(number)));
    for guest in &mut guests {
        assert_eq!(guest.status(Req::create(1, SHARED, UUID)), status::OK);
    }
    let [one, two] = &mut guests;
    assert_eq!(one.put(1, 1, 1, &page(1)), status::OK);
    assert_eq!(two.one(Req::get(1, 1, 1, EXCLUSIVE)).page, Some(page(1)));
    for guest in [one, two] {
        assert_eq!(guest.get(1, 1, 1), Err(status::MISS), "a page that was taken out");
    }
}
