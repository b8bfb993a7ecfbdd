// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A chain that kills workers.

use vhost::vhost_user::VhostUserFrontend;

use crate::client::daemon::{Daemon, Start};
use crate::client::vmm::{Vmm, request};
use crate::client::wire::{PERSISTENT, Req, status};
use crate::client::{Client, SILENCE, Setup, Shape, eventually, page};

#[test]
fn a_chain_that_was_in_service_at_two_deaths_is_not_served_a_third_time() {
    let start = Start { die_at: Some("chain-taken:1:2"), ..Start::default() };
    let daemon = Daemon::start_as(&["", ""], start);
    let mut victim = Client::connect(&daemon.socket(0), Setup::default());
    let _ = victim.post(0, &[Req::hello(1)], Shape::Whole);
    eventually("two workers have died", || daemon.deaths() == 2);
    eventually("the queue is left alone", || daemon.guest_stats(0)["queues"][0]["stopped"] == true);
    victim.expect_silence(0);
    assert_eq!(daemon.lines("was in service when"), 1, "one line says why");

    // The guest's other queue, and another guest, go on.
    assert_eq!(victim.submit(1, &[Req::get(1, 1, 1, 0)])[0].status, status::NO_SESSION);
    let mut other = Client::attach(&daemon.socket(1));
    other.create(1, PERSISTENT);
    assert_eq!(other.put(1, 1, 1, &page(1)), status::OK);
    std::thread::sleep(SILENCE);
    daemon.signal_worker(rustix::process::Signal::KILL);
    assert_eq!(other.get(1, 1, 1), Ok(page(1)));
    victim.expect_silence(0);

    // A reset mends it.
    victim.reset();
    victim.hello(1);
    victim.create(1, 0);
}

/// Conformance: ZC-DEV-43, ZC-DEV-54.
#[test]
fn a_ring_that_makes_no_sense_is_left_alone_by_the_next_worker() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    for _ in 0..3 {
        guest.submit(1, &[Req::flush_pool(1)]);
    }
    let (ring, ram) = guest.ring(1);
    ring.set_available_index(ram, 3 + ring.size + 1);
    ring.kick();
    eventually("the queue is left alone", || daemon.guest_stats(0)["queues"][1]["stopped"] == true);
    daemon.signal_worker(rustix::process::Signal::KILL);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK, "the other queue goes on");
    let (ring, ram) = guest.ring(1);
    ring.set_available_index(ram, 3);
    let posted = guest.post(1, &[Req::get(1, 1, 1, 0)], Shape::Whole);
    guest.expect_silence(1);
    assert_eq!(guest.stop_queue(1), 3, "the index of the first chain that was not used");
    guest.start_queue(1);
    assert!(guest.wait(&posted).written > 16, "it goes on in the same session");
}

/// Where a ring was is known, although its memory went while no worker could say so.
#[test]
fn a_ring_without_memory_has_stopped_where_it_was() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    let region = guest.ram().region();
    guest.frontend().remove_mem_region(&region).expect("REM_MEM_REG");
    daemon.signal_worker(rustix::process::Signal::KILL);
    assert_eq!(guest.stop_queue(0), 2);
    guest.frontend().add_mem_region(&region).expect("ADD_MEM_REG");
    guest.start_queue(0);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
}

#[test]
fn a_message_that_kills_workers_is_answered_with_an_error() {
    // The first change is that the VMM has connected.
    let daemon = Daemon::start_as(&["", ""], Start { die_at: Some("changed:2:4"), ..Start::default() });
    let vmm = Vmm::connect(&daemon.socket(0));
    let features = Setup::default().features().to_ne_bytes();
    assert_eq!(vmm.ask(request::SET_FEATURES, &features, &[]), 1);
    assert_eq!(daemon.deaths(), 4);
    assert_eq!(daemon.lines("again and again"), 1, "one line says why");
    vmm.expect_alive("a message that was given up");
    assert_eq!(vmm.ask(request::SET_FEATURES, &features, &[]), 0, "it was not the message's fault");
    Client::attach(&daemon.socket(1)).create(0, 0);
}
