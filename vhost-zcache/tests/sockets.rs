// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who may connect, how many, and what they can do to those who are connected.

mod client;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use client::daemon::{Daemon, Start};
use client::vmm::{VERSION, Vmm, borrow, memory_file, region, request, table};
use client::wire::{PERSISTENT, Req, status};
use client::{Client, Setup, eventually, page};
use rustix::process::{Signal, getgid, getuid};

fn connect(socket: &Path) -> Vmm {
    Vmm::on(UnixStream::connect(socket).unwrap_or_else(|error| panic!("{socket:?}: {error}")))
}

/// Conformance: ZC-DEV-78.
#[test]
fn a_second_vmm_is_told_at_once_and_the_first_goes_on() {
    let daemon = Daemon::start();
    let mut first = Client::attach(&daemon.socket(0));
    first.create(0, PERSISTENT);
    for number in 0..100 {
        connect(&daemon.socket(0)).expect_closed("a second VMM");
        assert_eq!(first.put(0, 1, number, &page(number)), status::OK, "the first VMM goes on");
    }
    let lines = daemon.lines("a second VMM was turned away");
    assert!((1..=2).contains(&lines), "{lines} lines in the log for 100 refusals");
}

/// Conformance: ZC-DEV-78.
#[test]
fn the_successor_of_a_vmm_that_died_is_not_turned_away() {
    let daemon = Daemon::start();
    for number in 0..300 {
        let mut guest = Client::attach(&daemon.socket(0));
        guest.create(0, PERSISTENT);
        assert_eq!(guest.get(0, 1, 1), Err(status::MISS), "round {number}: a page of the predecessor");
        assert_eq!(guest.put(0, 1, 1, &page(number)), status::OK);
        // Leaves work behind that the daemon has not done when the successor knocks.
        let _ = guest.post(1, &[Req::put(0, 1, 2, &page(number))], client::Shape::Whole);
    }
    assert_eq!(daemon.lines("turned away"), 0);
}

#[test]
fn vmms_that_come_and_go_do_not_fill_the_log() {
    let daemon = Daemon::start();
    for _ in 0..500 {
        drop(connect(&daemon.socket(0)));
    }
    for _ in 0..50 {
        Vmm::connect(&daemon.socket(0)).send_bytes(&[0xff; 12], &[]);
    }
    Client::attach(&daemon.socket(0)).create(0, 0);
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains("guest0")).count();
    assert!(lines <= 12, "550 connections make {lines} lines:\n{log}");
}

/// Fault 7 of the review: with the usual soft limit of 1024 files the 27th guest was not served.
#[test]
fn sixty_four_guests_are_served_with_the_usual_limits() {
    let guests = vec![""; 64];
    let daemon = Daemon::start_as(&guests, Start { files: Some((1024, 20_000)), ..Start::default() });
    let setup = Setup { queues: 8, queue_size: 64, ram: 2 << 20, ..Setup::default() };
    let mut clients: Vec<Client> = (0..64).map(|number| Client::connect(&daemon.socket(number), setup)).collect();
    for (number, client) in (0..).zip(&mut clients) {
        client.hello(1);
        client.create(0, PERSISTENT);
        for queue in 0..8 {
            let put = client.submit(queue, &[Req::put(0, 1, queue as u64, &page(number))]);
            assert_eq!(put[0].status, status::OK, "guest {number}, queue {queue}");
        }
    }
    for (number, client) in (0..).zip(&mut clients) {
        assert_eq!(client.get(0, 1, 7), Ok(page(number)));
    }
    assert_eq!(daemon.lines("RLIMIT_NOFILE"), 0, "the limit suffices");
}

/// What a daemon that may not open enough files does: it says so, serves whom it can to the full,
/// and turns others away.
#[test]
fn guests_for_whom_there_are_no_descriptors_are_turned_away_and_others_served_to_the_full() {
    let guests = vec![""; 12];
    let daemon =
        Daemon::start_as(&guests, Start { files: Some((400, 400)), arguments: &["--queues=8"], ..Start::default() });
    assert_eq!(daemon.lines("guests can be served at the same time"), 1, "said at the start: {}", daemon.log());

    // Who is served is answered, and the others find them connected.
    let mut served = Vec::new();
    for number in 0..12 {
        let mut stream = UnixStream::connect(daemon.socket(number)).expect("a connection");
        let question = client::vmm::words(&[request::GET_FEATURES, VERSION, 0]);
        // A socket that is closed already cannot be written to.
        if stream.write_all(&question).is_ok() && matches!(stream.read(&mut [0]), Ok(1)) {
            served.push(stream);
        }
    }
    assert!((2..12).contains(&served.len()), "{} of 12 guests were served", served.len());
    let places = served.len();
    drop((served, daemon));

    let daemon =
        Daemon::start_as(&guests, Start { files: Some((400, 400)), arguments: &["--queues=8"], ..Start::default() });
    let setup = Setup { queues: 8, queue_size: 64, ram: 2 << 20, ..Setup::default() };
    let connect_to = |number: usize| {
        let stream = UnixStream::connect(daemon.socket(number)).expect("a connection");
        let vmm = Vmm::on(stream.try_clone().expect("a descriptor"));
        (Client::from_stream(stream, setup), vmm)
    };
    let mut clients: Vec<_> = (0..places).map(connect_to).collect();
    let files: Vec<_> = (0..32).map(|_| memory_file(0x1000)).collect();
    for (client, _) in &mut clients {
        client.hello(1);
        client.create(0, PERSISTENT);
        assert_eq!(client.put(0, 1, 1, &page(1)), status::OK);
    }
    // All at once send messages with as many files as there can be, half of them unfinished.
    for (number, (_, vmm)) in clients.iter().enumerate() {
        let body = table(&(0..32u64).map(|n| region(n << 12, 0x1000, n << 12, 0)).collect::<Vec<_>>());
        let header = client::vmm::words(&[request::SET_MEM_TABLE, VERSION, 8 + 32 * 32]);
        vmm.send_bytes(
            &[header, body].concat()[..if number % 2 == 0 { 20 } else { 12 + 8 + 32 * 32 }],
            &borrow(&files),
        );
    }
    for number in places..12 {
        let mut refused = connect(&daemon.socket(number));
        refused.expect_closed("a guest for whom there are no descriptors");
    }
    for (number, (client, vmm)) in clients.iter_mut().enumerate() {
        if number % 2 == 0 {
            assert_eq!(client.get(0, 1, 1), Ok(page(1)), "guest {number} goes on");
        } else {
            vmm.expect_alive("a table of 32 regions");
        }
    }
    assert_eq!(daemon.lines("cannot be accepted"), 0, "no file was missing: {}", daemon.log());
}

/// Fault 7 of the review: one peer used up the descriptors, and the next message of another guest
/// ended its connection.
#[test]
fn a_peer_that_passes_files_without_end_costs_nobody_a_connection() {
    let daemon = Daemon::start_as(&["", ""], Start { files: Some((300, 300)), ..Start::default() });
    let mut guest = Client::attach(&daemon.socket(1));
    guest.create(0, PERSISTENT);
    assert_eq!(guest.put(0, 1, 1, &page(1)), status::OK);
    let peer = Vmm::connect(&daemon.socket(0));
    let file = memory_file(0x1000);
    for number in 0..1000u64 {
        let one = client::vmm::single(&region(number << 12, 0x1000, number << 12, 0));
        peer.ask(request::ADD_MEM_REG, &one, &[file.as_fd()]);
        for kind in [request::SET_VRING_KICK, request::SET_VRING_CALL, request::SET_VRING_ERR] {
            peer.ask(kind, &(number % 8).to_ne_bytes(), &[file.as_fd()]);
        }
        guest.restart_queue(1);
    }
    assert_eq!(guest.get(0, 1, 1), Ok(page(1)), "the other guest has its page");
    guest.stop_queue(1);
    guest.start_queue(1);
    assert_eq!(guest.submit(1, &[Req::get(0, 1, 1, 0)])[0].page, Some(page(1)), "and can start a queue");
}

#[test]
fn sockets_have_the_owner_group_and_mode_asked_for() {
    // Root may give sockets to anybody, others only to themselves.
    let (owner, group) = if getuid().is_root() { (65534, 65533) } else { (getuid().as_raw(), getgid().as_raw()) };
    let owned = format!("owner={owner},group={group}");
    let guests = ["", "mode=0666", &owned[..]];
    let daemon = Daemon::with(&guests, &[]);
    let status = |number: usize| {
        let status = fs::metadata(daemon.socket(number)).expect("the socket");
        (status.permissions().mode() & 0o7777, status.uid(), status.gid())
    };
    let (me, mine) = (getuid().as_raw(), getgid().as_raw());
    assert_eq!(status(0), (0o600, me, mine), "private when nothing is said, whatever the umask");
    assert_eq!(status(1), (0o666, me, mine));
    assert_eq!(status(2), (0o660, owner, group), "a group is meant to connect");

    let group = group.to_string();
    let daemon = Daemon::with(&["", "mode=0600"], &["--socket-group", &group]);
    let mode = |number: usize| fs::metadata(daemon.socket(number)).expect("the socket").permissions().mode() & 0o777;
    assert_eq!(mode(0), 0o660, "the default for all sockets");
    assert_eq!(mode(1), 0o600, "an option goes before the default");
}

/// The kernel says of whom a process is; the mode lets everybody connect here.
#[test]
fn processes_of_other_users_are_turned_away_where_users_are_named() {
    let me = getuid().as_raw();
    let (mine, other) = (format!("mode=0666,peer={me}"), format!("mode=0666,peer={}", me + 1));
    let both = format!("peer={},peer={me}", me + 1);
    let daemon = Daemon::with(&[&mine, &other, &both], &[]);
    connect(&daemon.socket(1)).expect_closed("a process of another user");
    eventually("it is said", || daemon.lines("was turned away: a process of user") == 1);
    for number in [0, 2] {
        Client::attach(&daemon.socket(number)).create(0, PERSISTENT);
    }
    assert_eq!(daemon.lines("was turned away"), 1, "{}", daemon.log());
}

#[test]
fn readers_of_statistics_that_do_not_read_stop_nobody() {
    // So many queues that the document is more than a socket holds.
    let guests = vec![""; 60];
    let mut daemon = Daemon::with(&guests, &["--queues=64"]);
    let stats = daemon.directory().join("stats");
    let document = daemon.stats().to_string().len();
    assert!(document > 240_000, "the test needs a long document, not {document} bytes");
    let before = daemon.descriptors();
    let lazy: Vec<_> = (0..20).map(|_| UnixStream::connect(&stats).expect("a connection")).collect();
    let start = Instant::now();
    assert_eq!(daemon.stats()["guests"][0]["name"], daemon.socket(0).display().to_string());
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "20 readers that do not read hold one that reads up for {took:?}");

    eventually("readers that do not read are given up", || daemon.descriptors() <= before);
    let (status, took) = daemon.end(Signal::TERM);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "signals wait for readers: {took:?}");
    drop(lazy);
}
