// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Request decoding. Fields without a meaning must be zero, so a request that is accepted is the
//! one way to say what it says: encoded again it is the same bytes.

use vhost_zcache::device::request::{Operation, Request, decode};
use zcache_protocol as wire;
use zcache_protocol::{Opcode, Status};
use zcache_store::{GetMode, Key, PoolKind};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Decodes 48 bytes; fewer are filled up with zeros.
pub fn run(data: &[u8]) {
    let mut bytes = [0; size_of::<wire::Request>()];
    let length = data.len().min(bytes.len());
    bytes[..length].copy_from_slice(&data[..length]);
    let request = wire::Request::read_from_bytes(&bytes).expect("it has the size");
    match decode(&request) {
        Ok(meaning) => {
            assert_eq!(encode(&meaning).as_bytes(), request.as_bytes(), "{meaning:?} can be said in two ways");
        }
        Err(Status::Unsupported) => {
            let opcode = Opcode::from_wire(request.header.opcode.get());
            assert!(matches!(opcode, None | Some(Opcode::Hello)), "{opcode:?} is known");
        }
        Err(status) => assert_eq!(status, Status::Invalid),
    }
}

fn encode(request: &Request) -> wire::Request {
    let mut encoded = wire::Request::new_zeroed();
    let (opcode, flags, pool, body): (_, _, _, Vec<u8>) = match *request {
        Request::Hello { instance, features } => {
            let (reserved, features) = ([0; 16], features.into());
            let body = wire::HelloBody { instance, version: wire::VERSION.into(), features, reserved };
            (Opcode::Hello, 0, 0, body.as_bytes().into())
        }
        Request::Operation(operation) => match operation {
            Operation::PoolCreate(pool, kind) => {
                let (flags, uuid) = match kind {
                    PoolKind::Ephemeral => (0, [0; 16]),
                    PoolKind::Persistent => (wire::POOL_PERSISTENT, [0; 16]),
                    PoolKind::SharedEphemeral(uuid) => (wire::POOL_SHARED, uuid),
                };
                (Opcode::PoolCreate, flags, pool.0, uuid.into())
            }
            Operation::PoolDestroy(pool) => (Opcode::PoolDestroy, 0, pool.0, Vec::new()),
            Operation::FlushPool(pool) => (Opcode::FlushPool, 0, pool.0, Vec::new()),
            Operation::Wanted => (Opcode::Wanted, 0, 0, Vec::new()),
            Operation::FlushObject(pool, object) => (Opcode::FlushObject, 0, pool.0, object.0.into()),
            Operation::Put(key) => (Opcode::Put, 0, key.pool.0, keyed(&key, 0)),
            Operation::FlushPage(key) => (Opcode::FlushPage, 0, key.pool.0, keyed(&key, 0)),
            Operation::FlushRange(key, count) => (Opcode::FlushRange, 0, key.pool.0, keyed(&key, count)),
            Operation::Get(key, mode) => {
                let flags = if mode == GetMode::Exclusive { wire::GET_EXCLUSIVE } else { 0 };
                (Opcode::Get, flags, key.pool.0, keyed(&key, 0))
            }
        },
    };
    encoded.header = wire::RequestHeader { opcode: (opcode as u16).into(), flags: flags.into(), pool: pool.into() };
    encoded.body[..body.len()].copy_from_slice(&body);
    encoded
}

fn keyed(key: &Key, count: u64) -> Vec<u8> {
    let body = wire::KeyBody { object: key.object.0, index: key.index.into(), count: count.into() };
    body.as_bytes().into()
}
