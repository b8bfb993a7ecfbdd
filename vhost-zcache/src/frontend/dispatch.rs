// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Passes the VMM's messages to the back-end, and answers them.
//!
//! A message that makes no sense is answered with an error, if it can be, and never ends the
//! connection: QEMU aborts when it ends while the guest starts the device, and Cloud Hypervisor
//! when its configuration space cannot be read. SPEC.md section 13 has the table.

use std::fs::File;

use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfigFlags, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserSingleMemoryRegion,
    VhostUserVringAddrFlags,
};
use vhost::vhost_user::{Error, Result, VhostUserBackendReqHandlerMut};
use zerocopy::{FromBytes, IntoBytes};

use super::message::Message;

/// Bytes of a memory region in a message.
const REGION_SIZE: usize = 32;

/// Payload of SET_VRING_KICK, CALL and ERR: the ring's index, and whether no file comes with it.
const RING_BITS: u64 = 0xff;
const NO_FILE: u64 = 0x100;

/// What became of a message.
#[derive(Debug)]
pub struct Handled {
    /// Body of the answer, if there has to be one.
    pub reply: Option<Vec<u8>>,
    /// Why it was answered with an error, or not at all.
    pub outcome: Result<()>,
}

/// The protocol's state of one connection.
#[derive(Debug, Default)]
pub struct Dispatcher {
    /// Whether the VMM may ask for acknowledgements.
    reply_ack: bool,
}

impl Dispatcher {
    /// Passes a message to the back-end.
    pub fn handle(&mut self, backend: &mut impl VhostUserBackendReqHandlerMut, message: Message) -> Handled {
        let Ok(request) = FrontendReq::try_from(message.request) else {
            return self.acknowledge(message.need_reply, Err(Error::InvalidOperation("unknown")));
        };
        if message.is_reply {
            // Whoever sends an answer does not wait for one.
            return Handled { reply: None, outcome: Err(Error::InvalidMessage) };
        }
        match question(backend, request, &message.body) {
            Some((reply, outcome)) => Handled { reply: Some(reply), outcome },
            None => {
                let need_reply = message.need_reply;
                let outcome = self.command(backend, request, message);
                self.acknowledge(need_reply, outcome)
            }
        }
    }

    fn acknowledge(&self, need_reply: bool, outcome: Result<()>) -> Handled {
        let status = u64::from(outcome.is_err());
        let reply = (self.reply_ack && need_reply).then(|| status.as_bytes().to_vec());
        Handled { reply, outcome }
    }

    /// Carries out a message that is answered by an acknowledgement at most.
    fn command(
        &mut self,
        backend: &mut impl VhostUserBackendReqHandlerMut,
        request: FrontendReq,
        message: Message,
    ) -> Result<()> {
        let Message { body, files, .. } = message;
        let body = &body[..];
        match request {
            FrontendReq::SET_OWNER => backend.set_owner(),
            FrontendReq::RESET_OWNER => backend.reset_owner(),
            FrontendReq::SET_FEATURES => backend.set_features(parse(body)?),
            FrontendReq::SET_PROTOCOL_FEATURES => {
                let features = parse(body)?;
                self.reply_ack = features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0;
                backend.set_protocol_features(features)
            }
            FrontendReq::SET_MEM_TABLE => backend.set_mem_table(&regions(body)?, files, None).map(|_| ()),
            FrontendReq::ADD_MEM_REG => backend.add_mem_region(&region(body)?, only(files)?, None).map(|_| ()),
            FrontendReq::REM_MEM_REG => backend.remove_mem_region(&region(body)?),
            FrontendReq::SET_VRING_NUM => {
                let [index, size] = parse(body)?;
                backend.set_vring_num(index, size)
            }
            FrontendReq::SET_VRING_BASE => {
                let [index, base] = parse(body)?;
                backend.set_vring_base(index, base)
            }
            FrontendReq::SET_VRING_ADDR => {
                let (ring, addresses) = body.split_at_checked(8).ok_or(Error::InvalidMessage)?;
                let [index, flags] = parse(ring)?;
                let [descriptor, used, available, log] = parse(addresses)?;
                let flags = VhostUserVringAddrFlags::from_bits_truncate(flags);
                backend.set_vring_addr(index, flags, descriptor, used, available, log)
            }
            FrontendReq::SET_VRING_KICK => {
                let (index, file) = event(body, files)?;
                backend.set_vring_kick(index, file)
            }
            FrontendReq::SET_VRING_CALL => {
                let (index, file) = event(body, files)?;
                backend.set_vring_call(index, file)
            }
            FrontendReq::SET_VRING_ERR => {
                let (index, file) = event(body, files)?;
                backend.set_vring_err(index, file)
            }
            FrontendReq::SET_VRING_ENABLE => match parse::<[u32; 2]>(body)? {
                [index, enable @ 0..=1] => backend.set_vring_enable(index, enable == 1),
                _ => Err(Error::InvalidParam),
            },
            FrontendReq::SET_CONFIG => {
                let (head, bytes) = body.split_at_checked(12).ok_or(Error::InvalidMessage)?;
                let [offset, _, flags] = parse(head)?;
                backend.set_config(offset, bytes, VhostUserConfigFlags::from_bits_truncate(flags))
            }
            _ => Err(Error::InvalidOperation("not offered")),
        }
    }
}

/// Answers a message that has an answer of its own, which has no room for an error: zeros say
/// as much as can be said. `None` for another message.
fn question(
    backend: &mut impl VhostUserBackendReqHandlerMut,
    request: FrontendReq,
    body: &[u8],
) -> Option<(Vec<u8>, Result<()>)> {
    let number = |answer: Result<u64>| match answer {
        Ok(number) => (number.as_bytes().to_vec(), Ok(())),
        Err(error) => (0u64.as_bytes().to_vec(), Err(error)),
    };
    Some(match request {
        FrontendReq::GET_FEATURES => number(backend.get_features()),
        FrontendReq::GET_PROTOCOL_FEATURES => number(backend.get_protocol_features().map(|features| features.bits())),
        FrontendReq::GET_QUEUE_NUM => number(backend.get_queue_num()),
        FrontendReq::GET_MAX_MEM_SLOTS => number(backend.get_max_mem_slots()),
        FrontendReq::GET_VRING_BASE => {
            let [index, _] = parse(body).unwrap_or_default();
            let base = parse::<[u32; 2]>(body).and_then(|_| backend.get_vring_base(index));
            let (base, outcome) = match base {
                Ok(state) => (state.num, Ok(())),
                Err(error) => (0, Err(error)),
            };
            ([index, base].as_bytes().to_vec(), outcome)
        }
        FrontendReq::GET_CONFIG => get_config(backend, body),
        _ => return None,
    })
}

/// Answers a read of the configuration space. No bytes say that it is an error.
fn get_config(backend: &mut impl VhostUserBackendReqHandlerMut, body: &[u8]) -> (Vec<u8>, Result<()>) {
    let mut read = |head: &[u8], room: usize| {
        let [offset, size, flags] = parse(head)?;
        if usize::try_from(size) != Ok(room) {
            return Err(Error::InvalidMessage);
        }
        backend.get_config(offset, size, VhostUserConfigFlags::from_bits_truncate(flags))
    };
    let (head, room) = body.split_at_checked(12).unwrap_or((&[0; 12], &[]));
    match read(head, room.len()) {
        Ok(bytes) => ([head, &bytes].concat(), Ok(())),
        Err(error) => {
            let mut reply = head.to_vec();
            reply[4..8].fill(0);
            (reply, Err(error))
        }
    }
}

fn parse<T: FromBytes>(bytes: &[u8]) -> Result<T> {
    T::read_from_bytes(bytes).map_err(|_| Error::InvalidMessage)
}

/// The regions of a whole memory table.
fn regions(body: &[u8]) -> Result<Vec<VhostUserMemoryRegion>> {
    let (head, regions) = body.split_at_checked(8).ok_or(Error::InvalidMessage)?;
    let [count, _] = parse::<[u32; 2]>(head)?;
    if usize::try_from(count).ok().and_then(|count| count.checked_mul(REGION_SIZE)) != Some(regions.len()) {
        return Err(Error::InvalidMessage);
    }
    let fields = |bytes| {
        let [start, size, vmm_address, offset] = parse(bytes)?;
        Ok(VhostUserMemoryRegion::new(start, size, vmm_address, offset))
    };
    regions.chunks(REGION_SIZE).map(fields).collect()
}

/// A region that comes alone.
fn region(body: &[u8]) -> Result<VhostUserSingleMemoryRegion> {
    let [_, start, size, vmm_address, offset] = parse(body)?;
    Ok(VhostUserSingleMemoryRegion::new(start, size, vmm_address, offset))
}

fn only(files: Vec<File>) -> Result<File> {
    match <[File; 1]>::try_from(files) {
        Ok([file]) => Ok(file),
        Err(_) => Err(Error::IncorrectFds),
    }
}

/// Index of a ring, and the event it gets or loses.
fn event(body: &[u8], files: Vec<File>) -> Result<(u8, Option<File>)> {
    let number: u64 = parse(body)?;
    let index = u8::try_from(number & RING_BITS).map_err(|_| Error::InvalidMessage)?;
    let file = if number & NO_FILE == 0 { Some(only(files)?) } else { None };
    Ok((index, file))
}
