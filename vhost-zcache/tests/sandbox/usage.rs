// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything that the daemon does has a rule, and every rule is for something that it does.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use vhost_zcache::sandbox::rule::{Kind, Rule, Seen as When, Verdict};
use vhost_zcache::sandbox::rules;
use vhost_zcache::sandbox::rules::runtime::EVERYBODY;

use crate::client::daemon::{Daemon, Start};
use crate::client::state::Way;
use crate::client::vmm::{Vmm, memory_file, region, request, single};
use crate::client::wire::{PAGE, PERSISTENT, Page, Req, status};
use crate::client::{Client, Setup, Shape, eventually, page};
use crate::observer::{Observer, Seen};

/// What the daemon does while `scene` plays.
fn observe(arguments: &[&str], scene: impl FnOnce(&mut Daemon)) -> Seen {
    let mut observer = None;
    let arguments = [&["--seccomp", "log"], arguments].concat();
    let start = Start { arguments: &arguments, ..Start::default() };
    let guests = ["allow-shared=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", ""];
    // A service manager that listens, and keeps nothing.
    let directory = tempfile::tempdir().expect("a directory");
    let manager = directory.path().join("manager");
    let socket = UnixDatagram::bind(&manager).expect("the manager's socket");
    thread::spawn(move || while socket.recv(&mut [0; 1024]).is_ok() {});
    let mut daemon = Daemon::prepared(&guests, start, |command| {
        command.env("NOTIFY_SOCKET", &manager);
        observer = Some(Observer::of(command));
    });
    scene(&mut daemon);
    drop(daemon);
    observer.expect("an observer").seen()
}

/// Fills the store, and again as soon as all of that is flushed, so that whoever puts finds memory
/// that is on its way back.
fn fill_what_was_flushed(guest: &mut Client) {
    guest.create(3, PERSISTENT);
    for round in 0..5 {
        for batch in 0..1000u64 {
            let put = |n| Req::put(3, round, batch * 20 + n, &noise(batch * 20 + n));
            let requests: Vec<Req> = (0..20).map(put).collect();
            if guest.submit(0, &requests).iter().any(|answer| answer.status != status::OK) {
                break;
            }
        }
        guest.status(Req::flush_object(3, round));
    }
}

/// A page that does not compress: words of the generator SplitMix64.
fn noise(seed: u64) -> Page {
    let mut page = [0; PAGE];
    for (at, word) in (seed << 9..).zip(page.chunks_exact_mut(8)) {
        let z = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    page
}

/// A configuration file with guests of these names, whose sockets are beside it.
fn configure(folder: &Path, limit: &str, guests: &[&str]) -> PathBuf {
    let guest = |name: &&str| format!("[guest.{name}]\nsocket = '{}/{name}'\n", folder.display());
    let text = format!("memory-limit = '{limit}'\n{}", guests.iter().map(guest).collect::<String>());
    let file = folder.join("zcache.toml");
    fs::write(&file, text).expect("the file");
    file
}

/// The configuration is read again: limits change, a guest goes and another one comes.
fn read_again(daemon: &Daemon, folder: &Path) {
    for (limit, guests) in [("48M", &["x", "z"][..]), ("64M", &["z"]), ("64M", &["y", "z"])] {
        configure(folder, limit, guests);
        let before = daemon.lines("The configuration was taken");
        daemon.signal_keeper(Signal::HUP);
        eventually("it is read again", || daemon.lines("The configuration was taken") > before);
    }
    Client::attach(&folder.join("y")).create(1, PERSISTENT);
}

/// A bit of everything. Reports go to a directory, and the configuration is in another.
fn everything(daemon: &mut Daemon, reports: &Path, folder: &Path) {
    read_again(daemon, folder);
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(1, PERSISTENT);
    guest.create(2, 0);
    // More than the store takes, so that it makes room, compacts, and gives memory back.
    for round in 0..3u8 {
        for number in 0..9000 {
            guest.put(2, round, number, &page(number));
        }
        for number in 0..300 {
            assert_eq!(guest.put(1, round, number, &page(number)), status::OK);
        }
        guest.status(Req::flush_object(2, round));
    }
    fill_what_was_flushed(&mut guest);
    assert_eq!(guest.get(1, 1, 1), Ok(page(1)));
    guest.raw(1, b"short", 16, Shape::Whole);
    let _ = daemon.stats();

    // A worker that dies leaves something to be found.
    daemon.signal_worker(Signal::KILL);
    assert_eq!(guest.get(1, 1, 2), Ok(page(2)));
    eventually("a report is written", || fs::read_dir(reports).expect("the reports").count() == 1);
    daemon.signal_keeper(Signal::USR2);
    eventually("a newer program has taken over", || daemon.lines("has taken over") == 1);
    assert_eq!(guest.get(1, 1, 2), Ok(page(2)));
    guest.restart_queue(0);
    guest.reset();

    // Somebody who does not know the protocol, and one who shares memory and events of all kinds.
    Vmm::connect(&daemon.socket(1)).send_bytes(&[0xff; 12], &[]);
    eventually("the next one is let in", || daemon.lines("connection ended") > 0);
    // A guest's state goes, and comes to another.
    for way in [Way::Pipe, Way::Socket] {
        let state = guest.save(way);
        let other = Client::connect(&daemon.socket(1), Setup { start: false, ..Setup::default() });
        assert!(other.load(way, &state), "{}", daemon.log());
        guest.start_all();
    }
    let vmm = Vmm::connect(&daemon.socket(1));
    let file = memory_file(0x10000);
    for number in 0..8u64 {
        let body = single(&region(number << 16, 0x10000, number << 16, 0));
        vmm.ask(request::ADD_MEM_REG, &body, &[file.as_fd()]);
    }
    vmm.ask(request::REM_MEM_REG, &single(&region(0, 0x10000, 0, 0)), &[]);
    let (event, _other) = UnixStream::pair().expect("a socket");
    vmm.ask(request::SET_VRING_KICK, &0u64.to_ne_bytes(), &[event.as_fd()]);
    vmm.send_bytes(&[1, 0, 0], &[]);
    drop((vmm, guest));

    // Everybody is stopped in a wait, and goes on.
    let processes = [Some(daemon.keeper()), daemon.worker()].into_iter().flatten();
    for pid in processes.filter_map(|pid| i32::try_from(pid).ok()).filter_map(Pid::from_raw) {
        kill_process(pid, Signal::STOP).expect("the process");
        kill_process(pid, Signal::CONT).expect("the process");
    }
    eventually("nothing is left", || daemon.stats()["store"]["pages"] == 0);
    daemon.end(Signal::TERM);
}

#[test]
fn everything_has_a_rule_and_no_rule_is_without_use() {
    let reports = tempfile::tempdir().expect("a directory");
    let directory = reports.path().to_str().expect("a path that is text");
    let folder = tempfile::tempdir().expect("a directory");
    let file = configure(folder.path(), "64M", &["x"]);
    let file = file.to_str().expect("a path that is text");
    let arguments = ["--config", file, "--crash-directory", directory];
    let mut seen = observe(&arguments, |daemon| everything(daemon, reports.path(), folder.path()));
    let with_defaults = observe(&[], |daemon| Client::attach(&daemon.socket(0)).create(1, PERSISTENT));
    seen.used.extend(with_defaults.used);
    seen.without.extend(with_defaults.without);
    let without: Vec<String> =
        seen.without.iter().map(|((kind, number), arguments)| format!("{kind:?}: {number} {arguments:x?}")).collect();
    assert!(without.is_empty(), "calls without a rule:\n{}", without.join("\n"));

    let mut unused = BTreeSet::new();
    for (at, rule) in rules::all().enumerate() {
        let used = |kind: &Kind| seen.used.contains(&(*kind, at));
        // What is refused the kernel does not ask about; see `kinds`.
        let is_seen = rule.verdict == Verdict::Allow && rule.seen == When::InTests;
        if is_seen && is_for_everybody(rule) {
            if !rule.who.iter().any(used) {
                unused.insert(format!("everybody: {} ({})", rule.name(), rule.why));
            }
        } else if is_seen {
            let kinds = rule.who.iter().filter(|kind| !used(kind));
            unused.extend(kinds.map(|kind| format!("{}: {} ({})", kind.name(), rule.name(), rule.why)));
        }
    }
    assert!(unused.is_empty(), "rules without use:\n{}", unused.into_iter().collect::<Vec<_>>().join("\n"));
}

fn is_for_everybody(rule: &Rule) -> bool {
    rule.who == EVERYBODY
}
