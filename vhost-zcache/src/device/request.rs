// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From the wire to a typed request. Every check of a request's format is here.

use zcache_protocol as wire;
use zcache_protocol::{Opcode, Status};
use zcache_store::{GetMode, Key, ObjectId, PoolId, PoolKind};
use zerocopy::FromBytes;

/// What a well-formed request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Opens a session.
    Hello {
        /// Tells one load of the driver from another.
        instance: [u8; wire::ID_SIZE],
    },
    /// Creates a pool, or joins a shared one.
    PoolCreate(PoolId, PoolKind),
    /// Destroys a pool, or leaves a shared one.
    PoolDestroy(PoolId),
    /// Stores the page that follows the requests.
    Put(Key),
    /// Reads a page.
    Get(Key, GetMode),
    /// Removes one page.
    FlushPage(Key),
    /// Removes this many pages of the object from the key's index on. Not zero, and index plus
    /// count is 2^64 at most.
    FlushRange(Key, u64),
    /// Removes an object's pages.
    FlushObject(PoolId, ObjectId),
    /// Removes a pool's pages.
    FlushPool(PoolId),
}

/// Decodes a request and checks its format: opcode, flags, unused fields, ranges.
///
/// # Errors
///
/// [`Status::Unsupported`] or [`Status::Invalid`], as ZC-DEV-13 to 16, 20 and 36 say.
pub fn decode(request: &wire::Request) -> Result<Request, Status> {
    let opcode = Opcode::from_wire(request.header.opcode.get()).ok_or(Status::Unsupported)?;
    let flags = request.header.flags.get();
    let pool = PoolId(request.header.pool.get());

    match opcode {
        Opcode::Hello => {
            let body = body::<wire::HelloBody>(request)?;
            valid(flags == 0 && pool.0 == 0 && body.reserved == [0; 16])?;
            if body.version.get() != wire::VERSION || body.features.get() != 0 {
                return Err(Status::Unsupported);
            }
            let instance = body.instance;
            Ok(Request::Hello { instance })
        }
        Opcode::PoolCreate => {
            let body = body::<wire::PoolBody>(request)?;
            valid(body.reserved == [0; 24])?;
            Ok(Request::PoolCreate(pool, pool_kind(flags, body.uuid)?))
        }
        Opcode::PoolDestroy => {
            valid(flags == 0 && request.body == [0; 40])?;
            Ok(Request::PoolDestroy(pool))
        }
        Opcode::Put => {
            valid(flags == 0)?;
            Ok(Request::Put(one_page(request, pool)?))
        }
        Opcode::Get => {
            let mode = match flags {
                0 => GetMode::Plain,
                wire::GET_EXCLUSIVE => GetMode::Exclusive,
                _ => return Err(Status::Invalid),
            };
            Ok(Request::Get(one_page(request, pool)?, mode))
        }
        Opcode::FlushPage => {
            valid(flags == 0)?;
            Ok(Request::FlushPage(one_page(request, pool)?))
        }
        Opcode::FlushRange => {
            let body = body::<wire::KeyBody>(request)?;
            let (index, count) = (body.index.get(), body.count.get());
            // index + count may be 2^64, so it is the last index that has to exist.
            let last = count.checked_sub(1).and_then(|more| index.checked_add(more));
            valid(flags == 0 && last.is_some())?;
            Ok(Request::FlushRange(key(body, pool), count))
        }
        Opcode::FlushObject => {
            let body = body::<wire::KeyBody>(request)?;
            valid(flags == 0 && body.index.get() == 0 && body.count.get() == 0)?;
            Ok(Request::FlushObject(pool, ObjectId(body.object)))
        }
        Opcode::FlushPool => {
            valid(flags == 0 && request.body == [0; 40])?;
            Ok(Request::FlushPool(pool))
        }
    }
}

fn valid(condition: bool) -> Result<(), Status> {
    condition.then_some(()).ok_or(Status::Invalid)
}

/// The body as the opcode's type. Cannot fail: bodies are all 40 bytes without alignment.
fn body<T>(request: &wire::Request) -> Result<T, Status>
where
    T: FromBytes,
{
    T::read_from_bytes(&request.body).map_err(|_| Status::Invalid)
}

fn pool_kind(flags: u16, uuid: [u8; wire::ID_SIZE]) -> Result<PoolKind, Status> {
    match (flags, uuid == [0; wire::ID_SIZE]) {
        (0, true) => Ok(PoolKind::Ephemeral),
        (wire::POOL_PERSISTENT, true) => Ok(PoolKind::Persistent),
        (wire::POOL_SHARED, false) => Ok(PoolKind::SharedEphemeral(uuid)),
        _ => Err(Status::Invalid),
    }
}

fn key(body: wire::KeyBody, pool: PoolId) -> Key {
    Key { pool, object: ObjectId(body.object), index: body.index.get() }
}

fn one_page(request: &wire::Request, pool: PoolId) -> Result<Key, Status> {
    let body = body::<wire::KeyBody>(request)?;
    valid(body.count.get() == 0)?;
    Ok(key(body, pool))
}
