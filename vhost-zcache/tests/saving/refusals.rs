// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Nothing is written without a key, and nothing is believed that was not written with it.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::client::daemon::{Daemon, Start, run};
use crate::client::wire::{self, Req};
use crate::client::{Client, Posted, Shape, eventually};
use crate::host::{Host, SWAP, end, store, text, verify};

/// What a daemon says that does not start.
fn refusal(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success());
    let says = String::from_utf8(output.stderr).expect("text");
    let lines: Vec<&str> = says.lines().filter(|line| line.starts_with("vhost-zcache: ")).collect();
    assert_eq!(lines.len(), 1, "{says}");
    lines[0].to_owned()
}

#[test]
fn without_a_key_the_daemon_does_not_start() {
    let says = refusal(&["--socket-path", "/tmp/none", "--save-directory", "/tmp"]);
    assert!(says.contains("save-directory takes save-key"), "{says}");
    let says = refusal(&["--socket-path", "/tmp/none", "--save-key", "/tmp"]);
    assert!(says.contains("mean nothing without save-directory"), "{says}");
}

#[test]
fn a_key_or_folder_that_others_can_use_is_refused() {
    let host = Host::new();
    let config = host.config();
    let says = |what: &str, mode| {
        let path = config.with_file_name(what);
        let before = fs::metadata(&path).expect("it").permissions();
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
        let says = refusal(&["--config", text(&config)]);
        fs::set_permissions(&path, before).expect("its mode");
        says
    };
    assert!(says("key", 0o644).contains("give it mode 0400"));
    assert!(says("saved", 0o777).contains("others may write to it"));
    fs::write(config.with_file_name("key"), "short").expect("the key");
    assert!(says("key", 0o600).contains("a key is 32 random bytes"));
}

#[test]
fn with_another_key_the_daemon_does_not_start_and_nothing_is_lost() {
    let host = Host::new();
    let epoch = host.save(50);
    host.set_key(2);
    let says = refusal(&["--config", text(&host.config())]);
    assert!(says.contains("sealed with another key"), "{says}");
    host.set_key(1);
    let _daemon = host.start();
    let mut guest = host.connect("a");
    assert_eq!(guest.hello(1), (epoch, true));
    verify(&mut guest, 50, 0);
}

/// What was saved is not taken back, because of this; the guest is served all the same.
fn is_refused(host: &Host, why: &str) {
    let daemon = host.start();
    let mut guest = host.connect("a");
    assert!(!guest.hello(1).1, "{}", daemon.log());
    assert_eq!(daemon.lines(why), 1, "{}", daemon.log());
    assert_eq!(daemon.stats()["store"]["pages"], 0, "half of it is there");
    guest.create(SWAP, 1);
    store(&mut guest, 20, 1);
    verify(&mut guest, 20, 1);
    assert!(!host.file("a").exists(), "it may be believed later");
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("the file");
    change(&mut bytes);
    fs::write(path, bytes).expect("the file");
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_refused() {
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[100] ^= 1,
        |bytes| *bytes.last_mut().expect("a byte") ^= 0x80,
        |bytes| bytes.truncate(56 + 2 * ((64 << 10) + 16)),
        |bytes| bytes.truncate(bytes.len() - 1),
    ];
    for damage in damages {
        let host = Host::new();
        host.save(150);
        change(&host.file("a"), damage);
        is_refused(&host, "a: what was saved is not taken back, and is removed: the saved state is damaged, cut off");
    }
}

#[test]
fn another_guests_file_is_refused() {
    let host = Host::new();
    host.save(50);
    fs::rename(host.file("a"), host.file("b")).expect("the file");
    host.save_again_as_b();
    is_refused(&host, "a: what was saved is not taken back, and is removed: the saved state is damaged, cut off or");
}

impl Host {
    /// Has the file that is there be guest a's again, of what was guest b's.
    fn save_again_as_b(&self) {
        fs::remove_file(self.file("b")).expect("the file");
        let mut daemon = self.start();
        let (_guest, _) = self.settle("b", 20);
        end(&mut daemon);
        fs::rename(self.file("b"), self.file("a")).expect("the file");
    }
}

#[test]
fn a_folder_without_room_costs_a_line_and_leaves_nothing() {
    let host = Host::new();
    let config = host.config();
    let mut daemon =
        Daemon::prepared(&[], Start { arguments: &["--config", text(&config)], ..Start::default() }, |c| {
            // So that a file that becomes too large is an error, as on a disk that is full.
            let ignore = || {
                // SAFETY: changes what a signal does.
                unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
                Ok(())
            };
            // SAFETY: it makes one system call in the new process, and nothing else.
            unsafe { c.pre_exec(ignore) };
        });
    let (_guest, _) = host.settle("a", 150);
    let spawner = daemon.spawner().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("the spawner");
    let limit = Rlimit { current: Some(100 << 10), maximum: Some(100 << 10) };
    prlimit(Some(spawner), Resource::Fsize, limit).expect("a limit");
    let (status, took) = daemon.end(Signal::TERM);
    assert!(status.success() && took.as_secs() < 30, "{status} after {took:?}");
    assert_eq!(daemon.lines("a: not saved: File too large"), 1, "{}", daemon.log());
    assert_eq!(host.files(), [""; 0]);
}

/// Has the folder be a filesystem of so many bytes, as this thread and what it starts see it;
/// whether that can be had.
fn small_filesystem(folder: &Path, bytes: u32) -> bool {
    let path = CString::new(folder.as_os_str().as_bytes()).expect("a path");
    let options = CString::new(format!("size={bytes},mode=700")).expect("options");
    let (tmpfs, root, private) = (c"tmpfs".as_ptr(), c"/".as_ptr(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: it concerns this thread alone.
    let own = || unsafe { libc::unshare(libc::CLONE_NEWNS) };
    // SAFETY: the arguments are strings that live on, or null where none is needed.
    let apart = || unsafe { libc::mount(root, root, std::ptr::null(), private, std::ptr::null()) };
    // SAFETY: likewise.
    let mount = || unsafe { libc::mount(tmpfs, path.as_ptr(), tmpfs, 0, options.as_ptr().cast()) };
    let mounted = own() == 0 && apart() == 0 && mount() == 0;
    if !mounted {
        eprintln!("skipped: no filesystem can be mounted ({})", std::io::Error::last_os_error());
    }
    mounted
}

#[test]
fn a_filesystem_that_is_full_costs_a_line_and_harms_nobody_else() {
    let host = Host::new();
    if !small_filesystem(&host.saved(), 256 << 10) {
        return;
    }
    let mut daemon = host.start();
    // The one that there is no room for is the first.
    let (_large, _) = host.settle("a", 500);
    let (_small, epoch) = host.settle("b", 20);
    let (status, took) = daemon.end(Signal::TERM);
    assert!(status.success() && took.as_secs() < 30, "{status} after {took:?}");
    assert_eq!(daemon.lines("a: not saved: No space left on device"), 1, "{}", daemon.log());
    assert_eq!(daemon.lines(" ERROR "), 1, "{}", daemon.log());
    assert_eq!(host.files(), ["b.saved"], "{}", daemon.log());

    let mut daemon = host.start();
    let mut small = host.connect("b");
    assert_eq!(small.hello(1), (epoch, true), "{}", daemon.log());
    verify(&mut small, 20, 0);
    assert!(!host.connect("a").hello(1).1, "it has something that was not saved");
    end(&mut daemon);
    assert_eq!(host.files().iter().filter(|name| name.ends_with(".part")).count(), 0);
}

#[test]
fn a_folder_that_cannot_be_written_to_costs_a_line() {
    let host = Host::new();
    let mut daemon = host.start();
    let (_guest, _) = host.settle("a", 10);
    fs::set_permissions(host.saved(), Permissions::from_mode(0o500)).expect("the mode");
    end(&mut daemon);
    fs::set_permissions(host.saved(), Permissions::from_mode(0o700)).expect("the mode");
    assert_eq!(daemon.lines("a: not saved: Permission denied"), 1, "{}", daemon.log());
    assert_eq!(host.files(), [""; 0]);
}

/// A guest says HELLO, and is not answered for now.
fn says_hello_in_vain(guest: &mut Client) -> Posted {
    let hello = guest.post(0, &[Req::hello(1)], Shape::Whole);
    guest.expect_silence(0);
    hello
}

/// It is answered after all: epoch, and whether its pages are there.
fn is_welcome(guest: &mut Client, hello: &Posted) -> (u64, bool) {
    let done = guest.wait(hello);
    let answer = wire::decode(&[Req::hello(1)], &done).remove(0);
    (answer.value, answer.flags == 1)
}

/// No guest is served while there is a file of it: served without, it would have pages that are
/// newer than those that a later daemon gives it back.
#[test]
fn a_file_that_cannot_be_removed_holds_its_guest_until_it_can() {
    let host = Host::new();
    let epoch = host.save(50);
    let daemon = host.start();
    fs::set_permissions(host.saved(), Permissions::from_mode(0o500)).expect("the mode");
    let mut guest = host.connect("a");
    let hello = says_hello_in_vain(&mut guest);
    let why = "a: no queue is served before the file of what was saved can be removed: Permission denied";
    eventually("it is said", || daemon.lines(why) == 1);
    daemon.signal_worker(Signal::KILL);
    eventually("the next worker is there", || daemon.deaths() == 1);
    guest.expect_silence(0);
    assert_eq!(host.files(), ["a.saved"]);
    fs::set_permissions(host.saved(), Permissions::from_mode(0o700)).expect("the mode");
    assert_eq!(is_welcome(&mut guest, &hello), (epoch, true), "{}", daemon.log());
    verify(&mut guest, 50, 0);
    assert_eq!(host.files(), [""; 0]);
    assert_eq!((daemon.lines(why), daemon.lines("a: the file of what was saved is removed")), (1, 1));
}

#[test]
fn a_guest_waits_for_what_was_saved_until_there_is_a_process_for_it() {
    let host = Host::new();
    let epoch = host.save(50);
    for ends in [true, false] {
        let mut daemon = host.start();
        let spawner = daemon.spawner().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("the spawner");
        // Then it is not even given the files that it should pass on.
        let files = |most| {
            let limit = Rlimit { current: Some(most), maximum: Some(4096) };
            prlimit(Some(spawner), Resource::Nofile, limit).expect("a limit");
        };
        files(1);
        let mut guest = host.connect("a");
        let hello = says_hello_in_vain(&mut guest);
        let why = "a: no queue is served before what was saved can be taken back: ";
        eventually("it is said", || daemon.lines(why) == 1);
        assert_eq!(host.files(), ["a.saved"]);
        if ends {
            end(&mut daemon);
            assert_eq!(host.files(), ["a.saved"], "{}", daemon.log());
            continue;
        }
        files(4096);
        assert_eq!(is_welcome(&mut guest, &hello), (epoch, true), "{}", daemon.log());
        verify(&mut guest, 50, 0);
        assert_eq!((host.files(), daemon.lines(why)), (Vec::new(), 1));
    }
}
