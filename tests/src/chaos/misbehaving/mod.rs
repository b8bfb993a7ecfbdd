// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest, with its VMM, that does what it should not.
//!
//! | module | what |
//! |---|---|
//! | `vmm` | messages and connections, right and wrong |
//! | `memory` | guest memory with rings, and chains of requests, right and wrong |

mod memory;
mod vmm;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use self::memory::Memory;
use self::vmm::{Vmm, request};
use super::clock::Clock;
use super::schedule::Timed;

/// UUID of the shared pool that it may have.
pub(super) const SHARED_UUID: &str = "5a434348-0000-4000-8000-6368616f7301";

/// One connection, and what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mischief {
    pub(super) kind: Kind,
    /// Decides what is left open.
    pub(super) seed: u64,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No messages at all.
    Noise,
    /// A message that does not end.
    HalfAMessage,
    /// Answers that nobody reads.
    Deaf,
    /// Connections that say nothing, many at once.
    Connects,
    /// Messages with any contents and files.
    Messages,
    /// As many pages as it is let, in a session of its own, and now and then a wrong bit.
    Flood,
    /// Descriptors, heads and indexes that make no sense.
    Rings,
    /// Memory that goes away while it is used.
    CutOff,
}

/// All of them.
pub(super) const KINDS: &[Kind] = &[
    Kind::Noise,
    Kind::HalfAMessage,
    Kind::Deaf,
    Kind::Connects,
    Kind::Messages,
    Kind::Flood,
    Kind::Rings,
    Kind::CutOff,
];

/// Longest that it waits for what it is not owed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Misbehaves as planned at a socket of the daemon; how often it did.
pub(super) fn misbehave(clock: &Clock, socket: &Path, mischief: &[Timed<Mischief>]) -> u64 {
    for (count, event) in (0..).zip(mischief) {
        if !clock.wait_until(event.at) {
            return count;
        }
        // A connection that is closed is an answer to all this, and so is silence.
        if let Err(error) = commit(event.what, socket) {
            clock.note(&format!("{:?} ended with: {error}", event.what.kind));
        }
    }
    mischief.len() as u64
}

fn commit(mischief: Mischief, socket: &Path) -> io::Result<()> {
    let random = &mut Rng::with_seed(mischief.seed);
    match mischief.kind {
        Kind::Noise => {
            let bytes: Vec<u8> = (0..random.usize(1..5000)).map(|_| random.u8(..)).collect();
            Vmm::connect(socket)?.send(&bytes, &[])
        }
        Kind::HalfAMessage => {
            let vmm = Vmm::connect(socket)?;
            vmm.send(&vmm::message(request::SET_MEM_TABLE, 0, &[0; 40])[..random.usize(1..52)], &[])?;
            pause(random, 300);
            Ok(())
        }
        Kind::Deaf => {
            let vmm = Vmm::connect(socket)?;
            for _ in 0..400 {
                vmm.send(&vmm::message(request::GET_FEATURES, 0, &[]), &[])?;
            }
            pause(random, 300);
            Ok(())
        }
        Kind::Connects => {
            let connections: io::Result<Vec<_>> =
                (0..random.u32(10..60)).map(|_| UnixStream::connect(socket)).collect();
            connections.map(drop)
        }
        Kind::Messages => messages(random, socket),
        Kind::Flood => flood(random, socket),
        Kind::Rings => rings(random, socket),
        Kind::CutOff => cut_off(random, socket),
    }
}

fn messages(random: &mut Rng, socket: &Path) -> io::Result<()> {
    let memory = Memory::new()?;
    let mut vmm = Vmm::connect(socket)?;
    vmm.set_up(&memory)?;
    for _ in 0..60 {
        let body: Vec<u8> = match random.u8(0..3) {
            0 => (0..random.usize(0..80)).map(|_| random.u8(..)).collect(),
            // Numbers that mean something in many a message.
            _ => (0..random.usize(0..10)).flat_map(|_| random.u32(0..9).to_ne_bytes()).collect(),
        };
        let files: Vec<_> = (0..random.usize(0..3)).map(|_| memory.file()).collect();
        vmm.send(&vmm::message(random.u32(0..45), 0, &body), &files)?;
    }
    pause(random, 100);
    Ok(())
}

fn flood(random: &mut Rng, socket: &Path) -> io::Result<()> {
    let mut memory = Memory::new()?;
    let mut vmm = Vmm::connect(socket)?;
    vmm.set_up(&memory)?;
    memory.open_session(random)?;
    for _ in 0..random.u32(20..200) {
        memory.add_batches(random)?;
        memory.publish(0)?;
        memory.await_used(PATIENCE)?;
    }
    Ok(())
}

fn rings(random: &mut Rng, socket: &Path) -> io::Result<()> {
    let mut memory = Memory::new()?;
    let mut vmm = Vmm::connect(socket)?;
    for _ in 0..random.u32(1..6) {
        vmm.set_up(&memory)?;
        memory.open_session(random)?;
        for _ in 0..random.u32(1..5) {
            memory.add_batches(random)?;
            memory.spoil(random)?;
            memory.publish(if random.u8(0..4) == 0 { random.u16(..) } else { 0 })?;
            pause(random, 10);
        }
        vmm.stop_queues()?;
        memory.clear()?;
    }
    Ok(())
}

fn cut_off(random: &mut Rng, socket: &Path) -> io::Result<()> {
    let mut memory = Memory::new()?;
    let mut vmm = Vmm::connect(socket)?;
    vmm.set_up(&memory)?;
    memory.open_session(random)?;
    memory.add_batches(random)?;
    memory.publish(0)?;
    memory.cut_off(random)?;
    memory.kick()?;
    pause(random, 50);
    Ok(())
}

fn pause(random: &mut Rng, most_ms: u64) {
    thread::sleep(Duration::from_millis(random.u64(0..most_ms)));
}
