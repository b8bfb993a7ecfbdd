// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host with two guests, on which daemons follow one another.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::daemon::{Daemon, Start};
use crate::client::wire::{PERSISTENT, Page, Req, status};
use crate::client::{Client, page};

/// A guest's pools: one whose pages come back, and one whose pages do not.
pub(crate) const SWAP: u32 = 7;
pub(crate) const FILES: u32 = 9;

/// A host.
pub(crate) struct Host(TempDir);

impl Host {
    /// A host whose daemons save what guests have.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same, with more in the configuration.
    pub(crate) fn with(more: &str) -> Self {
        let host = Self(tempfile::tempdir().expect("a directory"));
        fs::create_dir(host.saved()).expect("a directory");
        host.set_key(1);
        let path = host.0.path().display();
        let text = format!(
            "save-directory = '{path}/saved'\nsave-key = '{path}/key'\n{more}\n\
             [guest.a]\nsocket = '{path}/a'\n[guest.b]\nsocket = '{path}/b'\n"
        );
        fs::write(host.config(), text).expect("the configuration");
        host
    }

    /// Makes the key another one.
    pub(crate) fn set_key(&self, number: u8) {
        let path = self.0.path().join("key");
        fs::write(&path, [number; 32]).expect("the key");
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("the key's mode");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.path().join("zcache.toml")
    }

    pub(crate) fn saved(&self) -> PathBuf {
        self.0.path().join("saved")
    }

    /// Where a guest is saved.
    pub(crate) fn file(&self, guest: &str) -> PathBuf {
        self.saved().join(format!("{guest}.saved"))
    }

    /// Names of all files that something was saved in.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.saved()).expect("the directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
        names.sort();
        names
    }

    pub(crate) fn socket(&self, guest: &str) -> PathBuf {
        self.0.path().join(guest)
    }

    pub(crate) fn start(&self) -> Daemon {
        self.start_as(Start::default())
    }

    /// A daemon whose workers die somewhere.
    pub(crate) fn start_dying(&self, place: &str) -> Daemon {
        self.start_as(Start { die_at: Some(place), ..Start::default() })
    }

    fn start_as(&self, start: Start<'_>) -> Daemon {
        let config = self.config();
        let arguments = ["--config", text(&config)];
        Daemon::start_as(&[], Start { arguments: &arguments, ..start })
    }

    /// A guest that has pages, as instance 1; its epoch.
    pub(crate) fn settle(&self, guest: &str, pages: u64) -> (Client, u64) {
        let mut client = self.connect(guest);
        let (epoch, resumed) = client.hello(1);
        assert!(!resumed);
        client.create(SWAP, PERSISTENT);
        client.create(FILES, 0);
        store(&mut client, pages, 0);
        assert_eq!(client.put(FILES, 1, 1, &page(1)), status::OK);
        (client, epoch)
    }

    /// A machine that begins.
    pub(crate) fn connect(&self, guest: &str) -> Client {
        Client::connect(&self.socket(guest), crate::client::Setup::default())
    }

    /// Has a guest with pages, and saves them.
    pub(crate) fn save(&self, pages: u64) -> u64 {
        let mut daemon = self.start();
        let (_guest, epoch) = self.settle("a", pages);
        end(&mut daemon);
        assert_eq!(self.files(), ["a.saved"], "{}", daemon.log());
        epoch
    }
}

/// Ends a daemon in good order.
pub(crate) fn end(daemon: &mut Daemon) {
    let (status, _) = daemon.end(Signal::TERM);
    assert!(status.success(), "{status}\n{}", daemon.log());
}

/// A page of some version.
fn content(number: u64, version: u64) -> Page {
    if number.is_multiple_of(5) { [version.to_le_bytes()[0]; 4096] } else { page(number << 8 | version) }
}

/// Stores so many pages.
pub(crate) fn store(guest: &mut Client, pages: u64, version: u64) {
    for first in (0..pages).step_by(16) {
        let puts: Vec<Req> =
            (first..pages.min(first + 16)).map(|number| Req::put(SWAP, 1, number, &content(number, version))).collect();
        for answer in guest.submit(0, &puts) {
            assert_eq!(answer.status, status::OK);
        }
    }
}

/// Makes sure that so many pages are there, as they were put.
pub(crate) fn verify(guest: &mut Client, pages: u64, version: u64) {
    for number in 0..pages {
        let got = guest.get(SWAP, 1, number);
        assert!(got == Ok(content(number, version)), "page {number} is lost or wrong: status {:?}", got.err());
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
