// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is left is not to be gone by.

use std::os::unix::fs::FileExt;

use rustix::process::Signal;

use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, eventually, page};
use crate::manager::Managed;

fn guest_with_a_page(service: &Managed) -> Client {
    let mut guest = Client::attach(&service.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    guest
}

#[test]
fn a_program_of_another_version_leaves_it_for_the_one_that_knows_it() {
    let mut service = Managed::start(&["a"], &[]);
    let mut guest = guest_with_a_page(&service);
    service.end(Signal::TERM);
    // As if a later release had written it.
    let manifest = service.file("zcache-manifest");
    manifest.write_all_at(&[4], 7).expect("the manifest");
    service.launch(std::path::Path::new(env!("CARGO_BIN_EXE_vhost-zcache")));
    assert_eq!(service.wait_for_end().code(), Some(1));
    assert_eq!(service.lines("is kept for a program that knows it: it is of version 4"), 1, "{}", service.log());
    manifest.write_all_at(&[3], 7).expect("the manifest");
    service.again();
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
}

#[test]
fn another_number_of_queues_is_refused_while_guests_are_there() {
    let mut service = Managed::start(&["a"], &[]);
    let mut guest = guest_with_a_page(&service);
    service.end(Signal::TERM);
    service.configure(&["a"], &["--queues", "4"]);
    service.launch(std::path::Path::new(env!("CARGO_BIN_EXE_vhost-zcache")));
    assert_eq!(service.wait_for_end().code(), Some(1));
    assert_eq!(service.lines("--queues was 8"), 1, "{}", service.log());
    service.configure(&["a"], &[]);
    service.again();
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
}

#[test]
fn a_guest_whose_file_is_missing_is_told_so_and_others_go_on() {
    let mut service = Managed::start(&["a", "b"], &[]);
    let _guest = guest_with_a_page(&service);
    let mut other = Client::attach(&service.socket(1));
    other.create(1, PERSISTENT);
    assert_eq!(other.put(1, 1, 1, &page(7)), status::OK);
    service.end(Signal::KILL);
    service.lose("zcache-f0");
    service.again();
    eventually("a line says so", || service.lines("has not kept all of its files") == 1);
    assert_eq!(other.get(1, 1, 1), Ok(page(7)));
}

#[test]
fn without_a_manifest_the_daemon_begins_anew() {
    let mut service = Managed::start(&["a"], &[]);
    drop(guest_with_a_page(&service));
    service.end(Signal::KILL);
    service.lose("zcache-manifest");
    service.again();
    let mut guest = guest_with_a_page(&service);
    service.end(Signal::KILL);
    service.again();
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)), "what is kept is not of this daemon");
}

#[test]
fn a_damaged_manifest_is_not_believed() {
    let mut service = Managed::start(&["a"], &[]);
    drop(guest_with_a_page(&service));
    service.end(Signal::KILL);
    let manifest = service.file("zcache-manifest");
    let size = manifest.metadata().expect("the manifest").len();
    for at in (64..size - 512).step_by(4096) {
        manifest.write_all_at(&[0xa5; 512], at).expect("the manifest");
    }
    service.again();
    let mut guest = guest_with_a_page(&service);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
}

/// As if the keeper was killed after it has taken a message from the socket, and nobody knows
/// whether it has answered.
#[test]
fn a_guest_that_was_spoken_with_is_let_go_and_others_go_on() {
    let mut service = Managed::start(&["a", "b"], &[]);
    let _guest = guest_with_a_page(&service);
    let mut other = Client::attach(&service.socket(1));
    other.create(1, PERSISTENT);
    assert_eq!(other.put(1, 1, 1, &page(7)), status::OK);
    service.end(Signal::KILL);
    service.manifest().touch(0);
    service.again();
    eventually("a line says so", || service.lines("was killed while it answered a message") == 1);
    assert_eq!(other.get(1, 1, 1), Ok(page(7)));
    let mut next = Client::attach(&service.socket(0));
    assert_eq!(next.get(1, 1, 1), Err(status::NO_POOL));
}
