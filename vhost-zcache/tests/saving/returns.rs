// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages come back, to whom they belong, and once.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::client::daemon::Daemon;
use crate::client::state::Way;
use crate::client::wire::status;
use crate::client::{Client, Setup, eventually, page};
use crate::host::{FILES, Host, SWAP, end, store, verify};

#[test]
fn what_guests_have_comes_back_after_an_orderly_end() {
    let host = Host::new();
    let mut daemon = host.start();
    let (one, _) = host.settle("a", 300);
    let (_other, epoch) = host.settle("b", 200);
    end(&mut daemon);
    assert_eq!(host.files(), ["a.saved", "b.saved"], "{}", daemon.log());
    assert_eq!(fs::metadata(host.file("a")).expect("the file").permissions().mode() & 0o777, 0o600);

    let daemon = host.start();
    // A machine that goes on where its rings have stopped, and a driver that comes back.
    let mut one = one.moved_to(&host.socket("a"));
    one.start_all();
    verify(&mut one, 300, 0);
    assert_eq!(one.get(FILES, 1, 1), Err(status::MISS), "a page that may have been flushed");
    let mut other = host.connect("b");
    assert_eq!(other.hello(1), (epoch, true), "{}", daemon.log());
    verify(&mut other, 200, 0);
    assert_eq!(host.files(), [""; 0], "a state can be taken twice");
    store(&mut other, 250, 1);
    verify(&mut other, 250, 1);
}

#[test]
fn a_driver_that_is_another_gets_nothing() {
    let host = Host::new();
    let epoch = host.save(50);
    let daemon = host.start();
    let mut guest = host.connect("a");
    let (other, resumed) = guest.hello(2);
    assert!(!resumed && other != epoch);
    assert_eq!(guest.get(SWAP, 1, 1), Err(status::NO_POOL));
    eventually("its pages go", || daemon.stats()["store"]["pages"] == 0);
}

#[test]
fn a_vmm_that_goes_before_it_starts_a_ring_leaves_what_was_saved() {
    let host = Host::new();
    let epoch = host.save(50);
    let daemon = host.start();
    for _ in 0..3 {
        drop(Client::connect(&host.socket("a"), Setup { start: false, ..Setup::default() }));
        eventually("it is gone", || daemon.guest_stats(0)["connected"] == false);
    }
    assert_eq!(host.files(), ["a.saved"]);
    let mut guest = host.connect("a");
    assert_eq!(guest.hello(1), (epoch, true));
    verify(&mut guest, 50, 0);
}

#[test]
fn the_state_that_the_vmm_has_goes_before_what_was_saved() {
    let host = Host::new();
    let mut daemon = host.start();
    let (mut guest, _) = host.settle("a", 50);
    let state = guest.save(Way::Pipe);
    guest.start_all();
    store(&mut guest, 50, 1);
    end(&mut daemon);

    let _daemon = host.start();
    let mut guest = guest.moved_to(&host.socket("a"));
    assert!(guest.load(Way::Pipe, &state), "the state was not loaded");
    guest.start_all();
    guest.hello(1);
    verify(&mut guest, 50, 0);
    eventually("what was saved is gone", || host.files().is_empty());
}

#[test]
fn a_guest_that_never_comes_is_kept_over_many_ends() {
    let host = Host::new();
    let epoch = host.save(50);
    for _ in 0..3 {
        let mut daemon = host.start();
        let (_other, _) = host.settle("b", 10);
        end(&mut daemon);
        assert_eq!(host.files(), ["a.saved", "b.saved"], "{}", daemon.log());
        fs::remove_file(host.file("b")).expect("the file");
    }
    let _daemon = host.start();
    let mut guest = host.connect("a");
    assert_eq!(guest.hello(1), (epoch, true));
    verify(&mut guest, 50, 0);
}

#[test]
fn who_has_said_no_hello_is_not_saved() {
    let host = Host::new();
    let mut daemon = host.start();
    let _silent = host.connect("a");
    end(&mut daemon);
    assert_eq!(host.files(), [""; 0]);
}

#[test]
fn without_the_option_nothing_is_written() {
    let mut daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(SWAP, 1);
    assert_eq!(guest.put(SWAP, 1, 1, &page(1)), status::OK);
    let (_, took) = daemon.end(Signal::TERM);
    assert!(took.as_secs() < 5);
    assert_eq!(fs::read_dir(daemon.directory()).expect("the directory").count(), 0);
}

#[test]
fn the_configuration_space_is_read_while_a_guest_is_saved() {
    let host = Host::new();
    let mut daemon = host.start();
    let (mut guest, _) = host.settle("a", 10);
    // It gets no further than to begin.
    daemon.signal_worker(Signal::STOP);
    daemon.signal_keeper(Signal::TERM);
    eventually("it is being saved", || host.files() == ["a.saved.part"]);
    assert_eq!(guest.config(0, 8).len(), 8);
    daemon.signal_worker(Signal::CONT);
    assert!(daemon.wait_for_end().success());
    assert_eq!(host.files(), ["a.saved"], "{}", daemon.log());
}

#[test]
fn a_guest_that_is_frozen_gets_back_what_it_had() {
    let host = Host::new();
    let epoch = host.save(50);
    let text = fs::read_to_string(host.config()).expect("the configuration");
    fs::write(host.config(), text.replace("/a'", "/a'\nfrozen = true")).expect("the configuration");
    let _daemon = host.start();
    let mut guest = host.connect("a");
    assert_eq!(guest.hello(1), (epoch, true));
    verify(&mut guest, 50, 0);
    assert_eq!(guest.put(SWAP, 1, 99, &page(1)), status::REFUSED);
}
