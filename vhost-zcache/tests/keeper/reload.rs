// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The next keeper goes by what the one before has come to go by.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use vhost_zcache::admin::ask::ask;
use vhost_zcache::admin::wish::{Alteration, Wish};

use crate::client::daemon::run;
use crate::client::wire::{PERSISTENT, status};
use crate::client::{Client, eventually, page};
use crate::manager::Managed;
use crate::model::while_guests_work_at;

/// A service whose guests are in a file.
struct Configured {
    service: Managed,
    directory: TempDir,
}

impl Configured {
    fn start(guests: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = write(directory.path(), &text(directory.path(), "64M", guests));
        let service = Managed::start(&[], &["--config", file.to_str().expect("text")]);
        Self { service, directory }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Has a file with other guests and another limit read.
    fn reload(&self, limit: &str, guests: &[&str]) {
        write(self.directory.path(), &text(self.directory.path(), limit, guests));
        let control = self.socket("control");
        let output = run(&["reload", "--control-socket", control.to_str().expect("text")]);
        assert!(output.status.success(), "{output:?}");
    }
}

fn text(folder: &Path, limit: &str, guests: &[&str]) -> String {
    let folder = folder.display();
    let pools = ["aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"];
    let guest = |name: &&str| format!("[guest.{name}]\nsocket = '{folder}/{name}'\nallow-shared = {pools:?}\n");
    let all: String = guests.iter().map(guest).collect();
    format!("memory-limit = '{limit}'\ncontrol-socket.path = '{folder}/control'\n{all}")
}

fn write(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("zcache.toml");
    fs::write(&file, text).expect("the file");
    file
}

fn attach(socket: &Path, number: u64) -> Client {
    let mut guest = Client::attach(socket);
    guest.create(1, PERSISTENT);
    assert_eq!(guest.put(1, 1, 1, &page(number)), status::OK);
    guest
}

#[test]
fn guests_that_have_come_and_gone_are_known_to_the_next_keeper() {
    let mut daemon = Configured::start(&["a", "b"]);
    let mut a = attach(&daemon.socket("a"), 1);
    daemon.reload("48M", &["a"]);
    daemon.reload("40M", &["a", "c"]);
    let mut c = attach(&daemon.socket("c"), 3);
    daemon.service.end(Signal::KILL);
    daemon.service.again();
    assert_eq!((a.get(1, 1, 1), c.get(1, 1, 1)), (Ok(page(1)), Ok(page(3))));
    assert_eq!(daemon.service.lines("The store takes up to 41943040 bytes"), 1, "{}", daemon.service.log());
    assert!(!daemon.socket("b").exists());
    // And so on.
    daemon.reload("40M", &["a", "c", "d"]);
    let mut d = attach(&daemon.socket("d"), 4);
    daemon.service.end(Signal::TERM);
    daemon.service.again();
    assert_eq!((a.get(1, 1, 1), c.get(1, 1, 1), d.get(1, 1, 1)), (Ok(page(1)), Ok(page(3)), Ok(page(4))));
    drop((a, c, d));
    // Nothing is kept of who is gone: the daemon's own files, and two for each door.
    daemon.reload("40M", &["a"]);
    eventually("nothing is kept of others", || {
        daemon.service.kept().iter().filter(|n| n.starts_with("zcache-d")).count() == 1
    });
    eventually("nothing is kept of others", || !daemon.service.kept().iter().any(|n| n.starts_with("zcache-c")));
}

#[test]
fn a_file_that_is_faulty_for_a_moment_costs_guests_nothing() {
    let mut daemon = Configured::start(&["a"]);
    daemon.reload("48M", &["a", "b"]);
    let (mut a, mut b) = (attach(&daemon.socket("a"), 1), attach(&daemon.socket("b"), 2));
    write(daemon.directory.path(), "memory-limit = '48M'\n[guest.a\n");
    daemon.service.end(Signal::KILL);
    daemon.service.again();
    assert_eq!(daemon.service.lines("zcache.toml:2:"), 1, "{}", daemon.service.log());
    assert_eq!(daemon.service.lines("Going on by the configuration that there was"), 1);
    assert_eq!((a.get(1, 1, 1), b.get(1, 1, 1)), (Ok(page(1)), Ok(page(2))));
    // When it is right again it is taken.
    daemon.reload("40M", &["a", "b", "c"]);
    attach(&daemon.socket("c"), 3);
}

#[test]
fn what_was_changed_while_it_ran_is_known_to_the_next_keeper() {
    let mut daemon = Configured::start(&["a", "b"]);
    let control = daemon.socket("control");
    let alter = |alteration| ask(&control, &Wish::Alter(alteration)).expect("it is done");
    alter(Alteration::Add(format!("[guest.c]\nsocket = '{}'\n", daemon.socket("c").display())));
    alter(Alteration::Set("memory-limit = '32M'\n".into()));
    alter(Alteration::Remove { guest: "b".into(), disconnect: false });
    let mut c = attach(&daemon.socket("c"), 3);
    // The file is another meanwhile, but nobody has had it read.
    write(daemon.directory.path(), &text(daemon.directory.path(), "48M", &["a", "b", "d"]));
    daemon.service.end(Signal::KILL);
    daemon.service.again();
    assert_eq!(c.get(1, 1, 1), Ok(page(3)), "{}", daemon.service.log());
    assert_eq!(daemon.service.lines("What was changed while the daemon ran is kept"), 1);
    assert_eq!(daemon.service.lines("The store takes up to 33554432 bytes"), 1);
    assert!(!daemon.socket("b").exists() && daemon.socket("d").exists());
    // When the file is read again it is as it says.
    drop(c);
    eventually("the guest is gone", || {
        let output = run(&["reload", "--control-socket", control.to_str().expect("text")]);
        output.status.success()
    });
    assert!(daemon.socket("b").exists() && !daemon.socket("c").exists());
    daemon.service.end(Signal::TERM);
    daemon.service.again();
    assert!(daemon.socket("b").exists() && !daemon.socket("c").exists());
    assert_eq!(daemon.service.lines("The store takes up to 50331648 bytes"), 1, "{}", daemon.service.log());
}

#[test]
fn keepers_die_while_the_file_is_read_again() {
    let mut daemon = Configured::start(&["busy1", "busy2"]);
    let sockets = [daemon.socket("busy1"), daemon.socket("busy2")];
    while_guests_work_at(&sockets, 80, || {
        for round in 0..8u64 {
            let guests: &[&str] = if round % 2 == 0 { &["busy1", "busy2", "c"] } else { &["busy1", "busy2"] };
            let limit = format!("{}M", 40 + round);
            write(daemon.directory.path(), &text(daemon.directory.path(), &limit, guests));
            daemon.service.signal(Signal::HUP);
            // Anywhere between the signal and its end.
            std::thread::sleep(std::time::Duration::from_millis(round * 3));
            daemon.service.end(Signal::TERM);
            daemon.service.again();
            assert_eq!(daemon.socket("c").exists(), round % 2 == 0, "round {round}: {}", daemon.service.log());
        }
    });
    assert_eq!(daemon.service.lines("connection ended"), 0, "{}", daemon.service.log());
}
