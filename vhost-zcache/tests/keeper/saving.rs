// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What guests have is saved as the service ends, and goes on all the same where it is started
//! again: then nobody is to believe what was saved.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::wire::{PERSISTENT, Req, status};
use crate::client::{Client, Setup, Shape, page};
use crate::manager::Managed;

/// A folder to save in, and the arguments for it.
fn folder() -> (TempDir, Vec<String>) {
    let folder = tempfile::tempdir().expect("a directory");
    let (saved, key) = (folder.path().join("saved"), folder.path().join("key"));
    fs::create_dir(&saved).expect("a directory");
    fs::write(&key, [1; 32]).expect("a key");
    fs::set_permissions(&key, Permissions::from_mode(0o400)).expect("its mode");
    let arguments = [("--save-directory", saved), ("--save-key", key)];
    let arguments = arguments.map(|(name, path)| [name.to_owned(), path.display().to_string()]);
    (folder, arguments.concat())
}

fn files(folder: &TempDir) -> usize {
    fs::read_dir(folder.path().join("saved")).expect("the folder").count()
}

#[test]
fn a_guest_that_goes_on_leaves_nothing_saved() {
    let (folder, arguments) = folder();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut service = Managed::start(&["a"], &arguments);
    let mut guest = Client::attach(&service.socket(0));
    guest.create(1, PERSISTENT);
    // The last time by a daemon that does not save any more.
    for (round, next) in [(0, &arguments[..]), (1, &arguments), (2, &[])] {
        assert_eq!(guest.put(1, 1, 1, &page(round)), status::OK);
        service.end(Signal::TERM);
        assert_eq!(files(&folder), 1, "{}", service.log());
        service.configure(&["a"], next);
        service.again();
        assert_eq!(files(&folder), 0, "a state that is older than the guest's\n{}", service.log());
        assert_eq!(guest.get(1, 1, 1), Ok(page(round)));
        assert!(guest.hello(1).1);
    }
}

#[test]
fn a_service_that_was_stopped_takes_back_what_was_saved() {
    let (folder, arguments) = folder();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut service = Managed::start(&["a"], &arguments);
    let mut guest = Client::attach(&service.socket(0));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(1)), status::OK);
    service.end(Signal::TERM);
    // Then systemd keeps nothing.
    service.kept().iter().for_each(|name| service.lose(name));
    service.again();
    // A keeper that is killed before the guest comes makes no difference.
    service.end(Signal::KILL);
    service.again();
    assert_eq!(files(&folder), 1, "{}", service.log());
    drop(guest);
    let mut guest = Client::connect(&service.socket(0), Setup::default());
    assert!(guest.hello(1).1, "{}", service.log());
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    assert_eq!(files(&folder), 0);
    // Nor one that is killed after.
    service.end(Signal::KILL);
    service.again();
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
}

/// Nobody knows then of whom there is a file, and whoever is served beside one may later be given
/// pages that are older than its own.
#[test]
fn a_folder_that_cannot_be_looked_at_holds_guests_until_it_can() {
    let (folder, arguments) = folder();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut service = Managed::start(&["a", "b"], &arguments);
    let mut stranger = Client::attach(&service.socket(0));
    stranger.create(1, PERSISTENT);
    assert_eq!(stranger.put(1, 1, 1, &page(1)), status::OK);
    service.end(Signal::TERM);
    // Then systemd keeps nothing.
    service.kept().iter().for_each(|name| service.lose(name));
    service.again();
    let saved = folder.path().join("saved");
    let others_may_write = |may| {
        let mode = if may { 0o777 } else { 0o700 };
        fs::set_permissions(&saved, Permissions::from_mode(mode)).expect("the mode");
    };
    // Also while nobody has a session.
    others_may_write(true);
    service.end(Signal::KILL);
    service.again();
    others_may_write(false);
    let mut guest = Client::attach(&service.socket(1));
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(2)), status::OK);

    others_may_write(true);
    service.end(Signal::KILL);
    service.again();
    drop(stranger);
    let mut stranger = Client::connect(&service.socket(0), Setup::default());
    let hello = stranger.post(0, &[Req::hello(1)], Shape::Whole);
    let get = guest.post(0, &[Req::get(1, 1, 1, 0)], Shape::Whole);
    stranger.expect_silence(0);
    guest.expect_silence(0);
    assert_eq!(files(&folder), 1, "{}", service.log());

    others_may_write(false);
    stranger.wait(&hello);
    guest.wait(&get);
    assert_eq!(guest.get(1, 1, 1), Ok(page(2)), "{}", service.log());
    assert_eq!(files(&folder), 0, "{}", service.log());
}
