// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kick and call events, which are the VMM's: nothing that it does with them holds up the daemon,
//! and no interrupt is lost whatever the order of messages.

mod client;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use client::daemon::Daemon;
use client::wire::{PERSISTENT, Req, status};
use client::{Client, PATIENCE, Setup, Shape, as_event, eventually, page};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Queue with the odd events; queue 0 has to go on.
const VICTIM: usize = 1;

/// How long a message may take that waits for nothing but a batch.
const SOON: Duration = Duration::from_secs(3);

/// An eventfd whose counter is as high as it can be: a further write blocks.
fn full_eventfd(flags: EventfdFlags) -> OwnedFd {
    let event = eventfd(0, flags).expect("eventfd");
    rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).expect("a full counter");
    event
}

fn set_blocking(file: &impl AsFd, blocking: bool) {
    let flags = fcntl_getfl(file).expect("flags");
    let flags = if blocking { flags - OFlags::NONBLOCK } else { flags | OFlags::NONBLOCK };
    fcntl_setfl(file, flags).expect("flags");
}

/// The same open file as an event to be passed to the daemon.
fn shared_event(file: &OwnedFd) -> EventFd {
    as_event(file.try_clone().expect("a descriptor"))
}

/// Writes until no more fits in.
fn fill(file: OwnedFd) -> OwnedFd {
    set_blocking(&file, false);
    while rustix::io::write(&file, &[0; 4096]).is_ok() {}
    // The last bytes of a pipe or socket can be less than the eight of an event.
    while rustix::io::write(&file, &[0; 8]).is_ok() {}
    set_blocking(&file, true);
    file
}

/// Call events into which nothing fits, with what has to stay open.
fn full_events() -> Vec<(&'static str, OwnedFd, Option<OwnedFd>)> {
    let (pipe_reader, pipe) = io::pipe().expect("a pipe");
    let (socket_reader, socket) = UnixStream::pair().expect("sockets");
    vec![
        ("a full eventfd", full_eventfd(EventfdFlags::empty()), None),
        ("a full non-blocking eventfd", full_eventfd(EventfdFlags::NONBLOCK), None),
        ("a full pipe", fill(pipe.into()), Some(pipe_reader.into())),
        ("a full socket", fill(socket.into()), Some(socket_reader.into())),
    ]
}

/// Runs something that has to end soon, as it waits for nothing of the client's.
fn soon<T>(what: &str, action: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = action();
    let took = start.elapsed();
    assert!(took < SOON, "{what} took {took:?}");
    result
}

/// The guest's queue can be stopped, its VMM can go with all the guest had, and the next one is
/// served.
fn leaves_nothing_behind(what: &str, daemon: &Daemon, mut guest: Client) {
    guest.create(9, PERSISTENT);
    assert_eq!(guest.put(9, 1, 1, &page(1)), status::OK, "{what}: the other queue works");
    soon(&format!("{what}: GET_VRING_BASE"), || guest.stop_queue(VICTIM));
    let (ring, ram) = guest.ring(VICTIM);
    ring.reset(ram);
    guest.start_queue(VICTIM);
    guest.hello(1);
    assert_eq!(guest.submit(VICTIM, &[Req::get(9, 1, 1, 0)])[0].page, Some(page(1)), "{what}: good events again");
    drop(guest);
    eventually(&format!("{what}: the pages go with the VMM"), || daemon.stats()["store"]["pages"] == 0);
    Client::attach(&daemon.socket(0)).create(0, 0);
}

/// A guest with a chain waiting on the victim queue, whose call event is another than usual. If
/// `blocking`, the VMM makes it one that blocks once the daemon has it.
fn with_call_event(daemon: &Daemon, call: &OwnedFd, blocking: bool) -> Client {
    let mut guest = Client::attach(&daemon.socket(0));
    guest.frontend().set_vring_call(VICTIM, &shared_event(call)).expect("SET_VRING_CALL");
    if blocking {
        set_blocking(call, true);
    }
    let (ring, ram) = guest.ring(VICTIM);
    ram.store_u16(ring.available + 4 + 2 * u64::from(ring.size), ring.used_index(ram));
    let _ = guest.post(VICTIM, &[Req::flush_pool(0)], Shape::Whole);
    let (ring, ram) = guest.ring(VICTIM);
    eventually("the chain is used", || ring.used_index(ram) == 1);
    // The thread is in the write by now, or will be.
    thread::sleep(Duration::from_millis(20));
    guest
}

/// Conformance: ZC-DEV-58.
#[test]
fn a_call_event_that_is_full_holds_up_nobody() {
    let daemon = Daemon::start();
    for blocking in [false, true] {
        for (what, call, _open) in full_events() {
            let what = format!("{what} that the VMM has made {}", if blocking { "blocking" } else { "nothing" });
            let mut guest = with_call_event(&daemon, &call, blocking);
            soon(&format!("{what}: SET_VRING_ENABLE"), || {
                guest.frontend().set_vring_enable(VICTIM, false).expect("SET_VRING_ENABLE");
            });
            guest.frontend().set_vring_enable(VICTIM, true).expect("SET_VRING_ENABLE");
            leaves_nothing_behind(&what, &daemon, guest);

            let guest = with_call_event(&daemon, &call, blocking);
            drop(guest);
            eventually(&format!("{what}: the guest is gone with its VMM"), || {
                daemon.guest_stats(0)["connected"] == false
            });
        }
    }
}

/// Conformance: ZC-DEV-58.
#[test]
fn a_kick_that_the_vmm_takes_itself_holds_up_nobody() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    let file = eventfd(0, EventfdFlags::empty()).expect("eventfd");
    let kick = shared_event(&file);
    guest.frontend().set_vring_kick(VICTIM, &kick).expect("SET_VRING_KICK");
    assert!(!fcntl_getfl(&file).expect("flags").contains(OFlags::NONBLOCK), "the daemon has changed the VMM's file");
    // Now and then the VMM is faster than the daemon's thread, which has seen the kick then and
    // finds none.
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        set_blocking(&file, true);
        kick.write(1).expect("a kick");
        set_blocking(&file, false);
        let _ = kick.read();
    }
    set_blocking(&file, true);
    leaves_nothing_behind("a kick taken by the VMM", &daemon, guest);
}

/// Conformance: ZC-DEV-58, ZC-DEV-62.
#[test]
fn a_kick_event_that_is_always_ready_costs_next_to_nothing() {
    let daemon = Daemon::start();
    let (mut writer, reader) = UnixStream::pair().expect("sockets");
    writer.set_nonblocking(true).expect("a flag");
    let over = Arc::new(AtomicBool::new(false));
    let chatty = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            while !over.load(Ordering::Relaxed) {
                if writer.write(&[0; 512]).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    });
    let semaphore = eventfd(u32::MAX, EventfdFlags::SEMAPHORE).expect("eventfd");
    let counter = as_event(semaphore.try_clone().expect("a descriptor"));
    for (what, kick) in [("a semaphore with a huge count", semaphore), ("a socket full of kicks", reader.into())] {
        let mut guest = Client::attach(&daemon.socket(0));
        guest.frontend().set_vring_kick(VICTIM, &as_event(kick)).expect("SET_VRING_KICK");
        let used = daemon.processor_time();
        thread::sleep(Duration::from_millis(500));
        let used = daemon.processor_time() - used;
        assert!(used < Duration::from_millis(100), "{what} costs {used:?} of processor time in 500 ms");
        for _ in 0..20 {
            let posted = guest.post(VICTIM, &[Req::flush_pool(0)], Shape::Whole);
            counter.write(1).expect("a kick");
            soon(&format!("{what}: a chain"), || guest.wait(&posted));
        }
        leaves_nothing_behind(what, &daemon, guest);
    }
    over.store(true, Ordering::Relaxed);
    chatty.join().expect("the other end");
}

/// Conformance: ZC-DEV-63.
#[test]
fn what_is_no_event_counts_as_none() {
    let daemon = Daemon::start();
    for (what, file) in [
        ("a file", tempfile::tempfile().expect("a file")),
        ("/dev/zero", File::open("/dev/zero").expect("/dev/zero")),
        ("/dev/null", File::options().write(true).open("/dev/null").expect("/dev/null")),
    ] {
        let mut guest = Client::attach(&daemon.socket(0));
        let event = as_event(file);
        guest.frontend().set_vring_call(VICTIM, &event).expect("SET_VRING_CALL");
        let posted = guest.post(VICTIM, &[Req::flush_pool(0)], Shape::Whole);
        let (ring, ram) = guest.ring(VICTIM);
        eventually("the chain is used without an interrupt", || ring.used_index(ram) == 1);
        guest.wait(&posted);

        guest.frontend().set_vring_kick(VICTIM, &event).expect("SET_VRING_KICK");
        let used = daemon.processor_time();
        thread::sleep(Duration::from_millis(300));
        let used = daemon.processor_time() - used;
        assert!(used < Duration::from_millis(100), "{what} as kick costs {used:?} of processor time in 300 ms");
        let _ = guest.post(VICTIM, &[Req::flush_pool(0)], Shape::Whole);
        guest.expect_silence(VICTIM);
        leaves_nothing_behind(what, &daemon, guest);
    }
}

/// Conformance: ZC-DEV-58.
#[test]
fn a_kick_event_that_closes_costs_nothing() {
    let daemon = Daemon::start();
    let (socket, other_socket) = UnixStream::pair().expect("sockets");
    let (pipe, other_pipe) = io::pipe().expect("a pipe");
    let kicks: [(&str, OwnedFd, OwnedFd); 2] =
        [("a socket", socket.into(), other_socket.into()), ("a pipe", pipe.into(), other_pipe.into())];
    for (what, kick, other) in kicks {
        let mut guest = Client::attach(&daemon.socket(0));
        guest.frontend().set_vring_kick(VICTIM, &as_event(kick)).expect("SET_VRING_KICK");
        let posted = guest.post(VICTIM, &[Req::flush_pool(0)], Shape::Whole);
        rustix::io::write(&other, b"k").expect("a kick");
        guest.wait(&posted);
        drop(other);
        let used = daemon.processor_time();
        thread::sleep(Duration::from_millis(300));
        let used = daemon.processor_time() - used;
        assert!(used < Duration::from_millis(100), "{what} that closed costs {used:?} of processor time in 300 ms");
        leaves_nothing_behind(what, &daemon, guest);
    }
}

/// Waits for an interrupt without looking at the ring.
fn interrupted(event: &EventFd) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if event.read().is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(2));
    }
    false
}

/// Conformance: ZC-DEV-59, ZC-DEV-60.
#[test]
fn no_interrupt_is_lost_whatever_the_order_of_messages() {
    let daemon = Daemon::start();
    for event_idx in [true, false] {
        let mut guest = Client::connect(&daemon.socket(0), Setup { event_idx, start: false, ..Setup::default() });
        guest.start_queue(0);
        guest.hello(1);
        guest.create(0, 0);

        // Enabled before it has a call event: the chain is used, and the interrupt follows.
        guest.place_queue(VICTIM, 0);
        let (ring, _) = guest.ring(VICTIM);
        let (kick, call) = (ring.kick.try_clone().expect("an event"), ring.call.try_clone().expect("an event"));
        guest.frontend().set_vring_kick(VICTIM, &kick).expect("SET_VRING_KICK");
        guest.frontend().set_vring_enable(VICTIM, true).expect("SET_VRING_ENABLE");
        let _ = guest.post(VICTIM, &[Req::flush_pool(0)], Shape::Whole);
        let (ring, ram) = guest.ring(VICTIM);
        eventually("a queue without a call event is served", || ring.used_index(ram) == 1);
        guest.frontend().set_vring_call(VICTIM, &call).expect("SET_VRING_CALL");
        assert!(interrupted(&call), "event_idx {event_idx}: no interrupt for a chain used before SET_VRING_CALL");

        // Another call event: what the first one told of may not have been noticed.
        let other = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        guest.frontend().set_vring_call(VICTIM, &other).expect("SET_VRING_CALL");
        assert!(interrupted(&other), "event_idx {event_idx}: no interrupt for another call event");

        // A chain that was made available while the queue was stopped.
        guest.stop_queue(VICTIM);
        let _ = guest.post(VICTIM, &[Req::flush_pool(0)], Shape::Whole);
        guest.start_queue(VICTIM);
        assert!(interrupted(&call), "event_idx {event_idx}: no interrupt after a restart");
    }
}

/// Reads the interrupts that the start of a queue causes.
fn drain_interrupts(guest: &mut Client) {
    let (ring, _) = guest.ring(VICTIM);
    assert!(interrupted(&ring.call), "the start of a queue notifies once");
}

#[test]
fn the_interrupt_comes_when_it_is_asked_for_and_not_before() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    guest.create(0, 0);
    drain_interrupts(&mut guest);
    let (ring, ram) = guest.ring(VICTIM);
    // Ask for the interrupt of the third chain.
    ram.store_u16(ring.available + 4 + 2 * u64::from(ring.size), 2);
    for chain in 1..=3u16 {
        let _ = guest.post(VICTIM, &[Req::flush_pool(0)], Shape::Whole);
        let (ring, ram) = guest.ring(VICTIM);
        eventually("the chain is used", || ring.used_index(ram) == chain);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(ring.call.read().is_ok(), chain == 3, "interrupt after chain {chain}");
    }
}

/// Conformance: ZC-DEV-61.
#[test]
fn a_driver_without_event_idx_that_wants_no_interrupt_gets_none() {
    let daemon = Daemon::start();
    let mut guest = Client::connect(&daemon.socket(0), Setup { event_idx: false, ..Setup::default() });
    guest.hello(1);
    guest.create(0, 0);
    drain_interrupts(&mut guest);
    for chain in 1..=4u16 {
        let wanted = chain % 2 == 0;
        let (ring, ram) = guest.ring(VICTIM);
        // VRING_AVAIL_F_NO_INTERRUPT.
        ram.store_u16(ring.available, u16::from(!wanted));
        let _ = guest.post(VICTIM, &[Req::flush_pool(0)], Shape::Whole);
        let (ring, ram) = guest.ring(VICTIM);
        eventually("the chain is used", || ring.used_index(ram) == chain);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(ring.call.read().is_ok(), wanted, "interrupt after chain {chain}");
    }
}

/// What goes through the other events of a message is no one's: they are closed.
#[test]
fn replaced_events_are_closed() {
    let daemon = Daemon::start();
    let mut guest = Client::attach(&daemon.socket(0));
    let (mut ours, theirs) = UnixStream::pair().expect("sockets");
    guest.frontend().set_vring_call(VICTIM, &as_event(theirs)).expect("SET_VRING_CALL");
    let (ring, _) = guest.ring(VICTIM);
    let call = ring.call.try_clone().expect("an event");
    guest.frontend().set_vring_call(VICTIM, &call).expect("SET_VRING_CALL");
    ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut rest = Vec::new();
    ours.read_to_end(&mut rest).expect("the end of the replaced event");
}
