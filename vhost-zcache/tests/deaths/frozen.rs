// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A worker that does not die, but does nothing any more; and what the keeper has then.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::daemon::{Daemon, Start};
use crate::client::vmm::{Vmm, request};
use crate::client::wire::{PERSISTENT, Req, status};
use crate::client::{Client, PATIENCE, Setup, Shape, eventually, page};

#[test]
fn a_frozen_worker_is_replaced_and_configuration_is_read_meanwhile() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    daemon.signal_worker(Signal::STOP);
    let start = Instant::now();
    assert_eq!(&guest.config(0, 4)[..], b"ZCCH");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "a read of the configuration space took {took:?}");
    // Has to wait for the next worker.
    let (ring, ram) = guest.ring(0);
    let used = ring.used_index(ram);
    assert_eq!(guest.stop_queue(0), used);
    guest.start_queue(0);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert_eq!(daemon.lines("does not answer"), 1);
    assert_eq!(daemon.deaths(), 1);
}

#[test]
fn a_chain_without_an_end_ends_its_worker() {
    let daemon = Daemon::start_as(&[""], Start { die_at: Some("chain-taken:3:1:hang"), ..Start::default() });
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    let start = Instant::now();
    let posted = guest.post(0, &[Req::put(1, 1, 1, &page(1))], Shape::Whole);
    while daemon.lines("does not come to the end of a chain") == 0 {
        // The worker says that it is alive.
        assert_eq!(daemon.deaths(), 0);
        assert!(start.elapsed() < Duration::from_secs(120), "the worker is not replaced");
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(59), "a chain was given {took:?} only");
    assert!(guest.wait(&posted).written > 0);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
}

#[test]
fn the_keeper_maps_neither_guest_memory_nor_pages() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    let maps = |process: u32| std::fs::read_to_string(format!("/proc/{process}/maps")).expect("its mappings");
    let (keeper, worker) = (maps(daemon.keeper()), maps(daemon.worker().expect("a worker")));
    for file in ["memfd:guest", "memfd:zcache-store"] {
        assert!(worker.contains(file), "the test looks for the wrong name");
        assert!(!keeper.contains(file), "the keeper maps {file}");
    }
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.keeper())).expect("its threads").count();
    assert_eq!(threads, 1, "the keeper has threads");
}

#[test]
fn a_message_waits_for_a_worker_for_a_while_and_is_carried_out_without() {
    // None but the first lives.
    let daemon = Daemon::start_as(&[""], Start { die_at: Some("reopened:1:1000000"), ..Start::default() });
    let mut vmm = Vmm::connect(&daemon.socket(0));
    let features = Setup::default().features().to_ne_bytes();
    assert_eq!(vmm.ask(request::SET_FEATURES, &features, &[]), 0);
    vmm.stream().set_read_timeout(Some(6 * PATIENCE)).expect("a timeout");
    daemon.signal_worker(Signal::KILL);
    eventually("no worker lives", || daemon.lines("was killed by signal 9") >= 5);
    let start = Instant::now();
    let others = Setup { event_idx: false, ..Setup::default() }.features().to_ne_bytes();
    assert_eq!(vmm.ask(request::SET_FEATURES, &others, &[]), 0, "the message has failed");
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(20), "it was carried out after {took:?}, when a worker might have come");
    vmm.expect_alive("a message without a worker");
}
