// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VMM's message asks for.
//!
//! A message that makes no sense is answered with an error, if it can be, and never ends the
//! connection: QEMU aborts when it ends while the guest starts the device, and Cloud Hypervisor
//! when its configuration space cannot be read. SPEC.md section 13 has the table.

use std::fs::File;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};
use vhost::vhost_user::{Error, Result};
use zerocopy::{FromBytes, IntoBytes};

use super::log::Log;
use super::mirror::Mirror;
use super::state;
use crate::device::config_space::ConfigSpace;
use crate::device::ring::MAX_QUEUE_SIZE;
use crate::frontend::budget::MemoryBudget;
use crate::frontend::features::{Acknowledged, FEATURES, PROTOCOL_FEATURES};
use crate::frontend::log_limit::Occasion;
use crate::frontend::message::Message;
use crate::link::message::{Addresses, Change, LogArea, Region, RingChange};
use crate::worker::queue::event;

/// Bytes of a memory region in a message.
const REGION_SIZE: usize = 32;

/// Payload of SET_VRING_KICK, CALL and ERR: the ring's index, and whether no file comes with it.
const RING_BITS: u64 = 0xff;
const NO_FILE: u64 = 0x100;

/// What all devices have in common.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Queues, 1 to 64.
    pub num_queues: u16,
    /// What each guest may share.
    pub memory_budget: MemoryBudget,
}

/// How a message is answered once its change was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Not at all.
    None,
    /// By whether it was.
    Acknowledgement,
    /// By where the ring of this number was stopped.
    Base(u32),
    /// By whether the guest's state is on its way.
    Transfer,
    /// By whether it was moved.
    Verdict,
    /// By where the log is that was taken.
    Log(LogArea),
}

/// What is to be done about a message.
#[derive(Debug)]
pub enum Step {
    /// Nothing but to answer it, if it has an answer.
    Answer(Option<Vec<u8>>, Result<()>),
    /// A change that takes the worker.
    Change(Change, Vec<Rc<File>>, Answer),
}

/// What a message asks for, before it is known how it is answered.
enum Asked {
    Nothing,
    Change(Change, Vec<Rc<File>>),
}

/// Whether a message can be answered whatever the worker is doing.
#[must_use]
pub fn is_question(request: u32) -> bool {
    use FrontendReq as R;
    matches!(
        FrontendReq::try_from(request),
        Ok(R::GET_FEATURES | R::GET_PROTOCOL_FEATURES | R::GET_QUEUE_NUM | R::GET_MAX_MEM_SLOTS)
            | Ok(R::GET_CONFIG | R::SET_CONFIG)
    )
}

/// The protocol's state of one connection.
#[derive(Debug)]
pub struct Dispatcher {
    facts: Facts,
    /// Whether the VMM may ask for acknowledgements.
    reply_ack: bool,
}

impl Dispatcher {
    /// A connection on which nothing was said.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        Self::at(facts, false)
    }

    /// A connection on which the VMM has said whether it may ask for acknowledgements.
    #[must_use]
    pub fn at(facts: Facts, reply_ack: bool) -> Self {
        Self { facts, reply_ack }
    }

    /// Whether the VMM may ask for acknowledgements.
    #[must_use]
    pub fn reply_ack(&self) -> bool {
        self.reply_ack
    }

    /// What is to be done about a message, given what the VMM has set up so far.
    pub fn step(&mut self, message: Message, mirror: &Mirror, log: &Log) -> Step {
        let need_reply = message.need_reply;
        let Ok(request) = FrontendReq::try_from(message.request) else {
            return self.acknowledge(need_reply, Err(Error::InvalidOperation("unknown")));
        };
        if message.is_reply {
            // Whoever sends an answer does not wait for one.
            return Step::Answer(None, Err(Error::InvalidMessage));
        }
        if let Some(step) = self.question(request, &message.body) {
            return step;
        }
        let message = match state::step(request, message) {
            Ok(step) => return step,
            Err(message) => message,
        };
        match self.command(request, message, mirror, log) {
            Ok(Asked::Nothing) => self.acknowledge(need_reply, Ok(())),
            Ok(Asked::Change(change, files)) => {
                let wanted = self.reply_ack && need_reply;
                Step::Change(change, files, if wanted { Answer::Acknowledgement } else { Answer::None })
            }
            Err(error) => self.acknowledge(need_reply, Err(error)),
        }
    }

    fn acknowledge(&self, need_reply: bool, outcome: Result<()>) -> Step {
        let status = u64::from(outcome.is_err());
        Step::Answer((self.reply_ack && need_reply).then(|| status.as_bytes().to_vec()), outcome)
    }

    /// A message that has an answer of its own, which has no room for an error: zeros say as much
    /// as can be said. `None` for another message.
    fn question(&self, request: FrontendReq, body: &[u8]) -> Option<Step> {
        let number = |number: u64| Step::Answer(Some(number.as_bytes().to_vec()), Ok(()));
        Some(match request {
            FrontendReq::GET_FEATURES => number(FEATURES),
            FrontendReq::GET_PROTOCOL_FEATURES => number(PROTOCOL_FEATURES.bits()),
            FrontendReq::GET_QUEUE_NUM => number(self.facts.num_queues.into()),
            FrontendReq::GET_MAX_MEM_SLOTS => number(self.facts.memory_budget.regions),
            FrontendReq::GET_VRING_BASE => {
                let [index, _] = parse(body).unwrap_or_default();
                match parse::<[u32; 2]>(body).and_then(|_| self.ring(index)) {
                    Ok(ring) => Step::Change(Change::Ring(ring, RingChange::Stop), Vec::new(), Answer::Base(index)),
                    Err(error) => Step::Answer(Some([index, 0].as_bytes().to_vec()), Err(error)),
                }
            }
            FrontendReq::GET_CONFIG => self.get_config(body),
            _ => return None,
        })
    }

    /// Answers a read of the configuration space. No bytes say that it is an error.
    fn get_config(&self, body: &[u8]) -> Step {
        let read = |head: &[u8], room: usize| {
            let [offset, size, _flags]: [u32; 3] = parse(head)?;
            if usize::try_from(size) != Ok(room) {
                return Err(Error::InvalidMessage);
            }
            Ok(ConfigSpace::new(self.facts.num_queues).read(offset, size))
        };
        let (head, room) = body.split_at_checked(12).unwrap_or((&[0; 12], &[]));
        match read(head, room.len()) {
            Ok(bytes) => Step::Answer(Some([head, &bytes].concat()), Ok(())),
            Err(error) => {
                let mut reply = head.to_vec();
                reply[4..8].fill(0);
                Step::Answer(Some(reply), Err(error))
            }
        }
    }

    /// A message that is answered by an acknowledgement at most.
    fn command(&mut self, request: FrontendReq, message: Message, mirror: &Mirror, log: &Log) -> Result<Asked> {
        let Message { body, files, .. } = message;
        let body = &body[..];
        let budget = self.facts.memory_budget;
        let ring = |ring: usize, change| Ok(Asked::Change(Change::Ring(ring, change), Vec::new()));
        match request {
            FrontendReq::SET_OWNER | FrontendReq::RESET_OWNER => Ok(Asked::Nothing),
            FrontendReq::SET_FEATURES => {
                let features = parse(body)?;
                let acknowledged = Acknowledged::new(features).ok_or(Error::InvalidParam)?;
                if mirror.features() == Some(acknowledged) {
                    return Ok(Asked::Nothing);
                }
                Ok(Asked::Change(Change::Features(features), Vec::new()))
            }
            FrontendReq::SET_PROTOCOL_FEATURES => {
                let features: u64 = parse(body)?;
                self.reply_ack = features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0;
                Ok(Asked::Nothing)
            }
            FrontendReq::SET_MEM_TABLE => {
                let regions = regions(body)?;
                mirror.check_table(&regions, files.len(), budget)?;
                Ok(Asked::Change(Change::Table(regions), files))
            }
            FrontendReq::ADD_MEM_REG => {
                let (region, file) = (region(body)?, only(files)?);
                mirror.check_region(&region, budget)?;
                Ok(Asked::Change(Change::AddRegion(region), vec![file]))
            }
            FrontendReq::REM_MEM_REG => Ok(Asked::Change(Change::RemoveRegion(region(body)?), Vec::new())),
            FrontendReq::SET_VRING_NUM => {
                let [index, size]: [u32; 2] = parse(body)?;
                ring(self.ring(index)?, RingChange::Size(ring_size(index, size, log)))
            }
            FrontendReq::SET_VRING_BASE => {
                let [index, base]: [u32; 2] = parse(body)?;
                let (index, base) = (self.ring(index)?, u16::try_from(base).map_err(|_| Error::InvalidParam)?);
                // Only kept for a ring that is never served: one that is starts at its used index.
                ring(index, RingChange::Base(base))
            }
            FrontendReq::SET_VRING_ADDR => {
                let (head, addresses) = body.split_at_checked(8).ok_or(Error::InvalidMessage)?;
                let [index, _flags]: [u32; 2] = parse(head)?;
                let place = place(index, parse(addresses)?, mirror, log);
                ring(self.ring(index)?, RingChange::Place(place))
            }
            FrontendReq::SET_VRING_KICK => {
                let (index, file) = event(body, files, log)?;
                let change = RingChange::Kick(file.is_some());
                Ok(Asked::Change(Change::Ring(self.ring(index)?, change), file.into_iter().collect()))
            }
            FrontendReq::SET_VRING_CALL => {
                let (index, file) = event(body, files, log)?;
                let change = RingChange::Call(file.is_some());
                Ok(Asked::Change(Change::Ring(self.ring(index)?, change), file.into_iter().collect()))
            }
            FrontendReq::SET_VRING_ERR => {
                let (index, _) = event(body, files, log)?;
                self.ring(index).map(|_| Asked::Nothing)
            }
            FrontendReq::SET_VRING_ENABLE => match parse::<[u32; 2]>(body)? {
                [index, enable @ 0..=1] => ring(self.ring(index)?, RingChange::Enable(enable == 1)),
                _ => Err(Error::InvalidParam),
            },
            // Read-only; QEMU sends the whole area when the guest writes to it, and an error would
            // end the virtual machine of Cloud Hypervisor.
            FrontendReq::SET_CONFIG => match body.len() {
                12.. => Ok(Asked::Nothing),
                _ => Err(Error::InvalidMessage),
            },
            _ => Err(Error::InvalidOperation("not offered")),
        }
    }

    fn ring(&self, index: u32) -> Result<usize> {
        let ring = usize::try_from(index).ok().filter(|index| *index < usize::from(self.facts.num_queues));
        ring.ok_or(Error::InvalidParam)
    }
}

/// Size of a ring; 0, with which none is served, in place of one that cannot be. An error would be
/// no use to QEMU, which does not ask, and would end the virtual machine of Cloud Hypervisor.
fn ring_size(index: u32, size: u32, log: &Log) -> u16 {
    let usable = u16::try_from(size).ok().filter(|size| size.is_power_of_two() && *size <= MAX_QUEUE_SIZE);
    usable.unwrap_or_else(|| {
        let text = format_args!("queue {index} cannot have {size} entries, and is not served");
        log.say(Occasion::Placement, text);
        0
    })
}

/// Where a ring is in guest memory. One that is nowhere is left alone: an error here would end the
/// virtual machine.
fn place(index: u32, addresses: [u64; 4], mirror: &Mirror, log: &Log) -> Option<Addresses> {
    let [descriptor, used, available, _log] = addresses;
    let place = |vmm_address| mirror.guest_address(vmm_address);
    let addresses = place(descriptor)
        .zip(place(available))
        .zip(place(used))
        .map(|((descriptors, available), used)| Addresses { descriptors, available, used });
    if addresses.is_none() {
        let missing = if mirror.is_without_memory() {
            "the VMM shares no memory; give the virtual machine shared memory (QEMU: share=on of its memory backend, \
             Cloud Hypervisor: shared=on of --memory) and start it again"
        } else {
            "that is in no memory region"
        };
        let text = format_args!("queue {index} is not served: it is at {descriptor:#x}, but {missing}");
        log.say(Occasion::Placement, text);
    }
    addresses
}

fn parse<T: FromBytes>(bytes: &[u8]) -> Result<T> {
    T::read_from_bytes(bytes).map_err(|_| Error::InvalidMessage)
}

fn region_of(bytes: &[u8]) -> Result<Region> {
    let [start, size, vmm_address, offset] = parse(bytes)?;
    Ok(Region { start, size, vmm_address, offset })
}

/// The regions of a whole memory table. More bytes may follow: user-mode Linux (5.10 to 6.12) sends
/// all of its table for two, with one in use.
fn regions(body: &[u8]) -> Result<Vec<Region>> {
    let (head, regions) = body.split_at_checked(8).ok_or(Error::InvalidMessage)?;
    let [count, _] = parse::<[u32; 2]>(head)?;
    let size = usize::try_from(count).ok().and_then(|count| count.checked_mul(REGION_SIZE));
    let regions = size.and_then(|size| regions.get(..size)).ok_or(Error::InvalidMessage)?;
    regions.chunks(REGION_SIZE).map(region_of).collect()
}

/// A region that comes alone.
fn region(body: &[u8]) -> Result<Region> {
    let (_, region) = body.split_at_checked(8).ok_or(Error::InvalidMessage)?;
    region_of(region)
}

fn only(files: Vec<Rc<File>>) -> Result<Rc<File>> {
    match <[Rc<File>; 1]>::try_from(files) {
        Ok([file]) => Ok(file),
        Err(_) => Err(Error::IncorrectFds),
    }
}

/// Index of a ring, and the event it gets or loses. A file that is none counts as if none had come:
/// the ring is not served, or gives no interrupts, and the connection goes on.
fn event(body: &[u8], files: Vec<Rc<File>>, log: &Log) -> Result<(u32, Option<Rc<File>>)> {
    let number: u64 = parse(body)?;
    let index = u32::try_from(number & RING_BITS).map_err(|_| Error::InvalidMessage)?;
    if number & NO_FILE != 0 {
        return Ok((index, None));
    }
    let file = only(files)?;
    match event::check(&file) {
        Ok(()) => Ok((index, Some(file))),
        Err(error) => {
            log.say(Occasion::Event, format_args!("an event of queue {index} is {error}"));
            Ok((index, None))
        }
    }
}
